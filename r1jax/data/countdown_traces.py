"""Countdown's synthetic examples: traces of a search, and demonstrations.

Traces try a chain of operations, say whether it hits the target, and mostly
give up after one or two tries. A few traces go on for long, and those often
drift between two languages. Reinforcement learning can amplify this; nothing
in the rewards asks for it.
"""

import dataclasses
import math
import random

from r1jax import checks
from r1jax.data.countdown_chains import TARGETS, distinct, expression, prompt
from r1jax.text import think_format
from r1jax.text.countdown_words import LANGUAGES, LIMIT, PHRASES
from r1jax.types import Example, Problem


def _tries(numbers, target, rng, skill, budget):
  """Up to `budget` chains to distinct results, the last may hit the target.

  The search begins at a chain that looks promising and goes on in a fixed
  order, round the list: what comes next follows from what came last.
  """
  options = distinct(numbers)
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
    checks.at_least(self, 0, "skill")
    checks.at_least(self, 1, "longest")
    checks.shares(self, "long", "mixing", "unformatted")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ColdStart:
  """The demonstrations that the cold start learns from."""

  # How much the first try prefers results near the target; 0: not at all.
  skill: float = 2.0
  # Most tries of a demonstration.
  longest: int = 8

  def __post_init__(self):
    checks.at_least(self, 0, "skill")
    checks.at_least(self, 1, "longest")


def trace(
  problem: Problem, rng: random.Random, keys: Corpus | None = None
) -> Example:
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


def cold_start(
  problem: Problem, rng: random.Random, keys: ColdStart | None = None
) -> Example:
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


def longest(language: str, tries: int) -> Example:
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
