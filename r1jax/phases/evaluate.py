"""Held-out accuracy of a checkpoint."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from r1jax import checks, scores
from r1jax.errors import UserError
from r1jax.phases.actor import Actor, Scored
from r1jax.phases.common import Sampling
from r1jax.phases.preview import Preview
from r1jax.run.phase_io import PhaseIO
from r1jax.sampling.sampler import SamplerConfig
from r1jax.text.tokenizer import Tokenizer
from r1jax.types import Problem, TrainState
from r1jax.verifiers import final_answer


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluate(Sampling):
  """The keys of an evaluation."""

  # Divides the logits before a token is drawn; 0 takes the likeliest token.
  temperature: float
  # Most held-out problems to use, from the first.
  problems: int
  # Samples of each problem, k.
  samples: int
  # Name of the row in the table.
  label: str

  def __post_init__(self):
    super().__post_init__()
    checks.at_least(self, 1, "problems", "samples")
    if self.is_greedy() and self.samples > 1:
      raise UserError(
        f"samples={self.samples} would all be the same, since decoding is"
        " greedy; set samples=1"
      )

  def check_temperature(self) -> None:
    """As `Sampling.check_temperature`; 0 is greedy."""
    checks.at_least(self, 0, "temperature")

  def is_greedy(self) -> bool:
    """Whether each completion takes the likeliest token."""
    return self.sampler.greedy or self.temperature == 0

  def decoder(self, tokenizer: Tokenizer) -> SamplerConfig:
    """As `Sampling.decoder`."""
    config = super().decoder(tokenizer)
    return dataclasses.replace(config, greedy=self.is_greedy())

  def check(self, preview: Preview) -> None:
    """As `Phase.check`."""
    super().check(preview)
    self.check_prompts(preview, "test", self.problems)


def evaluate(
  config: Evaluate, state: TrainState, data: Any, io: PhaseIO
) -> tuple[TrainState, dict[str, Any]]:
  """Samples each held-out problem k times; a row of the closing table.

  Args:
    config: `Evaluate`.
    state: `TrainState` of the policy.
    data: not used; the problems are the "test" split of the task.
    io: the phase's `PhaseIO`.

  Returns:
    `state` unchanged, and the row: checkpoint, pass@1, cons@k, format,
    language, tokens (mean length of a completion). The phase's metrics also
    have pass@k, half the width of pass@1's 95 % interval and, where the
    problems are of several tasks (by their ids, TASK-NUMBER), pass@1 of each.
  """
  s = config.setup()
  problems = config.task.load(io.root, s.tokenizer)["test"][: config.problems]
  io.bar(1, 0, show=("pass@1", "tokens"))
  actor = Actor(config, s, config.samples, {"accuracy": 1.0})
  actor.load(state.params)
  scored = actor.rollout(problems)
  correct, answers = votes(problems, scored)
  row = {
    "checkpoint": config.label,
    "pass@1": scores.pass_at_1(correct),
    f"cons@{config.samples}": scores.consensus(answers, correct),
    "format": scored.mean("format"),
    "language": scored.mean("language"),
    "tokens": float(scored.rollout.lengths.mean()),
  }
  measured = {k: v for k, v in row.items() if k != "checkpoint"}
  measured[f"pass@{config.samples}"] = scores.solved(correct)
  if len(correct) > 1:
    measured["pass@1_half_width"] = scores.half_width(correct)
  for task, of_task in scores.by_task([p.id for p in problems], correct):
    measured[f"pass@1_{task}"] = scores.pass_at_1(of_task)
  io.report(0, measured)
  io.samples(0, scored.rows(16))
  return state, row


def votes(
  problems: Sequence[Problem], scored: Scored
) -> tuple[list[list[bool]], list[list[str | None]]]:
  """Whether each sample is right, and its answer.

  Args:
    problems: N of them.
    scored: `Scored`, N k samples.

  Returns:
    N lists of k bool; N lists of k answers, None where there is none.
  """
  correct, answers, k = [], [], scored.group
  for n, problem in enumerate(problems):
    group = slice(n * k, (n + 1) * k)
    correct.append([x["accuracy"] == 1 for x in scored.scores[group]])
    answers.append(
      [
        # A completion that was cut has no answer, whatever it says.
        final_answer(problem, text) if ended else None
        for text, ended in zip(scored.texts[group], scored.rollout.ended[group])
      ]
    )
  return correct, answers
