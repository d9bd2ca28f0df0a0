"""Verdicts to named parts, parts to one reward.

A phase's `rewards` maps parts to weights. Three names in it are no parts:

  kinds   kind of problem -> weights that replace these for its problems
  gates   part -> another part, without which (below 1.0) it pays nothing
  models  part of your own -> "package.module:function", a reward model's
          scores: (problems, summaries) -> C floats of any scale

    rewards=dict(accuracy=1.0, format=0.5, gates=dict(accuracy="format"),
                 kinds=dict(chat=dict(helpful=1.0, format=0.5)),
                 models=dict(helpful="my_models.helpful:score"))
"""

import importlib
import math
import numbers

import numpy as np

from r1jax.errors import UserError
from r1jax.text import think_format
from r1jax.types import Verdict
from r1jax.verifiers import language

# A cut completion is neither right nor well formed, whatever it says: the
# paper is silent, and a policy must not profit from never coming to an end.
CUT = Verdict(False, 0.0, "cut")
# A problem whose own answer is unreadable: its group is not trained.
SKIPPED = Verdict(False, 0.0, "bad_problem")


def accuracy(problem, completion, verdict):
  """The verifier's score (R1 v2, 2.2)."""
  return verdict.score


def form(problem, completion, verdict):
  """1.0 where thinking and answer stand in their tags (R1 v2, 2.2, Eq. 4)."""
  prefilled = think_format.is_prefilled(problem.prompt)
  good = think_format.well_formed(completion, prefilled)
  return float(verdict is not CUT and good)


def graded_form(problem, completion, verdict):
  """The share of the tags that stand once and in order."""
  prefilled = think_format.is_prefilled(problem.prompt)
  return think_format.share_of_tags(completion, prefilled)


def consistency(problem, completion, verdict):
  """Words of the thinking in the question's language (R1 v2, 3.2.1, Eq. 7)."""
  thinking = think_format.thinking(completion)
  return language.consistency(thinking, problem.language)


# To add a part: a function (problem, completion, verdict) -> float in [0, 1].
PARTS = {
  "accuracy": accuracy,
  "format": form,
  "format_graded": graded_form,
  "language": consistency,
}
_SETTINGS = ("kinds", "gates", "models")
# Not a part that a config weighs: `loss.overlong` adds it as it is.
OVERLONG = "overlong"


def check(config, kinds=None):
  """Raises a `UserError` for a name in `rewards` that means nothing.

  Args:
    config: a phase's `rewards`.
    kinds: the kinds of problems that there are, or None where unknown.
  """
  for name in _SETTINGS:
    if not hasattr(config.get(name, {}), "items"):
      raise UserError(
        f"rewards.{name} must map names, not be {config[name]!r:.80}"
      )
  for kind in config.get("kinds", {}):
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
  known = (*PARTS, *models)
  named = [*config, *config.get("gates", {}), *config.get("gates", {}).values()]
  for kind, weights in config.get("kinds", {}).items():
    if not hasattr(weights, "items"):
      raise UserError(
        f"rewards.kinds.{kind} must map parts to weights, not be"
        f" {weights!r:.80}"
      )
    named += weights
    _check_weights(f"rewards.kinds.{kind}", weights)
  _check_weights("rewards", config)
  for name in named:
    if name not in known and name not in _SETTINGS:
      raise UserError(
        f'rewards: "{name}" is unknown; known: {", ".join(known)}'
      )
  for name in models:
    if name not in named:
      raise UserError(
        f'rewards.models: nothing weighs "{name}"; add {name}=1.0 to rewards'
        " or to one of rewards.kinds"
      )


def score(problems, completions, verdicts, config, overlong=None):
  """The parts of completions' rewards and their weighted sums.

  Args:
    problems: C of them, one for each completion. completions: C texts.
    verdicts: C; `CUT` for what did not end.
    config: part -> weight, see above; a part without a weight is reported,
      not rewarded.
    overlong: C penalties of `overlong.penalty`, added to the rewards and
      reported as the part "overlong"; None without.

  Returns:
    C dicts: "reward"; each of `PARTS` in [0, 1]; of a model's parts the score
    itself, which is standardised over the completions that have a weight for
    it before it is weighted (its scale means nothing); and "reason".

  Raises:
    UserError: a name is unknown, or a model's scores are not C.
  """
  check(config)
  rows = [
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
  for row, values, w, verdict in zip(rows, paid, weights, verdicts):
    row["reward"] = sum(
      weight * values[name]
      for name, weight in w.items()
      if _is_open(name, row, config)
    )
    row["reason"] = verdict.reason
  if overlong is not None:
    for row, penalty in zip(rows, overlong):
      row[OVERLONG] = float(penalty)
      row["reward"] += row[OVERLONG]
  return rows


def _check_weights(where, weights):
  for name, weight in weights.items():
    if name not in _SETTINGS and not (
      isinstance(weight, numbers.Real) and math.isfinite(weight)
    ):
      raise UserError(f"{where}.{name} must be a number, not {weight!r:.80}")


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
  """What a reward model says of summaries; it never sees the thinking."""
  if not problems:
    return np.zeros(0)
  summaries = [think_format.after_thinking(text) for text in completions]
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
      f" {len(problems)} completions, or what is not finite"
    )
  return scores
