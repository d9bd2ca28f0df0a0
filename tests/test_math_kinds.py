"""Each kind of docs/answers.md: reported cases, pairs by hand, drawn pairs."""

import json
import time
from pathlib import Path

import math_pairs
import pytest
from test_math_answer import hostile

from r1jax.verifiers.math import answer
from r1jax.verifiers.math.answer import equivalent

HERE = Path(__file__).parent
DATA = HERE / "data"


def wrong(pairs):
  """The pairs (gold, prediction, equal) whose verdict is not their truth."""
  return [
    (gold, prediction, equal, verdict.reason)
    for gold, prediction, equal in pairs
    if (verdict := equivalent(gold, prediction)).correct != equal
  ]


def from_file(name):
  lines = (DATA / name).read_text().splitlines()
  rows = [json.loads(line) for line in lines]
  return [(row["gold"], row["pred"], row["equal"]) for row in rows]


def test_reported_cases():
  """Answers that users of other graders have reported as judged wrongly."""
  assert not wrong(from_file("math_reported.jsonl"))


def test_siblings_by_hand():
  """More answers of the reported kinds and of the kinds in the docs."""
  pairs = from_file("math_siblings.jsonl")
  assert len(pairs) >= 250
  assert not wrong(pairs)


@pytest.mark.parametrize("kind", math_pairs.KINDS)
def test_drawn_pairs(kind):
  assert not wrong(math_pairs.pairs(kind, 24))


@pytest.mark.slow
@pytest.mark.parametrize("kind", math_pairs.KINDS)
def test_many_drawn_pairs(kind):
  failed = wrong(math_pairs.pairs(kind, 400, seed=1))
  assert len(failed) <= 4, failed
  assert not [pair for pair in failed if not pair[2]]


def test_circles_compare_without_algebra():
  """They took half a second, so a busy machine changed the verdict."""
  equivalent("x^2+y^2=1", "x^2+y^2=4")
  begin = time.thread_time()
  assert not equivalent("(x+5)^2+(y-2)^2=9", "(x+5)^2+(y-2)^2=3").correct
  assert time.thread_time() - begin < 0.3


@pytest.mark.parametrize(
  "text",
  ["1e9^{3^{1e9}}", "f(-1^{3^{" + "9" * 40 + "}})",
   "\\binom{y}{10^{10^{10}}}", "i^" * 30 + "i"],
)  # fmt: skip
def test_towers_are_refused_from_the_text(text):
  begin = time.thread_time()
  assert equivalent("2", text).reason == "refused"
  assert time.thread_time() - begin < 0.1


def test_a_failure_inside_is_a_reason(monkeypatch):
  def fails(*_):
    raise MemoryError

  monkeypatch.setattr(answer, "_same_without_algebra", fails)
  assert equivalent("2", "2").reason == "error"


FORMULAS = ("hostile_formulas.py", "formulas")


def test_hostile_formulas():
  hostile(0, 150, *FORMULAS)


@pytest.mark.slow
def test_many_hostile_formulas():
  hostile(1000, 500, *FORMULAS)
