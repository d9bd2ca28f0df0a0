"""Rejection sampling: a data set from a policy's own right answers."""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

from r1jax import checks
from r1jax.errors import UserError
from r1jax.phases.actor import Actor, Scored
from r1jax.phases.common import Sampling
from r1jax.phases.preview import Preview
from r1jax.rewards import score as rewards
from r1jax.run import layout
from r1jax.run.phase_io import PhaseIO
from r1jax.types import Example, TrainState


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rejection(Sampling):
  """The keys of rejection sampling."""

  MAKES_EXAMPLES: ClassVar[bool] = True

  # Number of problems to sample.
  problems: int
  # Problems of one rollout, N.
  prompts: int
  # Completions of each problem, G.
  group: int
  # Most examples of one problem.
  keep: int
  # Part of the reward -> its least value in an example.
  least: Mapping[str, float]

  def __post_init__(self):
    super().__post_init__()
    checks.at_least(self, 1, "problems", "prompts", "group", "keep")
    for part in self.least:
      if part not in rewards.PARTS:
        raise UserError(
          f"least.{part} is no part of the reward; known:"
          f" {', '.join(rewards.PARTS)}"
        )

  def check(self, preview: Preview) -> None:
    """As `Phase.check`."""
    super().check(preview)
    self.check_prompts(preview, "train")

  def longest_example(self, preview: Preview) -> int:
    """The most tokens of an example, its end included."""
    return self.check_prompts(preview, "train") + self.sampler.max_new_tokens


def rejection(
  config: Rejection, state: TrainState, data: Any, io: PhaseIO
) -> tuple[TrainState, list[Example]]:
  """Samples several completions a problem and keeps the good ones.

  A kept completion ended and reaches the least value of every named part: it
  is right, well formed, in the question's language. Of one problem at most
  `keep` completions are kept, no two alike (R1 v2, 3.3 and B.3.3).

  Args:
    config: `Rejection`.
    state: `TrainState` of the policy to sample.
    data: not used; the problems are the "train" split of the task.
    io: the phase's `PhaseIO`.

  Returns:
    `state` unchanged, and the list of `Example`.
  """
  s = config.setup()
  problems = config.task.load(io.root, s.tokenizer)["train"]
  actor = Actor(config, s, config.group, {"accuracy": 1.0})
  actor.load(state.params)
  steps = -(-config.problems // config.prompts)
  first, rows = io.resume(layout.KEPT, "examples")
  kept = [Example(row["prompt"], row["completion"]) for row in rows]
  io.bar(steps, first, show=("kept", "accuracy"))
  for step in range(first, steps):
    batch = problems.take(step, config.prompts, config.seed)
    scored = actor.rollout(batch, step)
    found = select(scored, config.group, config.keep, config.least)
    kept += found
    seen = (step + 1) * len(scored.texts)
    io.extend(layout.KEPT, step, found)
    io.report(
      step,
      {
        "kept": len(kept) / seen,
        "accuracy": scored.mean("accuracy"),
        "examples": len(kept),
      },
    )
  return state, kept


def select(
  scored: Scored, group: int, keep: int, least: Mapping[str, float]
) -> list[Example]:
  """The examples worth learning from.

  Args:
    scored: a `Scored` rollout.
    group: G, completions of each problem.
    keep: most examples of one problem.
    least: part of the reward -> its least value.

  Returns:
    list of `Example`.
  """
  examples = []
  for n, problem in enumerate(scored.problems):
    chosen: dict[str, None] = {}
    for i in range(n * group, (n + 1) * group):
      good = all(scored.scores[i][p] >= value for p, value in least.items())
      if good and scored.rollout.ended[i]:
        chosen[scored.texts[i]] = None
    texts = list(chosen)[:keep]
    examples += [Example(problem.prompt, text) for text in texts]
  return examples
