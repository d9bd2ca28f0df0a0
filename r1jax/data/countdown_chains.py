"""Countdown's arithmetic: all chains of operations over three numbers."""

import functools
import itertools
from collections.abc import Iterable

from r1jax.text.countdown_words import LIMIT, PHRASES

NUMBERS = (1, 10)  # of a problem, the least and the greatest
TARGETS = (11, 99)
# (a, operation, b, operation, c), worked out from left to right.
Chain = tuple[int, str, int, str, int]
# A chain, the result of its first operation, and its result.
Try = tuple[Chain, int, int]


def _apply(x, op, y):
  """x op y, or None where it leaves the whole numbers from 0 to LIMIT."""
  if op == "/":
    value = x // y if y and x % y == 0 else -1
  else:
    value = {"+": x + y, "-": x - y, "*": x * y}[op]
  return value if 0 <= value <= LIMIT else None


@functools.cache
def chains(numbers: tuple[int, ...]) -> tuple[Try, ...]:
  """All left chains ((a, op, b, op, c), a op b, result) over three numbers.

  Args:
    numbers: a tuple; its order does not matter to the set that is returned.
  """
  found = []
  for a, b, c in sorted(set(itertools.permutations(numbers)), reverse=True):
    for first in "+-*/":
      if first in "+*" and a < b:
        continue  # the same sum or product as b op a
      middle = _apply(a, first, b)
      if middle is None:
        continue
      for second in "+-*/":
        result = _apply(middle, second, c)
        if result is not None:
          found.append(((a, first, b, second, c), middle, result))
  return tuple(found)


@functools.cache
def distinct(numbers: tuple[int, ...]) -> tuple[Try, ...]:
  """The first chain to each result: what a trace chooses its tries from."""
  first: dict[int, Try] = {}
  for chain in chains(numbers):
    first.setdefault(chain[-1], chain)
  return tuple(first.values())


def solvable(numbers: Iterable[int], target: int) -> bool:
  """Whether some chain reaches the target; all but a few in a thousand."""
  return any(result == target for _, _, result in chains(tuple(numbers)))


def expression(chain: Chain) -> str:
  """A left chain as infix text, with parentheses where they are needed."""
  a, first, b, second, c = chain
  inner = f"{a} {first} {b}"
  if first in "+-" and second in "*/":
    inner = f"( {inner} )"
  return f"{inner} {second} {c}"


def prompt(numbers: Iterable[int], target: int, language: str) -> str:
  """The question, as text of the template; the numbers in falling order."""
  falling = " ".join(map(str, sorted(numbers, reverse=True)))
  return PHRASES[language]["prompt"].format(target=target, numbers=falling)
