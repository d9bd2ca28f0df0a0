"""Verdicts on reasoning-gym's tasks beside its own scorers."""

import json
import random
import re
import signal
import sys

import pytest
import reasoning_gym

from r1jax import verifiers
from r1jax.data import gym
from r1jax.types import Problem
from r1jax.verifiers import logic as logic_lib

# What it scores is not what the answer says; pinned in test_verifiers.py.
FAULTS = ("countdown",)


def tasks():
  from reasoning_gym.factory import DATASETS

  return sorted(DATASETS.keys() - {"composite"})


def mutated(answer, rng):
  """A text that differs a little."""
  if not answer:
    return "7"
  at = rng.randrange(len(answer))
  kind = rng.randrange(4)
  if kind == 0:
    return answer[:at] + answer[at + 1 :]
  if kind == 1:
    return answer[:at] + rng.choice("0123456789ab ") + answer[at + 1 :]
  if kind == 2:
    return answer + rng.choice(("1", " ", "a", "\n0"))
  return answer[::-1]


class OutOfTime(BaseException):
  """Not to be caught by a scorer."""


def their_score(source, answer, entry):
  """What the scorer says; None if it takes long, as ours then would.

  Simplifying what was nearly an integral may take all memory and never end:
  in training the pool's deadline is for that.
  """

  def stop(_, frame):
    # Again every tenth of a second, as a destructor may swallow it; but not
    # in the frame below, which has caught it by then.
    if frame.f_code is not their_score.__code__:
      raise OutOfTime

  before = signal.signal(signal.SIGALRM, stop)
  signal.setitimer(signal.ITIMER_REAL, 3.0, 0.1)
  try:
    return source.score_answer(answer, entry)
  except OutOfTime:
    return None
  except Exception:
    return 0.0  # some of them raise at what is no answer
  finally:
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


def compare(name, entries, rng):
  """(answers compared, those right) of one task.

  Theirs sees the entry as it was made, ours what went through JSON.
  """
  source = reasoning_gym.create_dataset(name, seed=10**6 * 3, size=60)
  compared = right = 0
  answers = [str(source[i]["answer"] or "") for i in range(entries)]
  for i in range(entries):
    entry = source[i]
    made = gym._problem(name, {}, i, entry)
    row = json.loads(json.dumps(made.__dict__))
    problem = Problem(**row)
    own = answers[i]
    wrong = [mutated(own, rng) for _ in range(3)]
    for answer in (own, *wrong, rng.choice(answers), "no idea"):
      answer = answer.strip()
      if not answer or "</answer>" in answer:
        continue
      theirs = their_score(source, answer, entry)
      if theirs is None:
        continue
      ours = verifiers.verify(
        problem, f"<think> x </think> <answer> {answer} </answer>"
      )
      compared += 1
      right += ours.correct
      if problem.kind == "exact":
        # They may take other spellings, and heed white space.
        assert ours.correct == (answer.split() == own.split()), (answer, own)
      elif name in logic_lib.GUARDS and ours.reason == "unparsable":
        # They take a constant of any name, "Ca" or "open", for a variable.
        assert theirs < 1.0 or re.search("[A-Za-z]{2}", answer), answer
      elif name not in FAULTS:
        assert ours.correct == (theirs == 1.0), (name, answer, own, ours)
  return compared, right


def test_a_few_tasks():
  rng = random.Random(0)
  for name in ("sudoku", "n_queens", "simple_integration", "zebra_puzzles"):
    compared, right = compare(name, 5, rng)
    assert compared > 15 and right >= 5


@pytest.mark.slow
def test_all_tasks():
  """10,000 answers and more, of every task."""
  rng = random.Random(1)
  total = rights = 0
  for name in tasks():
    compared, right = compare(name, 18, rng)
    assert right >= (0 if name in gym.UNANSWERED else 18), name
    total, rights = total + compared, rights + right
  print(f"{total} answers, {rights} right", file=sys.stderr)
  assert total > 9_000 and rights > 1_500


def logic(name, **parameters):
  entry = reasoning_gym.create_dataset(name, seed=1, size=1, **parameters)[0]
  return gym._problem(name, parameters, 0, entry), entry


def says(problem, answer):
  return verifiers.verify(problem, f"</think><answer>{answer}</answer>")


@pytest.mark.parametrize("name", sorted({*logic_lib.GUARDS} - {"countdown"}))
@pytest.mark.parametrize(
  "attack",
  [
    "__import__('os').system('touch pwned')",
    "open('pwned', 'w')",
    "[open('pwned', 'w')]",
    "().__class__.__bases__[0].__subclasses__()",
    "x.__class__",
    "x.func",
    "9**9**9**9",
    "9" * 300,
    "10**1000000",
    "**1)+" * 78 + "**1**1",
    "9**(99)**(99)**(99)",
    "9**(99*99*99*99)",
    "(((9**99)**99)**99)**99",
    "((9**99 + 0)**99 + 0)**99",
    "\uff11**\uff19",
    "\x00",
    "\ud800",
    "factorial(99999)",
    "Sum(x, (x, 1, 10**9))",
    "lambda: 1",
    "exec('1')",
    "(" * 5000,
  ],
)
def test_scorers_that_evaluate_see_no_code(name, attack, tmp_path, monkeypatch):
  """Their eval would have run it: nothing happens, at once."""
  monkeypatch.chdir(tmp_path)
  problem, entry = logic(name)
  verdict = says(problem, attack)
  assert not verdict.correct
  assert verdict.reason in ("unparsable", "wrong")
  assert not list(tmp_path.iterdir())
  if "pwned" in attack or "__" in attack or "**" in attack:
    assert verdict.reason == "unparsable"
  # And what is an answer still comes through.
  if entry["answer"] and name != "puzzle24":
    assert says(problem, entry["answer"]).correct


def test_powers_of_answers_are_read():
  problem, _ = logic("simple_integration")
  for text in ("x**(3/2)", "(x**2 + 1)**3", "x**-2", "x ** ( -1 / 2 )"):
    assert says(problem, text).reason == "wrong", text


def test_partial_credit_is_none():
  problem, entry = logic("n_queens")
  source = reasoning_gym.create_dataset("n_queens", seed=1, size=1)
  rows = [row.split() for row in entry["answer"].split("\n")]
  assert source.score_answer(str(rows), entry) == 0.5
  assert says(problem, str(rows)).reason == "wrong"
