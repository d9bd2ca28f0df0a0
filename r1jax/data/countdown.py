"""Countdown: reach a target from three numbers. The quickstart's world.

`make_problems` draws what reasoning-gym's `countdown` task draws, number for
number, without that package.
"""

import dataclasses
import functools
import operator
import random
from pathlib import Path
from typing import Any, Literal

from r1jax import checks
from r1jax.data.countdown_chains import (
  NUMBERS,
  TARGETS,
  Chain,
  expression,
  prompt,
  solvable,
)  # fmt: skip
from r1jax.data.countdown_traces import (
  ColdStart,
  Corpus,
  cold_start,
  longest,
  trace,
)  # fmt: skip
from r1jax.data.task import Maker, Problems, Task, made
from r1jax.text.countdown_words import LANGUAGES
from r1jax.text.tokenizer import Tokenizer
from r1jax.types import Example, Problem

_OPERATIONS = {
  "+": operator.add, "-": operator.sub,
  "*": operator.mul, "/": operator.floordiv,
}  # fmt: skip


def draw(seed: int) -> tuple[tuple[int, ...], int, Chain]:
  """Three numbers, a target, and a chain of operations between them.

  Draws the same random numbers in the same order as the `countdown` task of
  reasoning-gym 0.1.25 (Apache-2.0), so a seed keeps its problems: three
  numbers, then an operation after each; a division that leaves a remainder
  takes a later number, or becomes a subtraction; again where the target is
  out of range.

  Args:
    seed: of this problem alone.

  Returns:
    tuple of three int in the order of the question; int, the target; the
    chain (a, op, b, op, c) that reaches it.
  """
  rng = random.Random(seed)
  rng.randint(3, 3)  # reasoning-gym draws how many numbers there are
  while True:
    numbers = [rng.randint(*NUMBERS) for _ in range(3)]
    value = numbers[0]
    chain: list[Any] = [value]
    for i in (1, 2):
      op = rng.choice("+-*/")
      if op == "/":
        later = numbers[i:]
        rng.shuffle(later)
        exact = [n for n in later if value % n == 0]
        numbers[i] = exact[0] if exact else numbers[i]
        op = "/" if exact else "-"
      y = numbers[i]
      value = _OPERATIONS[op](value, y)
      chain += [op, y]
    if TARGETS[0] <= value <= TARGETS[1]:
      rng.shuffle(numbers)
      return tuple(numbers), value, tuple(chain)


def make_problems(seed: int, train: int, test: int) -> dict[str, list[Problem]]:
  """Distinct problems that a chain solves, in two splits.

  Args:
    seed: of the problems.
    train: how many the train split has.
    test: how many the test split has.

  Returns:
    dict of two lists of `Problem`. No two of the test split, and none of test
    and train, have the same target and the same numbers in any order.
  """
  rng, i = random.Random(seed), -1
  seen: set[tuple[int, ...]] = set()
  problems: list[Problem] = []
  while len(problems) < train + test:
    i += 1
    # Problem i has the seed `seed + i` in reasoning-gym: neighbouring seeds
    # would share nearly all of their problems.
    numbers, target, chain = draw(seed * 10**6 + i)
    key = (*sorted(numbers), target)
    if key in seen or not solvable(numbers, target):
      continue
    seen.add(key)
    language = rng.choice(LANGUAGES)
    problems.append(
      Problem(
        id=f"countdown-{i}",
        kind="countdown",
        prompt=prompt(numbers, target, language),
        answer=expression(chain),
        language=language,
        data={"numbers": list(numbers), "target": target},
      )
    )
  return {"test": problems[:test], "train": problems[test:]}


_made = functools.lru_cache(maxsize=4)(make_problems)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Countdown(Task):
  """Reach a target from three numbers, each used once."""

  kind: Literal["countdown"] = "countdown"
  # Seed of the problems.
  seed: int = 0
  # Number of problems to train on.
  train: int
  # Number of held-out problems.
  test: int
  # Keys of the synthetic source "corpus".
  corpus: Corpus = Corpus()
  # Keys of the synthetic source "cold_start".
  cold_start: ColdStart = ColdStart()

  def __post_init__(self):
    checks.at_least(self, 0, "seed")
    checks.at_least(self, 1, "train", "test")

  def load(
    self, root: Path, tokenizer: Tokenizer, write: bool = True
  ) -> dict[str, Problems]:
    """As `Task.load`; the prompts need no template."""
    return made(
      root, self.kind, ("train", "test"),
      lambda: _made(self.seed, self.train, self.test), write,
    )  # fmt: skip

  def makers(self) -> dict[str, Maker]:
    """As `Task.makers`."""
    return {
      "corpus": functools.partial(trace, keys=self.corpus),
      "cold_start": functools.partial(cold_start, keys=self.cold_start),
    }

  def longest(self, name: str) -> list[Example]:
    """As `Task.longest`."""
    keys = self.corpus if name == "corpus" else self.cold_start
    return [longest(language, keys.longest) for language in LANGUAGES]
