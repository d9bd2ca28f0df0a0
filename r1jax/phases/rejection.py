"""Rejection sampling: a data set from a policy's own right answers."""

import jax

from r1jax.data import sources
from r1jax.phases import rollout as rollout_lib
from r1jax.phases.common import setup
from r1jax.training import learner
from r1jax.types import Example


def rejection(config, state, data, io):
  """Samples several completions a problem and keeps the good ones.

  Kept is what ended and reaches the least value of every named part: right,
  well formed, in the question's language. Of one problem at most `keep`
  completions, no two alike (R1 v2, 3.3 and B.3.3).

  Args:
    config: problems (how many), prompts (N of one rollout), group (G), keep,
      least (part of the reward -> least value), temperature, slots,
      max_new_tokens.
    state: `TrainState` of the policy to sample.
    data: not used; the problems are those of `config.task`.
    io: the phase's `PhaseIO`.

  Returns:
    `state` unchanged, and the list of `Example`.
  """
  s = setup(config)
  problems = sources.problems(config.task, io, s.tokenizer)["train"]
  params = learner.place_params(state.params, s.mesh)
  steps = -(-config.problems // config.prompts)
  kept, seen = [], 0
  io.bar(steps, 0, show=("kept", "accuracy"))
  for step in range(steps):
    batch = problems.take(step, config.prompts, s.seed)
    scored = rollout_lib.sample_and_score(
      s, config, params, batch, config.group,
      jax.random.fold_in(s.key, step), config.temperature, {"accuracy": 1.0},
    )  # fmt: skip
    kept += select(scored, config.group, config.keep, config.least)
    seen += len(scored.texts)
    io.report(
      step,
      {
        "kept": len(kept) / seen,
        "accuracy": scored.mean("accuracy"),
        "examples": len(kept),
      },
    )
  return state, kept


def select(scored, group, keep, least):
  """The examples worth learning from.

  Args:
    scored: a `Scored` rollout.
    group: G. keep: at most so many of a problem.
    least: part of the reward -> least value.
  """
  examples = []
  for n, problem in enumerate(scored.problems):
    chosen = {}
    for i in range(n * group, (n + 1) * group):
      good = all(scored.scores[i][p] >= value for p, value in least.items())
      if good and scored.rollout.ended[i]:
        chosen[scored.texts[i]] = None
    texts = list(chosen)[:keep]
    examples += [Example(problem.prompt, text) for text in texts]
  return examples
