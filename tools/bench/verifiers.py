"""Completions that the pool of verifiers judges in a second.

numeric   plain numbers, each in another form or another number
symbolic  polynomials, surds, intervals and the like, half of them right
code      a short program with one test, half of them right
"""

import random
import statistics
import time

from r1jax.rewards import judges
from r1jax.text.think_format import END_THINK, THINK
from r1jax.types import Problem
from tools.bench import machine

WORKLOADS = {"numeric": 4000, "symbolic": 800, "code": 240}


def arguments(what):
  """Adds this benchmark's own flags to a parser."""
  what.add_argument(
    "--workers", type=machine.count, help="processes; as many as cores"
  )
  what.add_argument(
    "--samples", type=machine.count, help="how many; by the workload"
  )


def measure(args):
  """The row of a workload, medians of the repeats."""
  make = {"numeric": numeric, "symbolic": symbolic, "code": code}
  rng = random.Random(0)
  count = args.samples or WORKLOADS[args.workload]
  samples = [make[args.workload](rng, i) for i in range(count)]
  seconds = []
  with judges.Judges(workers=args.workers) as pool:
    # The workers start and import what they need.
    for future in [pool.submit(*sample) for sample in samples[:40]]:
      future.result()
    for _ in range(args.repeats):
      begin = time.perf_counter()
      futures = [pool.submit(*sample) for sample in samples]
      verdicts = [future.result() for future in futures]
      seconds.append(time.perf_counter() - begin)
    workers = pool.workers
  median = statistics.median(seconds)
  return {
    "workload": args.workload,
    "samples": count,
    "workers": workers,
    "seconds": [round(s, 3) for s in seconds],
    "verdicts_per_s": round(count / median, 1),
    "correct": round(sum(v.correct for v in verdicts) / count, 3),
  }


def numeric(rng, i):
  """A number of two or three forms, against one of another form."""
  a, b = rng.randint(2, 99), rng.randint(2, 99)
  gold, text = rng.choice(
    (
      (str(a), f"{a}.0"),
      (f"\\frac{{{a}}}{{{b}}}", f"{a}/{b}"),
      (f"{a}e3", f"{a},000"),
      (str(a), str(b)),
    )
  )
  return math_sample(i, gold, text)


def symbolic(rng, i):
  """An expression and another way to write it, or one that is off by one."""
  a, b, c = (rng.randint(2, 20) for _ in range(3))
  wrong = i % 2
  gold, text = rng.choice(
    (
      (f"{a}x^2+{b}x+{c}", f"{c + wrong}+{b}x+{a}x^{{2}}"),
      (
        f"\\frac{{\\sqrt{{{a}}}}}{{{b}}}",
        f"\\frac{{{a}}}{{{b + wrong}\\sqrt{{{a}}}}}",
      ),
      (f"(x+{a})(x+{b})", f"x^2+{a + b}x+{a * b + wrong}"),
      (f"({a},{b})", f"({a}, {b + wrong})"),
      (f"{a}\\pi+{b}", f"{b + wrong}+{a}\\pi"),
    )
  )
  return math_sample(i, gold, text)


def math_sample(i, gold, text):
  """A problem and a completion that ends in a box."""
  problem = Problem(str(i), "math", "?", gold, "en", {})
  return problem, f"{THINK} hm {END_THINK} So it is \\boxed{{{text}}}."


def code(rng, i):
  """Read a number, print a multiple of it."""
  factor = rng.randint(2, 99)
  tests = [{"input": f"{i}\n", "output": f"{i * factor + i % 2}\n"}]
  problem = Problem(str(i), "code", "?", "", "en", {"tests": tests})
  program = f"```python\nprint(int(input()) * {factor})\n```"
  return problem, f"{THINK} hm {END_THINK}\n{program}"
