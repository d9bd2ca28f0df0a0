"""The synthetic corpus says nothing false and holds what it promises."""

import itertools
import random
import re
from fractions import Fraction

import pytest

from r1jax.data import countdown, countdown_chains, countdown_traces
from r1jax.rewards import score as rewards
from r1jax.text.countdown_words import PHRASES, WORDS
from r1jax.text.tokenizer import WordTokenizer
from r1jax.verifiers import countdown as verifier
from r1jax.verifiers import verify

OPS = {
  "+": Fraction.__add__,
  "-": Fraction.__sub__,
  "*": Fraction.__mul__,
  "/": Fraction.__truediv__,
}
TRY = re.compile(
  r"(\S+) (\d+) ([-+*/]) (\d+) = (\d+)"
  r" ([-+*/]) (\d+) = (\d+) (\d+) \? (\S+)"
)


@pytest.fixture(scope="module")
def problems():
  return countdown.make_problems(0, 160, 40)


def brute_force(numbers):
  """All left chains whose steps are whole numbers in range, by fractions."""
  found = set()
  for order in itertools.permutations(map(Fraction, numbers)):
    for first, second in itertools.product(OPS, repeat=2):
      try:
        middle = OPS[first](order[0], order[1])
        result = OPS[second](middle, order[2])
      except ZeroDivisionError:
        continue
      steps = (middle, result)
      if all(
        x.denominator == 1 and 0 <= x <= countdown_chains.LIMIT for x in steps
      ):
        a, b, c = map(int, order)
        if first in "+*":
          a, b = max(a, b), min(a, b)
        found.add(((a, first, b, second, c), int(middle), int(result)))
  return found


@pytest.mark.parametrize(
  "numbers", [(3, 7, 8), (1, 1, 1), (10, 10, 9), (10, 1, 2), (5, 10, 5)]
)
def test_chains_against_brute_force(numbers):
  found = countdown_chains.chains(numbers)
  assert len(set(found)) == len(found)
  assert set(found) == brute_force(numbers)
  assert set(countdown_chains.chains(numbers[::-1])) == set(found)


def test_expression_has_the_value_of_its_chain():
  for numbers in ((3, 7, 8), (12, 6, 2), (9, 9, 1)):
    for chain, _, result in countdown_chains.chains(numbers):
      value, used = verifier.evaluate(countdown_chains.expression(chain))
      assert value == result and sorted(used) == sorted(numbers)


def test_parentheses_only_where_needed():
  assert countdown_chains.expression((8, "-", 3, "*", 7)) == "( 8 - 3 ) * 7"
  assert countdown_chains.expression((7, "*", 3, "+", 8)) == "7 * 3 + 8"
  assert countdown_chains.expression((8, "+", 3, "-", 7)) == "8 + 3 - 7"
  assert countdown_chains.expression((8, "*", 3, "/", 4)) == "8 * 3 / 4"


def test_solvable():
  assert countdown_chains.solvable([3, 7, 8], 29)
  assert not countdown_chains.solvable([3, 7, 8], 99)
  # Its only way is 12 * 12 / 9, and 144 has no token.
  assert not countdown_chains.solvable([12, 9, 12], 16)


def test_problems(problems):
  train, test = problems["train"], problems["test"]
  assert (len(train), len(test)) == (160, 40)
  both = train + test
  keys = {(*sorted(p.data["numbers"]), p.data["target"]) for p in both}
  assert len(keys) == len({p.id for p in both}) == 200
  for p in both:
    numbers, target = p.data["numbers"], p.data["target"]
    assert len(numbers) == 3 and all(1 <= n <= 10 for n in numbers)
    assert 11 <= target <= 99
    assert countdown_chains.solvable(numbers, target)
    assert verify(p, f"<answer> {p.answer} </answer>").correct
    falling = sorted(numbers, reverse=True)
    assert list(map(int, re.findall(r"\d+", p.prompt))) == [target, *falling]
    assert ("用户" in p.prompt) == (p.language == "zh")
  assert 60 < sum(p.language == "zh" for p in both) < 140
  assert countdown.make_problems(0, 160, 40) == problems


def test_seeds_give_different_problems(problems):
  def keys(split):
    return {(*p.data["numbers"], p.data["target"]) for p in split}

  other = countdown.make_problems(1, 160, 40)
  assert len(keys(other["test"]) & keys(problems["test"])) < 4


def tries_of(problem, text):
  """The tries of a document, each checked word by word."""
  numbers, target = problem.data["numbers"], problem.data["target"]
  found = []
  for (
    say, a, first, b, middle, second, c, result, repeated, verdict
  ) in TRY.findall(text):  # fmt: skip
    assert int(repeated) == target
    values = [Fraction(x) for x in (a, b, c)]
    assert OPS[first](values[0], values[1]) == int(middle)
    assert OPS[second](Fraction(middle), values[2]) == int(result)
    assert sorted(values) == sorted(numbers)
    (language,) = (
      k
      for k, words in PHRASES.items()
      if say == words["again" if found else "try"]
    )
    words = PHRASES[language]
    distance = int(result) - target
    key = "right" if distance == 0 else "low" if distance < 0 else "high"
    assert verdict == words[key]
    found.append((language, (a, first, b, second, c), int(result)))
  # None is tried twice, and they follow the one order of the numbers' chains,
  # round from the last to the first at most once.
  order = list(
    dict.fromkeys(r for *_, r in countdown_chains.chains(tuple(numbers)))
  )
  places = [order.index(result) for *_, result in found]
  steps = [(b - a) % len(order) for a, b in itertools.pairwise(places)]
  assert set(steps) <= {1} and len(found) <= len(order)
  # Nothing comes after a hit.
  assert all(result != target for _, _, result in found[:-1])
  return found


def documents(problems, make, count, keys=None):
  rng = random.Random(5)
  for _ in range(count):
    problem = rng.choice(problems["train"])
    example = make(problem, rng, keys)
    assert example.prompt == problem.prompt
    yield problem, example.completion


def test_traces(problems):
  tokenizer = WordTokenizer(WORDS)
  lengths, untagged, right = [], 0, 0
  for problem, text in documents(problems, countdown_traces.trace, 3000):
    assert tokenizer.decode(tokenizer.encode(text)) == text
    tries = tries_of(problem, text)
    lengths.append(len(tries))
    tags = re.findall(r"</?\w+>", text)
    untagged += len(tags) < 4
    if len(tags) == 4:
      # The answer is the last chain: right exactly where it hit the target.
      correct = verify(problem, text).correct
      assert correct == (tries[-1][2] == problem.data["target"])
      right += correct
    assert len(tags) >= 3
    if tries[-1][2] != problem.data["target"]:
      assert f" {PHRASES[tries[-1][0]]['quit']} " in text
  share = sum(n > 2 for n in lengths) / len(lengths)
  assert 0.03 < share < 0.07  # 6 % have the patience, some hit before
  assert max(lengths) > 8
  assert 0.17 < untagged / 3000 < 0.23
  assert 0.05 < right / 3000 < 0.35  # most give up with a wrong answer


def test_long_traces_mix_languages(problems):
  def share(**fields):
    keys = countdown_traces.Corpus(**fields)
    other = total = 0
    for p, text in documents(problems, countdown_traces.trace, 400, keys):
      for language, _, _ in tries_of(p, text):
        other += language != p.language
        total += 1
    return other / total

  assert 0.4 < share(long=1.0, mixing=0.5) < 0.6
  assert share(long=1.0, mixing=0.0) == 0
  assert share(long=0.0, mixing=0.5) < 0.06


def test_skill_starts_near_the_target(problems):
  def right(skill):
    keys = countdown_traces.Corpus(skill=skill, long=0.0, unformatted=0.0)
    docs = documents(problems, countdown_traces.trace, 500, keys)
    return sum(verify(p, text).correct for p, text in docs)

  assert 1.5 * right(0.0) < right(3.0)


def test_cold_start_is_clean(problems):
  weights = {"accuracy": 1.0, "format": 1.0, "language": 1.0}
  longest = 0
  for problem, text in documents(problems, countdown_traces.cold_start, 500):
    longest = max(longest, len(tries_of(problem, text)))
    verdict = verify(problem, text)
    (score,) = rewards.score([problem], [text], [verdict], weights)
    assert score["reward"] == 3.0
  assert 4 < longest <= 8


def test_a_document_is_a_function_of_the_generator(problems):
  def draw(seed):
    rng = random.Random(seed)
    return [countdown_traces.trace(p, rng) for p in problems["train"]]

  assert draw("0/base/7") == draw("0/base/7") != draw("0/base/8")


def test_draws_are_those_of_reasoning_gym():
  import reasoning_gym

  source = reasoning_gym.create_dataset(
    "countdown", seed=7, size=300, min_numbers=3, max_numbers=3, min_value=1,
    max_value=10, min_target=11, max_target=99,
  )  # fmt: skip
  for i in range(300):
    numbers, target, chain = countdown.draw(7 + i)
    entry = source[i]["metadata"]
    assert list(numbers) == entry["numbers"] and target == entry["target"]
    a, first, b, second, c = chain
    assert sorted((a, b, c)) == sorted(numbers)
    assert OPS[second](OPS[first](Fraction(a), Fraction(b)), Fraction(c)) == (
      target
    )


def test_answers_that_no_chain_reaches_are_left_out(monkeypatch):
  def draw(seed):
    if seed == 0:
      return (12, 12, 9), 16, (12, "*", 12, "/", 9)  # passes 144
    return (3, 7, 8 + seed), 29 + seed, (3, "*", 7, "+", 8 + seed)

  monkeypatch.setattr(countdown, "draw", draw)
  made = countdown.make_problems(0, 2, 1)
  targets = [p.data["target"] for p in made["test"] + made["train"]]
  assert targets == [30, 31, 32]
  assert made["train"][0].answer == "3 * 7 + 10"


@pytest.mark.parametrize("name", ["corpus", "cold_start"])
def test_no_example_is_longer_than_was_said(problems, name):
  """And the bound is met but for a few words."""
  tokenizer = WordTokenizer(WORDS)

  def tokens(example):
    return len(tokenizer.encode(f"{example.prompt} {example.completion}"))

  task = countdown.Countdown(
    train=160, test=40,
    corpus=countdown_traces.Corpus(long=1.0, longest=4, skill=0.0),
    cold_start=countdown_traces.ColdStart(longest=4, skill=0.0),
  )  # fmt: skip
  rng, make = random.Random(1), task.makers()[name]
  drawn = [tokens(make(p, rng)) for p in problems["train"] * 3]
  most = max(map(tokens, task.longest(name)))
  assert most - 3 <= max(drawn) <= most
