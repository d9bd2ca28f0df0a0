"""Supervised training on examples: base model, cold start, distillation."""

import dataclasses
import functools
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from r1jax import checks, losses, means, meshes, sharding
from r1jax.data import sources
from r1jax.errors import UserError
from r1jax.model import ModelConfig
from r1jax.phases import skips, usage
from r1jax.phases.common import Training
from r1jax.phases.preview import Preview
from r1jax.run.phase_io import PhaseIO
from r1jax.text import tokenizer as tokenizer_lib
from r1jax.training import learner, packing, policy
from r1jax.training import state as state_lib
from r1jax.training.optimizer import OptimizerConfig
from r1jax.types import Batch, Example, TrainState


@dataclasses.dataclass(frozen=True, kw_only=True)
class SFT(Training):
  """The keys of supervised training."""

  # What to learn from: a phase that makes examples, a file or directory of
  # prompts and completions, or a synthetic source of the task.
  data: str
  # Examples of a step.
  batch: int
  # Steps between two lines of metrics.
  log_every: int

  def __post_init__(self):
    super().__post_init__()
    checks.at_least(self, 1, "batch", "log_every")

  def check(self, preview: Preview) -> None:
    """As `Phase.check`."""
    super().check(preview)
    longest = self._longest_example(preview)
    if longest > self.row_length + 1:
      raise UserError(
        f"row_length={self.row_length} is too short: an example of"
        f' data="{self.data}" may have {longest} tokens, its end included;'
        f" row_length must be at least {longest - 1}"
      )

  def _longest_example(self, preview):
    """The most tokens of an example, its end included."""
    if self.data in preview.earlier:
      return preview.earlier[self.data].longest_example(preview)
    tokenizer = tokenizer_lib.load(self.tokenizer)
    if sources.is_file(self.task, self.data):
      try:
        examples = sources.read_examples(self.task, self.data, tokenizer)
      except UserError as e:
        raise UserError(f"data: {e}") from None
      if not examples:
        raise UserError(f"data={self.data} has no examples")
    else:
      sources.check_name(self.task, self.data)
      preview.problems(self, "train")
      examples = self.task.longest(self.data)
    return max(len(encode(tokenizer, e)[0]) for e in examples)


def sft(
  config: SFT,
  state: TrainState | None,
  data: str | list[Example],
  io: PhaseIO,
) -> tuple[TrainState, None]:
  """Minimises the cross-entropy of the completions of examples.

  Args:
    config: `SFT`.
    state: `TrainState` to start from, its parameters only; None is random.
    data: list of `Example` of an earlier phase, or the name of a source.
    io: the phase's `PhaseIO`.

  Returns:
    the final `TrainState`, and None.
  """
  s = config.setup()
  stream = sources.examples(config, data, io.root, s.tokenizer)
  update = update_fn(config.model, config.optimizer, s.mesh)
  state = state_lib.new_state(
    config.model, config.optimizer, s.mesh, state, s.key
  )
  first, state = io.restore(state) or (0, state)
  io.bar(config.steps, first, show=("loss", "lr"))
  rows = sharding.whole_rows(config.rows, s.mesh)
  micro = packing.capacity(
    config.batch, config.row_length + 1, config.row_length, rows
  )
  rate = Rate(first)
  watch = skips.Watch(io, config.name, config.max_skipped)
  pending: list[tuple[int, Any]] = []

  def look():
    """Notes which of the latest steps were not applied."""
    updates, pending[:] = jax.device_get(pending), []
    watch_updates(config, s.tokenizer, watch, stream, rows, updates)

  for step in range(first, config.steps):
    batch = pack_examples(
      s.tokenizer, stream(step, config.batch), config, rows, micro
    )
    rate.tokens += int((batch.segments > 0).sum())
    lr = config.learning_rate(step)
    state, metrics = update(state, learner.place(batch, s.mesh), lr)
    pending.append((step, metrics))
    done = step + 1
    if done % config.log_every == 0 or done == config.steps:
      # Reading waits for the device. So not after every step, and the next
      # batch is packed while the device works.
      look()
      row = {k: float(v) for k, v in metrics.items() if k != "checks"}
      row |= {"lr": lr, "skipped_steps": watch.total}
      io.report(step, {**row, **rate(done), **usage.memory()})
      watch.check()
    if io.due(done, config.save_every, config.steps):
      look()
      watch.check()
      io.save(done, state)
  return state, None


def watch_updates(
  config: SFT,
  tokenizer: tokenizer_lib.Tokenizer,
  watch: skips.Watch,
  stream: Callable,
  rows: int,
  updates: list[tuple[int, dict[str, Any]]],
) -> None:
  """Notes which of some optimizer steps were not applied.

  Args:
    config: `SFT`.
    tokenizer: the phase's.
    watch: `skips.Watch`.
    stream: function (step, count) -> the examples of a step.
    rows: of a micro-batch.
    updates: each step and its metrics.
  """
  for step, metrics in updates:

    def names(step=step):
      examples = stream(step, config.batch)
      packed = packing.members(
        _sequences(tokenizer, examples, config), config.row_length, rows
      )
      return [
        [f"{examples[i].prompt or examples[i].completion:.60}" for i in micro]
        for micro in packed
      ]

    watch(step, 0, metrics["checks"], names)


class Rate:
  """Tokens and seconds of the steps since the last report.

  Args:
    first: the first step.

  Attributes:
    tokens: of these steps, padding left out.
  """

  def __init__(self, first: int) -> None:
    self.tokens = 0
    self._clock, self._since = time.perf_counter(), first

  def __call__(self, done: int) -> dict[str, float]:
    """The metrics, when `done` steps are done; they begin anew."""
    now = time.perf_counter()
    seconds, steps = now - self._clock, done - self._since
    rates = {
      "learner_tokens_per_s": self.tokens / seconds,
      "seconds": seconds / steps,
    }
    self.tokens, self._clock, self._since = 0, now, done
    return rates


def pack_examples(
  tokenizer: tokenizer_lib.Tokenizer,
  examples: list[Example],
  config: SFT,
  rows: int,
  micro_batches: int,
) -> Batch:
  """Examples as a `Batch`; each trained token weighs the same."""
  return packing.pack(
    _sequences(tokenizer, examples, config),
    row_length=config.row_length,
    rows=rows,
    micro_batches=micro_batches,
    pad_id=tokenizer.pad_id,
  )


def _sequences(tokenizer, examples, config):
  """The `packing.Sequence` of each example."""
  sequences = [encode(tokenizer, e) for e in examples]
  for example, (tokens, _) in zip(examples, sequences):
    if len(tokens) > config.row_length + 1:
      raise UserError(
        f"an example of {len(tokens)} tokens exceeds row_length ="
        f" {config.row_length}; raise {config.name}.row_length or shorten"
        f" it: {example.prompt[:60]!r}..."
      )
  # One shape for all batches, or each would be compiled anew.
  mask = np.zeros((len(sequences), config.row_length + 1), bool)
  for row, (_, trained) in zip(mask, sequences):
    row[: len(trained)] = trained
  weights = np.asarray(means.token_mean(jnp.asarray(mask)))
  return [
    packing.Sequence(tokens, w[: len(tokens)])
    for (tokens, _), w in zip(sequences, weights)
  ]


def encode(
  tokenizer: tokenizer_lib.Tokenizer, example: Example
) -> tuple[np.ndarray, np.ndarray]:
  """Tokens of prompt, completion and end-of-sequence, and which are trained.

  A completion that spells an end token of the tokenizer gets no other.

  Returns:
    [n] int32, [n] bool.
  """
  prompt = tokenizer.encode(example.prompt)
  completion = list(tokenizer.encode_rest(example.completion))
  if not completion or completion[-1] not in tokenizer.end_ids:
    completion.append(tokenizer.eos_id)
  trained = np.zeros(len(prompt) + len(completion), bool)
  trained[len(prompt) :] = True
  trained[0] = False  # nothing comes before it to predict it
  return np.asarray(prompt + completion, np.int32), trained


@functools.lru_cache
def update_fn(
  model: ModelConfig, optimizer: OptimizerConfig, mesh: meshes.Mesh
) -> learner.Update:
  """The jitted step: (state, batch, lr) -> (state, metrics)."""

  def loss_fn(params, batch):
    logprobs, entropy = policy.logprobs(model, params, policy.rows_of(batch))
    loss = losses.cross_entropy(logprobs, batch.weights)
    return loss, {"entropy": (batch.weights * entropy).sum()}

  return learner.Update(loss_fn, model, optimizer, mesh)
