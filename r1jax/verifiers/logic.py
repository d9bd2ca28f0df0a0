"""Puzzles of reasoning-gym, judged by the library's own scorers.

An answer is correct only with full marks, since a policy would learn to live
on partial credit. Some scorers evaluate the text of an answer. `GUARDS` says
what such a text may contain.
"""

import functools
import json
import re

from r1jax.errors import BadProblem
from r1jax.extras import need
from r1jax.text import think_format
from r1jax.types import Problem, Verdict
from r1jax.verifiers.math import time_limit

MAX_CHARACTERS = 20_000
_NUMBER = r"\d{1,12}(?:\.\d{1,12})?"
_NAME = r"[A-Za-z]\d{0,2}|sin|cos|tan|exp|log|ln|sqrt|pi|Abs|asin|acos|atan"
# An exponent is a number of at most two digits, or a fraction of two such.
_POWER = (
  r"\*\*\s{0,9}(?:(?P<bare>-?\d{1,2})\b"
  r"|\(\s{0,9}(?P<number>-?\d{1,2})\s{0,9}(?:/\s{0,9}\d{1,2}\s{0,9})?\))"
)
_EXPRESSION = re.compile(
  # Words come first: the rest of a longer word is no expression. A power is not
  # raised again.
  rf"(?>\b(?:{_NAME})\b|{_POWER}(?!\s{{0,9}}\*\*)"
  rf"|(?<![\w.]){_NUMBER}(?![\w.])|[-+/()\s]|(?<!\*)\*(?!\*))*+",
  re.ASCII,
)
_STEP = re.compile(rf"{_POWER}|(?P<other>\S)", re.ASCII)
# The most that exponents may multiply to where one power is in another.
_MOST = 100
_SUM = re.compile(
  r"(?>(?<![\w.])\d{1,9}(?![\w.])|[-+/()\s]|(?<!\*)\*(?!\*))*+", re.ASCII
)
_LIST = re.compile(r"[\w\s\[\]',\".-]*")
# Data set -> the only text that its scorer may see. These scorers evaluate the
# text, by sympy's parse_expr or Python's eval.
GUARDS = {
  "binary_matrix": _LIST,
  "countdown": _SUM,
  "intermediate_integration": _EXPRESSION,
  "n_queens": _LIST,
  "polynomial_multiplication": _EXPRESSION,
  "puzzle24": _SUM,
  "simple_integration": _EXPRESSION,
  "spiral_matrix": _LIST,
  "string_insertion": _LIST,
}
MAX_GUARDED = 400
# CPU time of a scorer; most of them take milliseconds.
SECONDS = 10.0
# Their scorers compare with tuples, which JSON does not have.
_TUPLES = ("arc_agi", "rearc")


def verify(problem: Problem, completion: str) -> Verdict:
  """Whether reasoning-gym's scorer gives the answer 1.0.

  Args:
    problem: a `Problem` whose data has "dataset", "parameters" and "metadata"
      of reasoning-gym's entry, as JSON.
    completion: the text that the policy wrote; the text in the answer tags
      counts.

  Returns:
    `Verdict`; reason "correct", "wrong", "no_answer", "timed_out" or
    "unparsable". The last is also that of a text which the scorer must not see.

  Raises:
    BadProblem: see `check_problem`.
  """
  text = think_format.answer(completion)
  if not text:
    return Verdict(False, 0.0, "no_answer")
  name = str(problem.data.get("dataset"))
  guard = GUARDS.get(name)
  long = len(text) > (MAX_GUARDED if guard else MAX_CHARACTERS)
  if long or (guard and not _is_harmless(guard, text)):
    return Verdict(False, 0.0, "unparsable")
  scorer = _scorer_of(problem)
  metadata = problem.data["metadata"]
  if name in _TUPLES:
    metadata = _as_tuples(metadata)
  entry = {
    "question": problem.prompt,
    "answer": problem.answer or None,
    "metadata": metadata,
  }
  try:
    with time_limit.deadline(SECONDS):
      right = scorer.score_answer(text, entry) == 1.0
  except time_limit.TimedOut:
    return Verdict(False, 0.0, "timed_out")
  except MemoryError:
    raise
  except Exception:
    # Scorers expect well-formed input and raise anything at other texts.
    return Verdict(False, 0.0, "unparsable")
  if right:
    return Verdict(True, 1.0, "correct")
  return Verdict(False, 0.0, "wrong")


def _is_harmless(guard, text):
  """Whether a scorer that evaluates texts may evaluate this one."""
  if not guard.fullmatch(text) or "__" in text:
    return False
  return guard is not _EXPRESSION or _height(text) <= _MOST


def _height(text):
  """The largest product of exponents of powers that are in one another."""
  most, heights, closed = 1, [1], 0
  for step in _STEP.finditer(text):
    exponent = step["bare"] or step["number"]
    if exponent:
      height = (closed or 1) * max(1, abs(int(exponent)))
      heights[-1] = max(heights[-1], height)
      most = max(most, height)
    closed = 0
    if step["other"] == "(":
      heights.append(1)
    elif step["other"] == ")" and len(heights) > 1:
      closed = heights.pop()
      heights[-1] = max(heights[-1], closed)
  return most


def check_problem(problem: Problem) -> None:
  """Raises a `BadProblem` if the data set or its metadata is missing."""
  _scorer_of(problem)


def _scorer_of(problem):
  data = problem.data
  missing = [k for k in ("dataset", "parameters", "metadata") if k not in data]
  if missing:
    raise BadProblem(f'problem {problem.id}: data has no "{missing[0]}"')
  # Outside of the `try`: without the package no problem is bad.
  gym = need("reasoning_gym")
  try:
    return _scorer(gym, data["dataset"], json.dumps(data["parameters"]))
  except (AssertionError, TypeError, ValueError) as e:
    raise BadProblem(f"problem {problem.id}: {e}") from None


@functools.lru_cache(maxsize=256)
def _scorer(gym, dataset, parameters):
  return gym.create_dataset(dataset, seed=0, size=1, **json.loads(parameters))


def _as_tuples(value):
  if isinstance(value, list):
    return tuple(_as_tuples(v) for v in value)
  if isinstance(value, dict):
    return {k: _as_tuples(v) for k, v in value.items()}
  return value
