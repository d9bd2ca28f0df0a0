"""Tokens/s of the sampler, on random prompts, the end of sequence ignored.

fixed       completions of one length
heavy_tail  lognormal lengths, median 48, in fewer slots than completions
long        few slots and long completions: the price of a long cache, beside
            what reading the cache takes at the machine's bandwidth
"""

import functools
import itertools
import statistics
import time

import jax
import jax.numpy as jnp
import numpy as np

from r1jax.errors import UserError
from r1jax.model.linear import thin_matmul
from r1jax.sampling import cache
from r1jax.sampling.sampler import Callbacks, Sampler, SamplerConfig
from r1jax.sampling.weights import lay_out
from r1jax.training import policy
from tools.bench import machine

# Workload -> prompts, completions of each, slots, tokens of the longest,
# chunk, slots of the tail.
WORKLOADS = {
  "fixed": (8, 8, 64, 128, 64, ()),
  "heavy_tail": (8, 8, 16, 512, 256, (8, 3, 1)),
  "long": (8, 1, 8, 4096, 256, ()),
}


def arguments(what):
  """Adds this benchmark's own flags to a parser."""
  machine.model_arguments(what)
  for name, text in (
    ("prompts", "how many"),
    ("group", "completions of a prompt"),
    ("slots", "completions side by side"),
    ("new-tokens", "of the longest completion"),
    ("chunk", "columns of the cache read together, see SamplerConfig"),
  ):
    what.add_argument(
      f"--{name}", type=machine.count, help=f"{text}; by the workload"
    )
  what.add_argument(
    "--tail-slots", type=machine.count, nargs="*", metavar="N",
    help="side by side at the end, see SamplerConfig; by the workload",
  )  # fmt: skip
  what.add_argument(
    "--kv-dtype", choices=("compute", "int8"), default="compute",
    help="of the cache, see SamplerConfig",
  )  # fmt: skip
  what.add_argument(
    "--check", action="store_true",
    help="compare the log-probabilities with the learner's",
  )  # fmt: skip
  what.add_argument(
    "--prompt-tokens", type=machine.count, default=64,
    help="of each prompt, random ones; 64",
  )  # fmt: skip


def measure(args):
  """The row of a sampler workload, medians of the repeats."""
  sizes = (
    args.prompts, args.group, args.slots, args.new_tokens, args.chunk,
    args.tail_slots,
  )  # fmt: skip
  prompts, group, slots, new, chunk, tail = (
    default if size is None else size
    for size, default in zip(sizes, WORKLOADS[args.workload])
  )
  module, params = machine.load(args)
  longest = args.prompt_tokens + new
  if longest > module.config.max_length:
    raise UserError(
      f"{longest} tokens of a prompt and its completion exceed the model's"
      f" max_length={module.config.max_length}; lower --new-tokens"
    )
  slots = min(slots, prompts * group)
  limits = np.full(prompts * group, new)
  if args.workload == "heavy_tail":
    limits = machine.lognormal_lengths(len(limits), new)
  config = SamplerConfig(
    slots=slots, max_new_tokens=new, eos_id=-1, chunk=chunk,
    tail_slots=tuple(tail), kv_dtype=args.kv_dtype,
  )  # fmt: skip
  sampler = Sampler(module.config, config, group)
  first, *runs = (
    run(sampler, params, (prompts, args.prompt_tokens), limits, i)
    for i in range(args.repeats + 1)
  )
  runs = sorted(runs, key=lambda r: r["seconds"])
  median = runs[len(runs) // 2]
  rate = limits.sum() / median["seconds"]
  floor = slots / products_seconds(module.config, params, slots, config.stride)
  row = {
    "workload": args.workload,
    "dtype": args.dtype,
    "device": jax.devices()[0].device_kind,
    "jax": jax.__version__,
    "slots": slots,
    "tokens": int(limits.sum()),
    "tokens_per_s": round(rate, 1),
    "seconds": [round(r["seconds"], 4) for r in runs],
    "floor_tokens_per_s": round(floor, 1),
    "floor_share": round(rate / floor, 3),
    "occupancy": round(float(median["occupancy"]), 4),
    "compile_s": round(first["seconds"] - median["seconds"], 2),
    "peak_memory_gib": round(machine.peak_memory() / 2**30, 2),
  }
  if args.check:
    row |= compare(module.config, params, first["prompts"], first["rollout"])
  if args.workload == "long":
    row |= reading(median["steps"], sampler, args.prompt_tokens)
  return row


def reading(steps, sampler, prompt_tokens):
  """Milliseconds of some steps, beside what reading the cache takes.

  Args:
    steps: of `run`.
    sampler: the `Sampler`.
    prompt_tokens: P.
  """
  some = list(steps.items())[:: 512 // sampler.config.stride]
  speed = machine.bandwidth()
  column = kv_bytes(sampler.model, sampler.config) * sampler.config.slots
  return {
    "ms_per_step": {at: round(1e3 * s, 2) for at, s in some},
    "bandwidth_gb_per_s": round(speed / 1e9, 1),
    "reading_ms_per_step": {
      at: round(1e3 * column * (at + prompt_tokens) / speed, 2)
      for at, _ in some
    },
  }


def run(sampler, params, shape, limits, seed):
  """Samples once.

  Args:
    sampler: the `Sampler`.
    params: the model's parameters.
    shape: N and P of the random prompts.
    limits: [C] int, tokens of each completion.
    seed: int, of prompts and draws.

  Returns:
    dict: prompts; rollout; seconds; occupancy, the share of the slots that
    worked while completions waited, or 1 if none waited; steps, tokens so
    far -> seconds a step.
  """
  rng = np.random.default_rng(seed)
  tokens = rng.integers(sampler.model.vocab_size, size=shape)
  looks, begin = [], time.perf_counter()

  def on_look(look):
    looks.append((look, time.perf_counter()))

  rollout = sampler.sample(
    sampler.load(params), tokens, jax.random.key(seed), limits=limits,
    callbacks=Callbacks(on_look=on_look),
  )  # fmt: skip
  jax.block_until_ready(rollout)
  end = time.perf_counter()
  last, _ = looks[-1]
  offered = last.waited * sampler.config.slots
  return {
    "prompts": tokens,
    "rollout": rollout,
    "seconds": end - begin,
    "occupancy": last.busy / offered if offered else 1.0,
    "steps": {
      int(b.clock): (at - before) / int(b.clock - a.clock)
      for (a, before), (b, at) in itertools.pairwise(looks)
    },
  }


def compare(model, params, prompts, rollout):
  """How the learner's log-probabilities differ from the sampler's.

  Returns:
    dict: learner_gap, the mean absolute difference in nats; learner_ratio,
    the mean of pi_learner / pi_sampler.
  """
  r = jax.tree.map(np.asarray, rollout)
  each = len(r.lengths) // len(prompts)
  width = prompts.shape[1]
  tokens = np.concatenate((np.repeat(prompts, each, axis=0), r.tokens), axis=1)
  drawn = np.arange(r.tokens.shape[1]) < r.lengths[:, None]
  segments = np.pad(drawn, ((0, 0), (width, 0)), constant_values=True)[:, :-1]
  positions = np.broadcast_to(np.arange(segments.shape[1]), segments.shape)

  @jax.jit
  def score(params, *rows):
    return policy.logprobs(model, params, policy.Rows(*rows))[0]

  rows = (tokens[:, :-1], positions, segments.astype(np.int32), tokens[:, 1:])
  parts = [
    score(params, *(x[i : i + 8] for x in rows))
    for i in range(0, len(drawn), 8)
  ]
  logprobs = np.concatenate(parts)[:, width - 1 :]
  gap = (logprobs - r.logprobs)[drawn].astype(np.float64)
  return {
    "learner_gap": float(f"{np.abs(gap).mean():.3g}"),
    "learner_ratio": round(float(np.exp(gap).mean()), 5),
  }


def products_seconds(model, params, slots, number):
  """Seconds of a step if nothing but its products with weights took time.

  Args:
    number: int, steps in one call.
  """

  @functools.partial(jax.jit, static_argnums=2)
  def steps(weights, x, number):
    def step(i, carry):
      x, _ = carry
      for layer in weights.layers:
        w = {k: v["kernel"].T for k, v in layer.items() if "kernel" in v}
        q, k, v = (thin_matmul(x, w[name]) for name in "qkv")
        # Every product is used, or the compiler would leave it out.
        x = jnp.tanh(thin_matmul(q, w["o"]) + (k.mean() + v.mean()))
        gate, up = thin_matmul(x, w["gate"]), thin_matmul(x, w["up"])
        x = jnp.tanh(thin_matmul(gate * up, w["down"]))
      head = weights.embedding if model.tied else weights.head
      return x, jnp.argmax(thin_matmul(x, head.T), axis=-1)

    # In one call, as in the sampler: a small model's step is shorter than it.
    return jax.lax.fori_loop(0, number, step, (x, jnp.zeros(slots, int)))

  weights = lay_out(model, params)
  x = jnp.ones((slots, model.d_model), model.compute_dtype)
  seconds = []
  for _ in range(6):
    begin = time.perf_counter()
    jax.block_until_ready(steps(weights, x, number))
    seconds.append((time.perf_counter() - begin) / number)
  return statistics.median(seconds[1:])


def kv_bytes(model, config):
  """Bytes that one token has in the caches of all layers."""
  ring = jax.eval_shape(lambda: cache.empty_ring(model, 1, 1, 1, config.int8))
  return model.n_layers * sum(
    x.size * x.dtype.itemsize for x in jax.tree.leaves(ring)
  )
