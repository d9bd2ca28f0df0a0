"""Rewards: parts, weights, gates, kinds, reward models, cut completions."""

import numpy as np
import pytest

from r1jax import verifiers
from r1jax.errors import UserError
from r1jax.rewards import overlong
from r1jax.rewards import score as rewards
from r1jax.types import Problem

GOOD = (
  "<think> try 3 * 7 = 21 + 8 = 29 yes </think> <answer> 3 * 7 + 8 </answer>"
)
WEIGHTS = {"accuracy": 1.0, "format": 0.5, "language": 0.25}


def problem(language="en", prompt="?", kind="countdown"):
  data = {"numbers": [3, 7, 8], "target": 29}
  return Problem("p", kind, prompt, "", language, data)


def score(p, completion, config, cut=False):
  verdict = rewards.CUT if cut else verifiers.verify(p, completion)
  (row,) = rewards.score([p], [completion], [verdict], config)
  return row


def test_all_parts():
  assert score(problem(), GOOD, WEIGHTS) == {
    "reward": 1.75,
    "accuracy": 1.0,
    "format": 1.0,
    "format_graded": 1.0,
    "language": 1.0,
    "reason": "correct",
  }


def test_parts_are_independent():
  def parts(completion, **kwargs):
    s = score(problem(**kwargs), completion, {})
    return s["accuracy"], s["format"], s["language"], s["reason"]

  assert parts(GOOD, language="zh") == (1.0, 1.0, 0.0, "correct")
  assert parts(GOOD.replace("+ 8 <", "- 8 <")) == (0.0, 1.0, 1.0, "wrong")
  assert parts(GOOD.replace("<think>", "")) == (1.0, 0.0, 1.0, "correct")
  assert parts(GOOD.replace("try", "试")) == (1.0, 1.0, 0.5, "correct")
  assert parts("try") == (0.0, 0.0, 1.0, "no_answer")
  assert parts("") == (0.0, 0.0, 0.0, "no_answer")


def test_only_weighted_parts_are_rewarded():
  # Everything is reported; nothing without a weight is paid for.
  row = score(problem("zh"), GOOD, {"accuracy": 2.0})
  assert row["reward"] == 2.0 and row["format"] == 1.0
  assert score(problem(), GOOD, {})["reward"] == 0


def test_length_and_reflection_earn_nothing():
  longer = GOOD.replace("try", "try 3 + 7 = 10 + 8 = 18 wrong wait try " * 3, 1)
  assert score(problem(), longer, WEIGHTS)["reward"] == 1.75


def test_a_cut_completion_is_neither_right_nor_well_formed():
  row = score(problem(), GOOD, WEIGHTS, cut=True)
  assert row["reward"] == 0.25 and row["reason"] == "cut"
  assert (row["accuracy"], row["format"], row["language"]) == (0.0, 0.0, 1.0)


def test_the_prompt_may_open_the_thinking():
  rest = GOOD.removeprefix("<think>")
  opened = problem(prompt="User : ? Assistant : <think>\n")
  for part in ("format", "format_graded"):
    assert score(opened, rest, {})[part] == 1.0
  assert score(opened, GOOD, {})["format"] == 0.0
  assert score(problem(), rest, {})["format"] == 0.0
  assert score(problem(), rest, {})["format_graded"] == 0.75


def test_a_gate_shuts_a_part():
  config = {"accuracy": 1.0, "language": 0.5, "gates": {"accuracy": "format"}}
  assert score(problem(), GOOD, config)["reward"] == 1.5
  row = score(problem(), GOOD.replace("<think>", ""), config)
  assert row["accuracy"] == 1.0 and row["reward"] == 0.5


def test_kinds_have_weights_of_their_own():
  config = {"accuracy": 1.0, "kinds": {"countdown": {"format": 2.0}}}
  assert score(problem(), GOOD, config)["reward"] == 2.0
  other = problem(kind="open")
  assert score(other, GOOD, config)["reward"] == 0.0
  assert score(other, GOOD, {"format": 1.0})["reward"] == 1.0


def letters(problems, summaries):
  """A reward model for tests: the longer the summary the better."""
  assert not any("<think>" in s or "try" in s for s in summaries)
  return [100.0 + len(s) for s in summaries]


def test_a_reward_model_sees_summaries_and_has_no_scale():
  summaries = ["", "a", "aaaa", "aa"]
  texts = [f"<think> try </think>{s}" for s in summaries]
  problems = [problem(kind="open")] * 3 + [problem()]
  config = {
    "accuracy": 1.0,
    "kinds": {"open": {"helpful": 0.5}},
    "models": {"helpful": f"{__name__}:letters"},
  }
  verdicts = [verifiers.verify(p, t) for p, t in zip(problems, texts)]
  rows = rewards.score(problems, texts, verdicts, config)
  # By hand: scores 100, 101, 104 of the three that are asked about.
  assert [row.get("helpful") for row in rows] == [100.0, 101.0, 104.0, None]
  lengths = np.array([0, 1, 4])
  want = 0.5 * (lengths - 5 / 3) / np.sqrt(26 / 9)
  np.testing.assert_allclose([r["reward"] for r in rows[:3]], want, rtol=1e-6)
  assert rows[3]["reward"] == 0.0
  # Equal scores add nothing.
  same = rewards.score(problems[:2], texts[1:2] * 2, verdicts[:2], config)
  assert [row["reward"] for row in same] == [0.0, 0.0]


@pytest.mark.parametrize(
  ("config", "message"),
  [
    ({"lenght": 1.0}, '"lenght" is unknown; known: accuracy, format'),
    ({"gates": {"accuracy": "form"}}, '"form" is unknown'),
    ({"kinds": {"math": {"acuracy": 1.0}}}, '"acuracy" is unknown'),
    ({"models": {"rm": "nowhere:score"}}, "nowhere:score.*cannot be imported"),
    ({"models": {"rm": f"{__name__}:nothing"}}, "cannot be imported"),
    ({"models": {"accuracy": f"{__name__}:words"}}, '"accuracy" is taken'),
    ({"models": {"rm": f"{__name__}:words"}}, 'nothing weighs "rm"; add rm=1'),
    ({"accuracy": "1.0"}, 'rewards.accuracy="1.0" must be a finite'),
    ({"accuracy": float("nan")}, "rewards.accuracy=nan must be a finite"),
    ({"accuracy": True}, "rewards.accuracy=True must be a finite"),
    ({"gatse": {"accuracy": "format"}}, '"gatse" is unknown; known: accuracy'),
    ({"gates": "format"}, "rewards.gates=.* must be a dict of names"),
    ({"kinds": {"math": 1.0}}, "rewards.kinds.math=1.0 must be a dict"),
    ({"kinds": {"math": {"format": None}}}, "kinds.math.format=None must be"),
  ],
)
def test_wrong_names_and_weights_are_errors(config, message):
  with pytest.raises(UserError, match=message):
    score(problem(), GOOD, config)


def test_a_model_must_score_each():
  config = {"rm": 1.0, "models": {"rm": f"{__name__}:too_few"}}
  with pytest.raises(UserError, match="too_few.*returned"):
    score(problem(), GOOD, config)


def too_few(problems, summaries):
  return []


def test_scores_that_are_no_numbers_are_errors():
  config = {"rm": 1.0, "models": {"rm": f"{__name__}:words"}}
  with pytest.raises(UserError, match="words.*must return a number"):
    score(problem(), GOOD, config)


def words(problems, summaries):
  return ["good"] * len(problems)


def test_a_part_of_ones_own(monkeypatch):
  monkeypatch.setitem(
    rewards.PARTS, "brief", lambda problem, text, verdict: float(len(text) < 9)
  )
  row = score(problem(), "short", {"brief": 3.0})
  assert row["brief"] == 1.0 and row["reward"] == 3.0


def test_weights_for_a_kind_that_no_problem_is_of():
  config = {"accuracy": 1.0, "kinds": {"pairity": {"accuracy": 5.0}}}
  rewards.check_weights(config)
  with pytest.raises(UserError, match='"pairity"; there are: math, parity'):
    rewards.check_weights(config, {"parity", "math"})


def test_the_overlong_penalty():
  """DAPO's numbers: a limit of 20,480 with the last 4,096 punished."""
  got = overlong.penalty([100, 16384, 18432, 20480, 30000], 20480, 4096)
  np.testing.assert_allclose(got, [0, 0, -0.5, -1, -1])


def test_a_penalty_is_added_to_the_reward_as_a_part_of_its_own():
  p = problem()
  verdicts = [verifiers.verify(p, GOOD)] * 2
  rows = rewards.score([p] * 2, [GOOD] * 2, verdicts, WEIGHTS, [0.0, -0.5])
  assert [row["reward"] for row in rows] == [1.75, 1.25]
  assert [row["overlong"] for row in rows] == [0.0, -0.5]
  assert "overlong" not in score(p, GOOD, WEIGHTS)
  models = {"overlong": f"{__name__}:letters"}
  with pytest.raises(UserError, match='"overlong" is taken'):
    rewards.check_weights({"overlong": 1.0, "models": models})
