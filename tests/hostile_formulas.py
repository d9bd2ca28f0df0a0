"""Hostile formulas of a grammar, to the math verifier.

  python tests/hostile_formulas.py START COUNT

Draws COUNT formulas of nested operators, towers, binomials, factorials,
functions, sums, integrals, limits and matrices, with large numbers anywhere,
and compares each with a gold. The status is not 0 if one takes more than a
second of CPU, gives the reason "error" or raises anything. The golds are short;
every fifth formula is the gold too.
"""

import contextlib
import random
import resource
import sys
import time

from r1jax.errors import BadProblem
from r1jax.verifiers.math.answer import equivalent

GOLDS = (
  "1", "x+1", "(0,1]", "\\{1,2\\}", "x^2+y^2=1", "\\frac{\\pi}{4}", "x>2",
  "\\begin{pmatrix}1&2\\\\3&4\\end{pmatrix}", "(1,2,3)", "2^{100}", "3:4",
  "5\\text{ cm}", "0.5", "e^{x}", "\\sqrt{2}+\\sqrt{3}",
)  # fmt: skip
LARGE = ("10^{9}", "9^{9^{9}}", "1e9", "99999999", "10^{10^{10}}",
         "10^{300}", "1" + "0" * 60, "65536", "2^{65536}", "0.001",
         "10^{-300}")  # fmt: skip
SMALL = ("0", "1", "2", "3", "7", "10", "12", "100", "-1", "1/2", "0.5")
LETTERS = ("x", "y", "n", "k", "e", "i", "\\pi", "\\infty", "a_1", "f(x)")
UNARY = (
  "\\sqrt{%s}", "\\sqrt[3]{%s}", "(%s)!", "%s!", "(%s)!!", "\\sin(%s)",
  "\\cos %s", "\\tan{%s}", "\\ln(%s)", "\\log_{2}(%s)", "\\exp(%s)",
  "e^{%s}", "\\Gamma(%s)", "\\zeta(%s)", "|%s|", "\\lfloor %s \\rfloor",
  "\\left(%s\\right)", "-%s", "\\arctan(%s)", "\\sinh(%s)", "f(%s)",
  "\\lim_{x\\to %s} x", "\\int_0^{%s} x dx", "\\overline{%s}", "sqrt(%s)",
  "ln(%s)", "\\text{%s}", "\\boxed{%s}", "\\vec{%s}", "%s\\%%", "\\%s",
)  # fmt: skip
BINARY = (
  "%s+%s", "%s-%s", "%s\\cdot %s", "%s%s", "\\frac{%s}{%s}", "%s/%s",
  "{%s}^{%s}", "%s^{%s}", "%s^%s", "(%s)^{%s}", "%s**%s", "%s^{-%s}",
  "\\binom{%s}{%s}", "\\binom%s%s", "C(%s,%s)", "\\sqrt[%s]{%s}",
  "\\log_{%s}{%s}", "\\gcd(%s,%s)", "%s \\pmod{%s}", "%s=%s", "%s<%s",
  "%s, %s", "(%s,%s)", "[%s,%s)", "\\{%s,%s\\}", "%s\\cup %s", "%s:%s",
  "\\sum_{k=1}^{%s} %s", "\\prod_{k=%s}^{%s} k", "\\int_{%s}^{%s} e^x dx",
  "\\begin{pmatrix}%s&%s\\\\1&0\\end{pmatrix}", "%s \\text{ cm}^%s",
  "\\begin{pmatrix}1&%s\\\\1&0\\end{pmatrix}^{%s}", "%s\\pm %s", "%s_{%s}",
  "%s \\le x \\le %s", "\\{x \\mid %s<x<%s\\}", "\\frac{d}{dx} %s^{%s}",
)  # fmt: skip


def formula(draw, depth):
  """A formula of at most a depth."""
  if depth == 0 or draw.random() < 0.15:
    kind = draw.random()
    return draw.choice(
      LARGE if kind < 0.3 else SMALL if kind < 0.7 else LETTERS
    )
  if draw.random() < 0.1:
    # A tower of one operator.
    form = draw.choice(UNARY)
    text = formula(draw, 1)
    for _ in range(draw.randint(2, 12)):
      text = form % text
    return text
  if draw.random() < 0.1:
    part = formula(draw, 1)
    return draw.choice((part, f"{part}^")) * draw.randint(2, 30)
  if draw.random() < 0.4:
    return draw.choice(UNARY) % formula(draw, depth - 1)
  return draw.choice(BINARY) % (
    formula(draw, depth - 1), formula(draw, depth - 1),
  )  # fmt: skip


def limit_memory(more):
  """Lets the address space of this process grow so much from now on."""
  with open("/proc/self/statm") as file:
    size = int(file.read().split()[0]) * resource.getpagesize()
  hard = resource.getrlimit(resource.RLIMIT_AS)[1]
  resource.setrlimit(resource.RLIMIT_AS, (size + more, hard))


def main(start, count):
  for gold in GOLDS:
    assert equivalent(gold, gold).correct, gold
  slowest, reasons = (0.0, ""), {}
  for i in range(start, start + count):
    if i % 500 == 0:
      # What the library's parser remembers grows.
      limit_memory(512 << 20)
    draw = random.Random(i)
    text = formula(draw, draw.randint(2, 5))
    gold = text if i % 5 == 0 else draw.choice(GOLDS)
    begin = time.thread_time()
    with contextlib.suppress(BadProblem):
      reason = equivalent(gold, text).reason
      reasons[reason] = reasons.get(reason, 0) + 1
      assert reason != "error", (i, gold, text)
      assert reason != "correct" or gold == text or plausible(text), (
        gold,
        text,
      )
    seconds = time.thread_time() - begin
    slowest = max(slowest, (seconds, text[:200]))
    assert seconds < 1.0, f"{i}: {seconds:.2f} s: {gold[:200]!r} {text[:200]!r}"
  print(f"{count} formulas, the slowest {slowest[0]:.2f} s: {slowest[1]!r}")
  print(reasons)


def plausible(text):
  """Whether an equal formula may be by chance: it is short."""
  return len(text) < 100


if __name__ == "__main__":
  main(int(sys.argv[1]), int(sys.argv[2]))
