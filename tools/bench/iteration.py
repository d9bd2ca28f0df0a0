"""Seconds of a whole GRPO iteration: rollout, rewards and update.

fixed       8 groups of 8: 64 tokens and 128 new ones, with a reference
heavy_tail  the same with lognormal lengths, median 48, at most 512
"""

import statistics
import time

import jax
import numpy as np

from r1jax import verifiers
from r1jax.hf import hub
from r1jax.rewards import score as rewards
from r1jax.sampling.sampler import Sampler, SamplerConfig
from r1jax.text import tokenizer as tokenizer_lib
from r1jax.types import Problem
from tools.bench import learner, machine
from tools.bench import sampler as sampler_bench

WORKLOADS = {name: learner.WORKLOADS[name] for name in ("fixed", "heavy_tail")}
PARTS = ("rollout", "rewards", "update")
PROBLEM = Problem("0", "exact", "", "1", "en", {})


def arguments(what):
  """Adds the flags of this benchmark, which are those of the learner.

  Args:
    what: `argparse.ArgumentParser`.
  """
  learner.arguments(what)


def measure(args):
  """Measures an iteration.

  Args:
    args: the parsed flags.

  Returns:
    dict, the line to print; its numbers are medians of the repeats.
  """
  runs, tokens = _runs(args)
  first, *runs = runs
  totals = [float(r.sum()) for r in runs]
  median = statistics.median(totals)
  return {
    "workload": args.workload,
    "dtype": args.dtype,
    "device": jax.devices()[0].device_kind,
    "jax": jax.__version__,
    "tokens": tokens,
    "seconds": [float(f"{t:.4g}") for t in sorted(totals)],
    **{
      f"{part}_s": round(statistics.median(times), 3)
      for part, times in zip(PARTS, np.transpose(runs))
    },
    "tokens_per_s": round(tokens / median, 1),
    "compile_s": round(float(first.sum()) - median, 2),
    "peak_memory_gib": round(machine.peak_memory() / 2**30, 2),
  }


def _runs(args):
  """Runs the iterations.

  Args:
    args: the parsed flags.

  Returns:
    list with the seconds of each of `PARTS` for every run, the first of which
    compiles; the tokens of a run.
  """
  w, model, params = learner.prepare(args)
  tokenizer = tokenizer_lib.HFTokenizer(
    hub.directory(args.model.removeprefix("hf:"))
  )
  prompts, completions = learner.random_completions(w, model.vocab_size)
  limits = np.array([len(c) for c in completions])
  _, _, slots, _, chunk, tail = sampler_bench.WORKLOADS[args.workload]
  config = SamplerConfig(
    slots=min(slots, len(limits)), max_new_tokens=w.new_tokens, eos_id=-1,
    chunk=chunk, tail_slots=tail,
  )  # fmt: skip
  sampler = Sampler(model, config, w.group)
  update = learner.Update(w, model, params)
  del params
  runs = []
  for seed in range(args.repeats + 1):
    clock = [time.perf_counter()]
    rollout = sampler.sample(
      sampler.load(update.state.params), prompts, jax.random.key(seed),
      limits=limits,
    )  # fmt: skip
    rollout = jax.tree.map(np.asarray, rollout)
    clock.append(time.perf_counter())
    drawn = [row[:n] for row, n in zip(rollout.tokens, rollout.lengths)]
    for row in drawn:
      text = tokenizer.decode(row.tolist())
      verdict = verifiers.verify(PROBLEM, text)
      rewards.score([PROBLEM], [text], [verdict], {"accuracy": 1.0})
    clock.append(time.perf_counter())
    logprobs = [row[:n] for row, n in zip(rollout.logprobs, rollout.lengths)]
    batch, tokens = learner.pack(
      w, prompts, drawn, logprobs, args.rows, not args.plain
    )
    update(batch)
    clock.append(time.perf_counter())
    runs.append(np.diff(clock))
  return runs, tokens
