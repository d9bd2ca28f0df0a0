"""Countdown: reach a target from three numbers. The quickstart's world.

`make_problems` draws what reasoning-gym's `countdown` task draws, number for
number, without that package. The corpus of the base model is synthetic:
traces that try a chain of operations, say whether it hits the target, and
mostly give up after one or two tries. A few traces go on for long, and those
often drift between two languages. Reinforcement learning can amplify this;
nothing in the rewards asks for it.
"""

import dataclasses
import functools
import itertools
import math
import operator
import random
from typing import Literal

from r1jax import config
from r1jax.data.task import Task, made
from r1jax.text import think_format
from r1jax.text.countdown_words import LANGUAGES, LIMIT, PHRASES
from r1jax.types import Example, Problem

NUMBERS = (1, 10)  # of a problem
TARGETS = (11, 99)


def _apply(x, op, y):
  """x op y, or None where it leaves the whole numbers from 0 to LIMIT."""
  if op == "/":
    value = x // y if y and x % y == 0 else -1
  else:
    value = {"+": x + y, "-": x - y, "*": x * y}[op]
  return value if 0 <= value <= LIMIT else None


@functools.cache
def chains(numbers):
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
def _distinct(numbers):
  """The first chain to each result: what a trace chooses its tries from."""
  first = {}
  for chain in chains(numbers):
    first.setdefault(chain[-1], chain)
  return tuple(first.values())


def solvable(numbers, target):
  """Whether some chain reaches the target; all but a few in a thousand."""
  return any(result == target for _, _, result in chains(tuple(numbers)))


def expression(chain):
  """A left chain as infix text, with parentheses where they are needed."""
  a, first, b, second, c = chain
  inner = f"{a} {first} {b}"
  if first in "+-" and second in "*/":
    inner = f"( {inner} )"
  return f"{inner} {second} {c}"


def prompt(numbers, target, language):
  """The question, as text of the template; the numbers in falling order."""
  numbers = " ".join(map(str, sorted(numbers, reverse=True)))
  return PHRASES[language]["prompt"].format(target=target, numbers=numbers)


def _tries(numbers, target, rng, skill, budget):
  """Up to `budget` chains to distinct results, the last may hit the target.

  The search begins at a chain that looks promising and goes on in a fixed
  order, round the list: what comes next follows from what came last.
  """
  options = _distinct(numbers)
  weights = [
    math.exp(-skill * abs(math.log((t + 1) / (target + 1))))
    for _, _, t in options
  ]
  (start,) = rng.choices(range(len(options)), weights)
  tries = []
  for chain in (options[start:] + options[:start])[:budget]:
    tries.append(chain)
    if chain[2] == target:
      break
  return tries


def _verdict(result, target):
  if result == target:
    return "right"
  return "low" if result < target else "high"


def _think(tries, target, languages):
  """The text of a search; one language a try."""
  words = []
  for k, ((chain, middle, result), language) in enumerate(
    zip(tries, languages)
  ):
    say = PHRASES[language]
    a, first, b, second, c = chain
    words += (
      say["again" if k else "try"],
      *map(str, (a, first, b, "=", middle, second, c, "=", result)),
      # The target again, right beside the result: a small model compares
      # neighbours far better than it compares with what stands in the prompt.
      # And a token to compare at, as "=" is one to compute at: without it
      # twice as many near misses are taken for hits.
      str(target),
      "?",
      say[_verdict(result, target)],
    )
  if tries[-1][2] != target:
    words.append(PHRASES[languages[-1]]["quit"])
  return " ".join(words)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Corpus:
  """The traces that the base model learns from."""

  # How much the first try prefers results near the target; 0: not at all.
  skill: float = 1.0
  # Share of long traces; the others stop after one or two tries.
  long: float = 0.06
  # Most tries of a long trace.
  longest: int = 12
  # Share of the tries of a long trace that use the other language.
  mixing: float = 0.5
  # Share of traces in which one tag is missing.
  unformatted: float = 0.2

  def __post_init__(self):
    config.at_least(self, 0, "skill")
    config.at_least(self, 1, "longest")
    config.shares(self, "long", "mixing", "unformatted")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ColdStart:
  """The demonstrations that the cold start learns from."""

  # How much the first try prefers results near the target; 0: not at all.
  skill: float = 2.0
  # Most tries of a demonstration.
  longest: int = 8

  def __post_init__(self):
    config.at_least(self, 0, "skill")
    config.at_least(self, 1, "longest")


def trace(problem, rng, keys=None):
  """One document of the base corpus.

  Args:
    problem: a countdown `Problem`.
    rng: `random.Random`.
    keys: `Corpus`; None for its defaults.

  Returns:
    `Example`.
  """
  keys = keys or Corpus()
  numbers, target = tuple(problem.data["numbers"]), problem.data["target"]
  patient = rng.random() < keys.long
  budget = keys.longest if patient else rng.randint(1, 2)
  tries = _tries(numbers, target, rng, keys.skill, budget)
  own = problem.language
  other = LANGUAGES[own == LANGUAGES[0]]
  odds = keys.mixing if patient else 0.02
  languages = [other if rng.random() < odds else own for _ in tries]
  think = _think(tries, target, languages)
  tags = list(think_format.TAGS)
  if rng.random() < keys.unformatted:
    tags[rng.randrange(len(tags))] = ""
  parts = (tags[0], think, tags[1], tags[2], expression(tries[-1][0]), tags[3])
  return Example(problem.prompt, " ".join(p for p in parts if p))


def cold_start(problem, rng, keys=None):
  """A readable demonstration: formatted, in one language, with a right end.

  Args:
    problem: a countdown `Problem`.
    rng: `random.Random`.
    keys: `ColdStart`; None for its defaults.

  Returns:
    `Example`.
  """
  keys = keys or ColdStart()
  numbers, target = tuple(problem.data["numbers"]), problem.data["target"]
  while True:
    tries = _tries(numbers, target, rng, keys.skill, keys.longest)
    if tries[-1][2] == target:
      break
  think = _think(tries, target, [problem.language] * len(tries))
  answer = expression(tries[-1][0])
  return Example(problem.prompt, think_format.compose(think, answer))


_OPERATIONS = {
  "+": operator.add, "-": operator.sub,
  "*": operator.mul, "/": operator.floordiv,
}  # fmt: skip


def draw(seed):
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
    value, chain = numbers[0], [numbers[0]]
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


def make_problems(seed, train, test):
  """Distinct problems that a chain solves, in two splits.

  Args:
    seed: of the problems.
    train: how many the train split has.
    test: how many the test split has.

  Returns:
    dict of two lists of `Problem`. No two of the test split, and none of test
    and train, have the same target and the same numbers in any order.
  """
  rng = random.Random(seed)
  seen, problems = set(), []
  for i in itertools.count():
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
    if len(problems) == train + test:
      return {"test": problems[:test], "train": problems[test:]}


_made = functools.lru_cache(maxsize=4)(make_problems)


def longest(language, tries):
  """An example with as many words as a trace or demonstration can have.

  Args:
    language: one of `LANGUAGES`.
    tries: the most tries of an example.
  """
  # Every try has another result, from 0 to LIMIT.
  tries = min(tries, LIMIT + 1)
  chain = ((10, "+", 10, "*", 5), 20, 100)
  question = prompt((10, 10, 10), TARGETS[1], language)
  think = _think([chain] * tries, TARGETS[1], [language] * tries)
  answer = expression(chain[0])
  return Example(question, think_format.compose(think, answer))


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
    config.at_least(self, 0, "seed")
    config.at_least(self, 1, "train", "test")

  def load(self, root, tokenizer, write=True):
    """As `Task.load`; the prompts need no template."""
    return made(
      root, self.kind, ("train", "test"),
      lambda: _made(self.seed, self.train, self.test), write,
    )  # fmt: skip

  def makers(self):
    """As `Task.makers`."""
    return {
      "corpus": functools.partial(trace, keys=self.corpus),
      "cold_start": functools.partial(cold_start, keys=self.cold_start),
    }

  def longest(self, name):
    """As `Task.longest`."""
    tries = {"corpus": self.corpus, "cold_start": self.cold_start}[name].longest
    return [longest(language, tries) for language in LANGUAGES]
