"""Seconds of a GRPO update: loss, gradients and AdamW, on random tokens.

fixed          8 groups of 8: 64 tokens and 128 new ones, with a reference
heavy_tail     the same with lognormal lengths, median 48, at most 512
long           8 sequences of 2,048 tokens, no reference; loss and gradients
               only, for their memory
shared_prompt  a group of 16: 512 tokens and 128 new ones, no reference
"""

import dataclasses
import time
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from r1jax import meshes, variants
from r1jax import model as model_lib
from r1jax.errors import UserError
from r1jax.model.config import REMATS
from r1jax.phases import grpo_batch, grpo_update
from r1jax.training import learner, packing
from r1jax.training import optimizer as optim
from r1jax.training import state as state_lib
from tools.bench import machine


class Workload(NamedTuple):
  """The sizes of a workload.

  Attributes:
    prompts: N.
    group: G, completions of each prompt.
    prompt_tokens: of each prompt.
    new_tokens: of a completion at most.
    row_length: tokens of a packed row.
    reference: whether there is a KL term.
    heavy: whether lengths are lognormal instead of `new_tokens`.
    step: whether AdamW takes a step.
  """

  prompts: int
  group: int
  prompt_tokens: int
  new_tokens: int
  row_length: int
  reference: bool
  heavy: bool = False
  step: bool = True


WORKLOADS = {
  "fixed": Workload(8, 8, 64, 128, 1088, True),
  "heavy_tail": Workload(8, 8, 64, 512, 2080, True, heavy=True),
  "long": Workload(8, 1, 1, 2047, 2048, False, step=False),
  "shared_prompt": Workload(1, 16, 512, 128, 2560, False),
}


def arguments(what):
  """Adds the flags of this benchmark.

  Args:
    what: `argparse.ArgumentParser`.
  """
  machine.model_arguments(what)
  for name in ("prompts", "group", "prompt-tokens", "new-tokens"):
    what.add_argument(f"--{name}", type=machine.count, help="by the workload")
  what.add_argument(
    "--row-length", type=machine.count, help="of a packed row; by the workload"
  )
  what.add_argument(
    "--rows", type=machine.count, default=1, help="of a micro-batch; 1"
  )
  what.add_argument(
    "--vocab-size", type=machine.count,
    help="tokens of a random vocabulary; default the model's own",
  )  # fmt: skip
  what.add_argument(
    "--plain", action="store_true",
    help="repeat the prompt for each completion",
  )  # fmt: skip
  what.add_argument(
    "--remat", choices=REMATS, default="products",
    help="what the backward pass recomputes, see ModelConfig; products",
  )  # fmt: skip


def prepare(args):
  """Loads what the flags ask for.

  Args:
    args: the parsed flags.

  Returns:
    the `Workload`, the `ModelConfig`, the parameters.

  Raises:
    UserError: the sequences do not fit the row or the model.
  """
  w = WORKLOADS[args.workload]
  w = w._replace(
    **{
      name: getattr(args, name)
      for name in w._fields
      if getattr(args, name, None) is not None
    }
  )
  module, params = machine.load(args)
  model = dataclasses.replace(module.config, remat=args.remat)
  if args.vocab_size:
    model = dataclasses.replace(model, vocab_size=args.vocab_size)
    params = _with_table(params, model)
  longest = w.prompt_tokens + w.new_tokens
  if longest > min(w.row_length, model.max_length):
    raise UserError(
      f"{longest} tokens of a prompt and its completion exceed the row"
      f" ({w.row_length}) or the model (max_length={model.max_length})"
    )
  return w, model, params


def _with_table(params, model):
  """Parameters with random tables for the vocabulary of another model."""
  rng = np.random.default_rng(0)

  def random(facts, shape, x):
    if facts.kind != "table":
      return x
    # By numpy: JAX would need more memory for it than what is measured.
    table = rng.standard_normal(shape.shape, np.float32)
    table *= model.d_model**-0.5
    return jnp.asarray(table, shape.dtype)

  return jax.tree.map(
    random, model_lib.facts_of(model), model_lib.shapes(model), params
  )


def measure(args):
  """Measures a learner workload.

  Args:
    args: the parsed flags.

  Returns:
    dict, the line to print; its numbers are medians of the repeats.
  """
  w, model, params = prepare(args)
  prompts, completions = random_completions(w, model.vocab_size)
  logprobs = [
    np.full(len(c), -np.log(model.vocab_size), np.float32) for c in completions
  ]
  batch, tokens = pack(
    w, prompts, completions, logprobs, args.rows, not args.plain
  )
  computed = int((batch.segments > 0).sum())
  places = int(batch.count) * args.rows * w.row_length
  update = (Update if w.step else Gradients)(w, model, params)
  del params
  seconds = []
  for _ in range(args.repeats + 1):
    begin = time.perf_counter()
    update(batch)
    seconds.append(time.perf_counter() - begin)
  first, *seconds = seconds
  median = sorted(seconds)[len(seconds) // 2]
  # Forward and backward take 2 and 4 operations for each weight and token.
  # Looking up embeddings takes none; attention is not counted.
  passes = 8 if w.reference else 6
  weights = sum(x.size for x in jax.tree.leaves(update.params))
  if not model.tied:
    weights -= model.vocab_size * model.d_model
  flops = passes * weights * computed / median
  peak = machine.product_rate(model.compute_dtype)
  return {
    "workload": args.workload,
    "dtype": args.dtype,
    "device": jax.devices()[0].device_kind,
    "jax": jax.__version__,
    "tokens": tokens,
    "computed_tokens": computed,
    "padding": round(1 - computed / places, 4),
    "seconds": [float(f"{s:.4g}") for s in sorted(seconds)],
    "tokens_per_s": round(tokens / median, 1),
    "gflop_per_s": round(flops / 1e9, 1),
    "peak_gflop_per_s": round(peak / 1e9, 1),
    "utilisation": round(flops / peak, 3),
    "compile_s": round(first - median, 2),
    "peak_memory_gib": round(machine.peak_memory() / 2**30, 2),
  }


def random_completions(w, vocab_size):
  """Draws prompts [N, P] and C completions of the workload's lengths.

  Args:
    w: the `Workload`.
    vocab_size: V.
  """
  rng = np.random.default_rng(0)
  number = w.prompts * w.group
  lengths = np.full(number, w.new_tokens)
  if w.heavy:
    lengths = machine.lognormal_lengths(number, w.new_tokens)
  prompts = rng.integers(vocab_size, size=(w.prompts, w.prompt_tokens))
  return prompts, [rng.integers(vocab_size, size=n) for n in lengths]


def pack(w, prompts, completions, logprobs, rows, shared):
  """Packs completions into rows, with advantages of 1 and -1 at random.

  Args:
    w: the `Workload`.
    prompts: N sequences of token ids.
    completions: C sequences of token ids.
    logprobs: of each completion, [n] float32.
    rows: of a micro-batch.
    shared: whether completions share their prompt.

  Returns:
    a `Batch`, and the number of tokens in all prompts and completions.
  """
  rng = np.random.default_rng(1)
  sequences = [
    grpo_batch.sequence(
      prompts[i // w.group],
      tokens,
      np.full(len(tokens), 1 / (len(tokens) * len(completions)), np.float32),
      rng.choice((-1.0, 1.0)),
      logprobs[i],
    )
    for i, tokens in enumerate(completions)
  ]
  batch = packing.pack(
    sequences,
    row_length=w.row_length,
    rows=rows,
    micro_batches=packing.capacity(
      len(sequences), w.prompt_tokens + w.new_tokens, w.row_length, rows,
      shared,
    ),
    shared=shared,
  )  # fmt: skip
  return batch, int(sum(len(s.tokens) for s in sequences))


def _constants(reference):
  """Further arguments of the update: the reference, `Loss`, temperature."""
  return reference, variants.Loss(beta=0.04 if reference else 0.0), 1.0


class Update:
  """The GRPO step of a workload, on one device.

  Args:
    w: the `Workload`.
    model: the `ModelConfig`.
    params: its parameters, which are those of the reference too.
  """

  def __init__(self, w, model, params):
    self.mesh = meshes.make_mesh(devices=jax.devices()[:1])
    optimizer = optim.OptimizerConfig()
    self.step = grpo_update.update_fn(model, optimizer, self.mesh)
    self.state = state_lib.restart_fn(model, optimizer, self.mesh)(params)
    self.reference = params if w.reference else None

  @property
  def params(self):
    """The parameters after the steps taken so far."""
    return self.state.params

  def __call__(self, batch):
    """Takes a step and waits for it.

    Args:
      batch: `Batch` of numpy arrays.
    """
    self.state, metrics = self.step(
      self.state, learner.place(batch, self.mesh), 1e-6,
      *_constants(self.reference),
    )  # fmt: skip
    jax.block_until_ready((self.state, metrics))


class Gradients:
  """The loss and its gradients, on one device; no step is taken.

  Args:
    w: the `Workload`.
    model: the `ModelConfig`.
    params: its parameters, which are those of the reference too.
  """

  def __init__(self, w, model, params):
    self.mesh = meshes.make_mesh(devices=jax.devices()[:1])
    self.gradients = learner.Gradients(
      grpo_update.loss_fn(model), model, optim.OptimizerConfig(), self.mesh
    )
    self.params = model_lib.place(model, params, self.mesh)
    self.reference = params if w.reference else None

  def __call__(self, batch):
    """Computes the gradients and waits for them.

    Args:
      batch: `Batch` of numpy arrays.
    """
    out = self.gradients(
      self.params, learner.place(batch, self.mesh),
      *_constants(self.reference),
    )  # fmt: skip
    jax.block_until_ready(out)
