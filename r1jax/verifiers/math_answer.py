"""Is a mathematical answer the right one, however it is written?

The work of reading LaTeX and of comparing sets, relations and words is that
of the `math-verify` library. Around it stands what it is lax about: numbers
are compared exactly, false equations, other units, alternatives and brackets
of another kind are noticed, and what could explode is refused unevaluated
(`math_guard`). Nothing here uses signals, so any thread may call it.
"""

import functools

import sympy

from r1jax.errors import BadProblem
from r1jax.types import Verdict
from r1jax.verifiers import math_guard, think_format
from r1jax.verifiers.math_compare import same
from r1jax.verifiers.math_latex import (
  Answer,
  Unparsable,
  braced,
  clean,
  clock,
  is_sequence,
  primes_differ,
  word_of,
)
from r1jax.verifiers.math_numbers import in_base, plain, same_number
from r1jax.verifiers.math_units import quantity, same_quantity

CORRECT = Verdict(True, 1.0, "correct")


def _wrong(reason="wrong"):
  return Verdict(False, 0.0, reason)


def equivalent(gold, prediction):
  """Whether a prediction means the same as the gold answer.

  Args:
    gold, prediction: an answer or a text that ends in one: plain, LaTeX,
      between dollars, in `\\boxed{}`. A decimal equals a fraction that it
      does not end exactly if it has `LONG_DECIMAL` digits and they are right;
      3 % is 3/100; a unit that only one of them has plays no part.

  Returns:
    `Verdict`; reason "correct", "wrong", "no_answer", "unparsable", "refused"
    where evaluating it could take too much, or "timed_out".

  Raises:
    BadProblem: the gold answer itself cannot be read.
  """
  text = clean(prediction)
  if not text.strip():
    return _wrong("no_answer")
  value, given = plain(clean(gold)), plain(text)
  if value is not None and given is not None:
    return CORRECT if same_number(value, given) else _wrong()
  based = in_base(clean(gold)), in_base(text)
  if all(based):
    return CORRECT if _same_in_base(*based) else _wrong()
  quantities = [quantity(t) for t in (gold, prediction)]
  if all(quantities):
    return CORRECT if same_quantity(*quantities) else _wrong()
  want = _read_gold(gold)
  if (time := clock(want.text)) and ":" in text:
    return CORRECT if clock(text) == time else _wrong()
  if (word := word_of(want.text)) and (other := word_of(text)):
    if word == other:
      return CORRECT
    if "\\text" in want.text or (is_sequence(want.text) and is_sequence(text)):
      return _wrong()
  if primes_differ(want.text, text):
    return _wrong()
  try:
    with math_guard.deadline():
      got = _read(text)
      for part in _parts(got.expression):
        math_guard.check_expression(part)
      return CORRECT if same(want, got) else _wrong()
  except math_guard.TimedOut:
    return _wrong("timed_out")
  except math_guard.Refused:
    return _wrong("refused")
  except Unparsable:
    return _wrong("unparsable")
  except (ArithmeticError, ValueError, TypeError, AttributeError, KeyError,
          NotImplementedError, RecursionError, IndexError):  # fmt: skip
    # What sympy raises for mathematics that it does not know.
    return _wrong("unparsable")


def _same_in_base(a, b):
  try:
    return int(*a) == int(*b)
  except ValueError:  # a digit that the base does not have
    return a == b


def verify(problem, completion):
  """Whether a completion's answer is `problem.answer`.

  Args:
    problem: a `Problem`; its data plays no part.
    completion: the text that the policy wrote. Of what follows the thinking,
      the answer's tags count if there are any, else the last `\\boxed{}`.

  Returns:
    `Verdict`; reasons as of `equivalent`.
  """
  text = answer_of(completion)
  if text is None:
    return _wrong("no_answer")
  return equivalent(problem.answer, text)


def final_answer(problem, completion):
  """What a majority vote counts: the answer in one spelling, or None."""
  text = answer_of(completion)
  if text is None:
    return None
  value = plain(clean(text))
  if value is not None:
    return str(value.value)
  try:
    with math_guard.deadline():
      return str(_read(clean(text)).parsed[0])
  except (math_guard.TimedOut, Exception):
    return " ".join(text.split()) or None


def check(problem):
  """Raises a `BadProblem` for a problem whose answer cannot be read."""
  try:
    _read_gold(problem.answer)
  except BadProblem as e:
    raise BadProblem(f"problem {problem.id}: {e}") from None


def answer_of(completion):
  """The text of a completion's answer, or None."""
  tagged = think_format.answer(completion)
  if tagged is not None:
    return tagged
  text = completion.rsplit("</think>", 1)[-1]
  at = text.rfind("\\boxed{")
  return braced(text, at + len("\\boxed")) if at >= 0 else None


@functools.lru_cache(maxsize=4096)
def _read_gold(gold):
  try:
    with math_guard.deadline(5.0):
      return _read(clean(gold))
  except (math_guard.TimedOut, Exception) as e:
    reason = str(e) or type(e).__name__
    raise BadProblem(
      f"the gold answer {gold[:80]!r} cannot be read ({reason}); write it as"
      " a number, LaTeX or a word"
    ) from None


def _read(text):
  math_guard.check_text(text)
  return Answer(text)


def _parts(expression):
  if isinstance(expression, sympy.Basic):
    return [expression]
  return list(expression) if isinstance(expression, sympy.MatrixBase) else []
