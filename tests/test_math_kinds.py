"""Each kind of docs/answers.md: reported cases, pairs by hand, drawn pairs."""

import json
from pathlib import Path

import math_pairs
import pytest

from r1jax.verifiers.math.answer import equivalent

DATA = Path(__file__).parent / "data"


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


@pytest.mark.parametrize("kind", math_pairs.KINDS)
def test_drawn_pairs(kind):
  assert not wrong(math_pairs.pairs(kind, 24))


@pytest.mark.slow
@pytest.mark.parametrize("kind", math_pairs.KINDS)
def test_many_drawn_pairs(kind):
  failed = wrong(math_pairs.pairs(kind, 400, seed=1))
  assert len(failed) <= 4, failed
  assert not [pair for pair in failed if not pair[2]]
