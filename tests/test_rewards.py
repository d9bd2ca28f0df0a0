"""Rewards: parts, weights, cut completions."""

import pytest

from r1jax import rewards
from r1jax.errors import UserError
from r1jax.types import Problem

GOOD = (
  "<think> try 3 * 7 = 21 + 8 = 29 yes </think> <answer> 3 * 7 + 8 </answer>"
)
WEIGHTS = {"accuracy": 1.0, "format": 0.5, "language": 0.25}


def problem(language="en", prompt="?"):
  data = {"numbers": [3, 7, 8], "target": 29}
  return Problem("p", "countdown", prompt, "", language, data)


def test_all_parts():
  assert rewards.score(problem(), GOOD, WEIGHTS, ended=True) == {
    "reward": 1.75,
    "accuracy": 1.0,
    "format": 1.0,
    "language": 1.0,
    "reason": "correct",
  }


def test_parts_are_independent():
  def parts(completion, **kwargs):
    s = rewards.score(problem(**kwargs), completion, {}, ended=True)
    return s["accuracy"], s["format"], s["language"], s["reason"]

  assert parts(GOOD, language="zh") == (1.0, 1.0, 0.0, "correct")
  assert parts(GOOD.replace("+ 8 <", "- 8 <")) == (0.0, 1.0, 1.0, "wrong")
  assert parts(GOOD.replace("<think>", "")) == (1.0, 0.0, 1.0, "correct")
  assert parts(GOOD.replace("try", "试")) == (1.0, 1.0, 0.5, "correct")
  assert parts("try") == (0.0, 0.0, 1.0, "no_answer")
  assert parts("") == (0.0, 0.0, 0.0, "no_answer")


def test_only_weighted_parts_are_rewarded():
  # Everything is reported; nothing without a weight is paid for.
  score = rewards.score(problem("zh"), GOOD, {"accuracy": 2.0}, ended=True)
  assert score["reward"] == 2.0 and score["format"] == 1.0
  assert rewards.score(problem(), GOOD, {}, ended=True)["reward"] == 0


def test_length_and_reflection_earn_nothing():
  longer = GOOD.replace("try", "try 3 + 7 = 10 + 8 = 18 wrong wait try " * 3, 1)
  assert rewards.score(problem(), longer, WEIGHTS, ended=True)["reward"] == 1.75


def test_a_cut_completion_is_neither_right_nor_well_formed():
  score = rewards.score(problem(), GOOD, WEIGHTS, ended=False)
  assert score == {
    "reward": 0.25,
    "accuracy": 0.0,
    "format": 0.0,
    "language": 1.0,
    "reason": "cut",
  }


def test_the_prompt_may_open_the_thinking():
  rest = GOOD.removeprefix("<think>")
  opened = problem(prompt="User : ? Assistant : <think>\n")
  assert rewards.score(opened, rest, {}, ended=True)["format"] == 1.0
  assert rewards.score(opened, GOOD, {}, ended=True)["format"] == 0.0
  assert rewards.score(problem(), rest, {}, ended=True)["format"] == 0.0


def test_unknown_part_is_named():
  with pytest.raises(
    UserError, match='"lenght" is unknown; known: accuracy, format, language'
  ):
    rewards.score(problem(), GOOD, {"lenght": 1.0}, ended=True)


def test_a_part_of_ones_own(monkeypatch):
  monkeypatch.setitem(
    rewards.PARTS, "brief", lambda problem, text, verdict: float(len(text) < 9)
  )
  score = rewards.score(problem(), "short", {"brief": 3.0}, ended=True)
  assert score["brief"] == 1.0 and score["reward"] == 3.0
