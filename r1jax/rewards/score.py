"""A reward is a weighted sum of named parts; this module computes the sum.

A phase's `rewards` maps parts to weights. Three of its names are no parts:

  kinds   kind of problem -> weights that replace the others for its problems
  gates   part -> another part; the first pays only if the second is 1.0
  models  a part of your own -> "package.module:function", a reward model:
          (problems, summaries) -> C floats of any scale

    rewards=dict(accuracy=1.0, format=0.5, gates=dict(accuracy="format"),
                 kinds=dict(chat=dict(helpful=1.0, format=0.5)),
                 models=dict(helpful="my_models.helpful:score"))

To add a part: write a function (problem, completion, verdict) -> float in
[0, 1], and name it in `PARTS`.
"""

import importlib
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from r1jax.config import convert
from r1jax.errors import UserError
from r1jax.text import think_format
from r1jax.types import Problem, Verdict
from r1jax.verifiers import language

# The verdict on a completion that reached the length limit, whatever it says.
# The paper does not say what it gets. A policy must not profit from never
# coming to an end, so it is neither right nor well formed.
CUT = Verdict(False, 0.0, "cut", cut=True)
# The verdict on all completions of a problem whose own answer is unreadable.
SKIPPED = Verdict(False, 0.0, "bad_problem", judged=False)


def accuracy(problem: Problem, completion: str, verdict: Verdict) -> float:
  """The verifier's score (R1 v2, 2.2)."""
  return verdict.score


def well_formed(problem: Problem, completion: str, verdict: Verdict) -> float:
  """1.0 if thinking and answer are in their tags (R1 v2, 2.2, Eq. 4)."""
  prefilled = think_format.is_prefilled(problem.prompt)
  good = think_format.well_formed(completion, prefilled)
  return float(good and not verdict.cut)


def share_of_tags(problem: Problem, completion: str, verdict: Verdict) -> float:
  """The share of the four tags that occur once and in order."""
  prefilled = think_format.is_prefilled(problem.prompt)
  return think_format.share_of_tags(completion, prefilled)


def consistency(problem: Problem, completion: str, verdict: Verdict) -> float:
  """The share of the thinking's words that are in the question's language.

  R1 v2, 3.2.1, Eq. 7.
  """
  thinking = think_format.thinking(completion)
  return language.consistency(thinking, problem.language)


PARTS = {
  "accuracy": accuracy,
  "format": well_formed,
  "format_graded": share_of_tags,
  "language": consistency,
}
# A part without a weight: `loss.overlong` adds it to every reward.
OVERLONG = "overlong"
_SETTINGS = {
  "kinds": Mapping[str, Mapping[str, float]],
  "gates": Mapping[str, str],
  "models": Mapping[str, str],
}


def check_weights(
  config: Mapping[str, Any], kinds: Collection[str] | None = None
) -> None:
  """Checks the names and weights of a phase's `rewards`.

  Args:
    config: a phase's `rewards`.
    kinds: all kinds of problems that occur; None if they are unknown.

  Raises:
    UserError: a name means nothing, or a weight is not a finite number.
  """
  for name, hint in _SETTINGS.items():
    convert(hint, config.get(name, {}), f"rewards.{name}")
  by_kind, gates = config.get("kinds", {}), config.get("gates", {})
  for kind in by_kind:
    if kinds is not None and kind not in kinds:
      raise UserError(
        f'rewards.kinds: no problem is of kind "{kind}"; there are:'
        f" {', '.join(sorted(kinds))}"
      )
  models = config.get("models", {})
  for name, function in models.items():
    if name in (*PARTS, *_SETTINGS, OVERLONG):
      raise UserError(
        f'rewards.models: "{name}" is taken; give your part another name'
      )
    _import(function)
  named = [*config, *gates, *gates.values()]
  named += [name for weights in by_kind.values() for name in weights]
  known = (*PARTS, *models)
  for name in named:
    if name not in known and name not in _SETTINGS:
      raise UserError(
        f'rewards: "{name}" is unknown; known: {", ".join(known)}'
      )
  for name, weight in config.items():
    if name not in _SETTINGS:
      convert(float, weight, f"rewards.{name}")
  for name in models:
    if name not in named:
      raise UserError(
        f'rewards.models: nothing weighs "{name}"; add {name}=1.0 to rewards'
        " or to one of rewards.kinds"
      )


def score(
  problems: Sequence[Problem],
  completions: Sequence[str],
  verdicts: Sequence[Verdict],
  config: Mapping[str, Any],
  overlong: Sequence[float] | np.ndarray | None = None,
) -> list[dict[str, Any]]:
  """The parts and the reward of each completion.

  Args:
    problems: C `Problem`s, one for each completion.
    completions: C texts.
    verdicts: C `Verdict`s.
    config: a phase's `rewards`. A part without a weight is logged but not
      rewarded.
    overlong: C penalties from `overlong.penalty`, which are added to the
      rewards; None without a penalty.

  Returns:
    C dicts:
      "reward": the weighted sum of the parts.
      each name of `PARTS`: in [0, 1].
      each name of `models`: the model's score, if its weight is not 0. Scores
        have no common scale, so they are standardized over the completions
        that have one before they are weighted.
      "overlong": the penalty, if there is one.
      "reason": the verdict's.

  Raises:
    UserError: a name is unknown, or a model does not return C scores.
  """
  check_weights(config)
  rows: list[dict[str, Any]] = [
    {name: part(*each) for name, part in PARTS.items()}
    for each in zip(problems, completions, verdicts)
  ]
  paid = [dict(row) for row in rows]
  weights = [_weights(problem, config) for problem in problems]
  for name, function in config.get("models", {}).items():
    of = [i for i, w in enumerate(weights) if w.get(name)]
    scores = _model_scores(
      function, [problems[i] for i in of], [completions[i] for i in of]
    )
    spread = scores.std() if len(of) else 0.0
    for i, value in zip(of, scores):
      rows[i][name] = float(value)
      gap = value - scores.mean()
      paid[i][name] = float(gap / spread) if spread > 0 else 0.0
  for i, (row, verdict) in enumerate(zip(rows, verdicts)):
    row["reward"] = sum(
      weight * paid[i][name]
      for name, weight in weights[i].items()
      if _is_open(name, row, config)
    )
    if overlong is not None:
      row[OVERLONG] = float(overlong[i])
      row["reward"] += row[OVERLONG]
    row["reason"] = verdict.reason
  return rows


def _weights(problem, config):
  weights = config.get("kinds", {}).get(problem.kind, config)
  return {k: v for k, v in weights.items() if k not in _SETTINGS}


def _is_open(name, row, config):
  gate = config.get("gates", {}).get(name)
  return gate is None or row[gate] >= 1.0


def _import(function):
  name, _, attribute = function.partition(":")
  try:
    return getattr(importlib.import_module(name), attribute)
  except (ImportError, AttributeError, ValueError) as e:
    raise UserError(
      f'rewards.models: "{function}" cannot be imported: {e}'
    ) from None


def _model_scores(function, problems, completions):
  """A reward model's scores; it sees only the text after the thinking."""
  if not problems:
    return np.zeros(0)
  summaries = [
    think_format.after_thinking(think_format.whole(problem.prompt, text))
    for problem, text in zip(problems, completions)
  ]
  scores = _import(function)(problems, summaries)
  try:
    scores = np.asarray(scores, float)
  except (TypeError, ValueError) as e:
    raise UserError(
      f'rewards.models: "{function}" must return a number a completion: {e}'
    ) from None
  if scores.shape != (len(problems),) or not np.isfinite(scores).all():
    raise UserError(
      f'rewards.models: "{function}" returned {scores.shape} for'
      f" {len(problems)} completions, or a score that is not finite"
    )
  return scores
