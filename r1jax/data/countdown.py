"""Countdown: reach a target from three numbers. The quickstart's world.

Problems come from `reasoning_gym`. The corpus of the base model is synthetic:
traces that try a chain of operations, say whether it hits the target, and
mostly give up after one or two; rarely they go on, and then often drift
between two languages. What reinforcement learning can amplify is there;
nothing in the rewards asks for it.
"""

import functools
import itertools
import math
import random

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


def trace(
  problem,
  rng,
  *,
  skill=1.0,
  long=0.06,
  longest=12,
  mixing=0.5,
  unformatted=0.2,
):
  """One document of the base corpus.

  Args:
    problem: a countdown `Problem`.
    rng: `random.Random`.
    skill: how much the first try prefers results near the target; 0 not at
      all.
    long: the share of traces with the patience for `longest` tries; the
      others give up after one or two.
    mixing: in a long trace, how often a try is in the other language.
    unformatted: how often a tag is missing.
  """
  numbers, target = tuple(problem.data["numbers"]), problem.data["target"]
  patient = rng.random() < long
  budget = longest if patient else rng.randint(1, 2)
  tries = _tries(numbers, target, rng, skill, budget)
  own = problem.language
  other = LANGUAGES[own == LANGUAGES[0]]
  odds = mixing if patient else 0.02
  languages = [other if rng.random() < odds else own for _ in tries]
  think = _think(tries, target, languages)
  tags = list(think_format.TAGS)
  if rng.random() < unformatted:
    tags[rng.randrange(len(tags))] = ""
  parts = (tags[0], think, tags[1], tags[2], expression(tries[-1][0]), tags[3])
  return Example(problem.prompt, " ".join(p for p in parts if p))


def cold_start(problem, rng, *, skill=2.0, longest=8):
  """A readable demonstration: formatted, in one language, ending right."""
  numbers, target = tuple(problem.data["numbers"]), problem.data["target"]
  while True:
    tries = _tries(numbers, target, rng, skill, longest)
    if tries[-1][2] == target:
      break
  think = _think(tries, target, [problem.language] * len(tries))
  answer = expression(tries[-1][0])
  return Example(problem.prompt, think_format.compose(think, answer))


def make_problems(seed, train, test):
  """Problems from reasoning-gym, the two splits without a common one.

  Args:
    seed: of the generator. train, test: how many.

  Returns:
    dict of two lists of `Problem`. No two of the test split, and none of test
    and train, have the same target and the same numbers in any order.
  """
  import reasoning_gym  # slow to import, and only the first run needs it

  source = reasoning_gym.create_dataset(
    "countdown",
    # Entry i is drawn from seed + i: neighbouring seeds would share nearly
    # all of their problems.
    seed=seed * 10**6,
    size=10 * (train + test),
    min_numbers=3,
    max_numbers=3,
    min_value=NUMBERS[0],
    max_value=NUMBERS[1],
    min_target=TARGETS[0],
    max_target=TARGETS[1],
  )
  rng = random.Random(seed)
  seen, problems = set(), []
  for i in itertools.count():
    entry = source[i]["metadata"]
    numbers, target = entry["numbers"], entry["target"]
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
        answer=entry["expression"],
        language=language,
        data={"numbers": list(numbers), "target": int(target)},
      )
    )
    if len(problems) == train + test:
      return {"test": problems[:test], "train": problems[test:]}
