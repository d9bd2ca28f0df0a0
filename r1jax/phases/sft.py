"""Supervised training on examples: base model, cold start, distillation."""

import functools
import time

import numpy as np

from r1jax import losses, means, sharding
from r1jax.data import sources
from r1jax.errors import UserError
from r1jax.phases.common import setup
from r1jax.training import learner, packing, policy
from r1jax.training import optimizer as optim


def sft(config, state, data, io):
  """Minimises the cross-entropy of the completions of examples.

  Args:
    config: steps, batch (examples a step), lr, schedule, warmup, row_length,
      rows (of a micro-batch, at least), save_every, log_every.
    state: `TrainState` to start from, its parameters only; None is random.
    data: examples of an earlier phase, or the name of a source.
    io: the phase's `PhaseIO`.

  Returns:
    the final `TrainState`, and None.
  """
  s = setup(config)
  stream = sources.examples(
    config.task, data, s.seed, config.name, io, s.tokenizer
  )
  update = update_fn(s.model, s.optimizer, s.mesh)
  state = learner.new_state(s.model, s.optimizer, s.mesh, state, s.key)
  first, state = io.restore(state) or (0, state)
  io.bar(config.steps, first, show=("loss", "lr"))
  rows = sharding.whole_rows(config.rows, s.mesh)
  micro = packing.capacity(
    config.batch, config.row_length + 1, config.row_length, rows
  )
  clock = time.perf_counter()
  tokens, since = 0, first
  for step in range(first, config.steps):
    batch = pack_examples(
      s.tokenizer, stream(step, config.batch), config, rows, micro
    )
    tokens += int((batch.segments > 0).sum())
    lr = optim.learning_rate(
      step,
      lr=config.lr,
      steps=config.steps,
      schedule=config.schedule,
      warmup=config.warmup,
    )
    state, metrics = update(state, learner.place(batch, s.mesh), lr)
    done = step + 1
    if done % config.log_every == 0 or done == config.steps:
      # Reading waits for the device: not every step, so that packing the
      # next batch overlaps with it.
      metrics = {k: float(v) for k, v in metrics.items()}
      now = time.perf_counter()
      io.report(
        step,
        {
          **metrics,
          "lr": lr,
          "learner_tokens_per_s": tokens / (now - clock),
          "seconds": (now - clock) / (done - since),
        },
      )
      clock, tokens, since = now, 0, done
    if done % config.save_every == 0 or done == config.steps:
      io.save(done, state)
  return state, None


def pack_examples(tokenizer, examples, config, rows, micro_batches):
  """Examples as a `Batch`; each trained token weighs the same."""
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
  weights = np.asarray(means.token_mean(mask))
  return packing.pack(
    [
      packing.Sequence(tokens, w[: len(tokens)])
      for (tokens, _), w in zip(sequences, weights)
    ],
    row_length=config.row_length,
    rows=rows,
    micro_batches=micro_batches,
    pad_id=tokenizer.pad_id,
  )


def encode(tokenizer, example):
  """Tokens of prompt, completion and end-of-sequence, and which are trained.

  Returns:
    [n] int32, [n] bool.
  """
  prompt = tokenizer.encode(example.prompt)
  completion = tokenizer.encode(example.completion) + [tokenizer.eos_id]
  trained = np.zeros(len(prompt) + len(completion), bool)
  trained[len(prompt) :] = True
  trained[0] = False  # nothing comes before it to predict it
  return np.asarray(prompt + completion, np.int32), trained


@functools.lru_cache
def update_fn(model, optimizer, mesh):
  """The jitted step: (state, batch, lr) -> (state, metrics)."""

  def loss_fn(params, batch):
    logprobs, entropy = policy.logprobs(
      model,
      params,
      batch.tokens,
      batch.positions,
      batch.segments,
      batch.targets,
      trained=batch.weights > 0,
    )
    loss = losses.cross_entropy(logprobs, batch.weights)
    return loss, {"entropy": (batch.weights * entropy).sum()}

  return learner.update_fn(loss_fn, model, optimizer, mesh)
