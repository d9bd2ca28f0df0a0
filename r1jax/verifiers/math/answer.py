"""Is a mathematical answer the right one, however it is written?

The work of reading LaTeX and of comparing sets, relations and words is that
of the `math-verify` library. Around it stands what it is lax about: numbers
are compared exactly, false equations, other units, alternatives and brackets
of another kind are noticed, what is typed in another way is made alike
(`notation`), times, ratios, residues and names are read (`words`),
and what could explode is refused unevaluated (`guard`). Nothing here uses
signals, so any thread may call it.
"""

import functools
import operator
import re

import sympy

from r1jax.errors import BadProblem
from r1jax.text import think_format
from r1jax.types import Verdict
from r1jax.verifiers.math import guard, time_limit, words
from r1jax.verifiers.math.compare import same
from r1jax.verifiers.math.latex import (
  Answer,
  Unparsable,
  is_sequence,
  parse,
  primes_differ,
  word_of,
)
from r1jax.verifiers.math.notation import braced, clean, last_box
from r1jax.verifiers.math.numbers import (
  in_base,
  plain,
  same_in_base,
  same_number,
)
from r1jax.verifiers.math.units import quantity, same_quantity

_BOX = re.compile(r"\\(?:boxed|fbox)\s{0,3}\{")
CORRECT = Verdict(True, 1.0, "correct")


def _wrong(reason="wrong"):
  return Verdict(False, 0.0, reason)


def equivalent(gold, prediction):
  """Whether a prediction means the same as the gold answer.

  Args:
    gold, prediction: an answer or a text that ends in one: plain, LaTeX,
      between dollars, in `\\boxed{}`. The answer's tags count in a prediction
      that has them, else the last box and those listed with it. A decimal
      equals a fraction that it does not end exactly if it has `LONG_DECIMAL`
      digits and they are right;
      3 % is 3/100; a unit that only one of them has plays no part.

  Returns:
    `Verdict`; reason "correct", "wrong", "no_answer", "unparsable", "refused"
    where evaluating it could take too much, or "timed_out".

  Raises:
    BadProblem: the gold answer itself cannot be read.
  """
  tagged = think_format.answer(prediction)
  if tagged is not None:
    prediction = tagged
  if not clean(prediction).strip():
    return _wrong("no_answer")
  gold, prediction = _without_option(gold, prediction)
  gold_text, text = clean(gold), clean(prediction)
  quantities = [quantity(_given(t)) for t in (gold, prediction)]
  if all(quantities) and all(q.unit for q in quantities):
    answer = same_quantity(*quantities)
  else:
    answer = _same_without_algebra(gold_text, text)
    if answer is None and all(quantities):
      answer = same_quantity(*quantities)
  if answer is not None:
    return CORRECT if answer else _wrong()
  try:
    want = _read_gold(gold)
  except BadProblem:
    if _is_no_algebra(gold_text):
      return _wrong()
    raise
  if (word := word_of(want.text)) and (other := word_of(text)):
    if word == other:
      return CORRECT
    if "\\text" in want.text or (is_sequence(want.text) and is_sequence(text)):
      return _wrong()
  if primes_differ(want.text, text):
    return _wrong()
  try:
    with time_limit.deadline():
      got = _read(text)
      for part in _parts(got.expression) + _parts(want.expression):
        guard.check_expression(part)
      return CORRECT if same(want, got) else _wrong()
  except time_limit.TimedOut:
    return _wrong("timed_out")
  except guard.Refused:
    return _wrong("refused")
  except Unparsable:
    return _wrong("unparsable")
  except (ArithmeticError, ValueError, TypeError, AttributeError, KeyError,
          NotImplementedError, RecursionError, IndexError):  # fmt: skip
    # What sympy raises for mathematics that it does not know.
    return _wrong("unparsable")


def _without_option(gold, prediction):
  """Both without the letters of "(B) 12", or the letters if one is alone."""
  a, b = words.option(gold), words.option(prediction)
  if a and b:
    return (a[0], b[0])
  if a and a[1]:
    letter = re.fullmatch("[A-J]", words.spoken(prediction).strip("()"))
    return (a[0], letter[0]) if letter else (a[1], prediction)
  if b and b[1]:
    letter = re.fullmatch("[A-J]", words.spoken(gold).strip("()"))
    return (letter[0], b[0]) if letter else (gold, b[1])
  return gold, prediction


def _given(text):
  """What stands in the last box, unless a final answer follows it."""
  at = text.rfind("\\boxed{")
  return text if "final answer" in text[at:].lower() else last_box(text)


_KINDS = (
  (plain, same_number),
  (in_base, same_in_base),
  (words.clock, words.same_clock),
  (words.ratio, operator.eq),
  (words.residues, operator.eq),
  (words.pieces, operator.eq),
)


def _same_without_algebra(gold, text):
  """Whether both are numbers, times, ... and the same; None if they aren't."""
  boxes = _given(gold), _given(text)
  for read, compare in _KINDS:
    a, b = (read(t) for t in (boxes if read != plain else (gold, text)))
    if a is not None and b is not None:
      return compare(a, b)
  wanted = words.residues(boxes[0])
  if wanted and re.fullmatch(r"\s*\$?\s*\d{1,30}\s*\$?\s*", boxes[1]):
    return wanted[1] == {int(boxes[1].strip(" $"))}
  a, b = map(words.phrase, boxes)
  if a and a == b:
    return True
  a, b = map(words.squeezed, boxes)
  return True if a and a == b else None


def _is_no_algebra(text):
  box = _given(text)
  return words.phrase(box) or any(read(box) is not None for read, _ in _KINDS)


def verify(problem, completion):
  """Whether a completion's answer is `problem.answer`.

  Args:
    problem: a `Problem`; its data plays no part.
    completion: the text that the policy wrote. Of what follows the thinking,
      the answer's tags count if there are any, else the last `\\boxed{}`.

  Returns:
    `Verdict`; reasons as of `equivalent`.

  Raises:
    BadProblem: see `check_problem`.
  """
  text = answer_of(completion)
  if text is None:
    return _wrong("no_answer")
  try:
    return equivalent(problem.answer, text)
  except BadProblem as e:
    raise BadProblem(f"problem {problem.id}: {e}") from None


def final_answer(problem, completion):
  """What a majority vote counts: the answer in one spelling, or None."""
  text = answer_of(completion)
  if text is None:
    return None
  value = plain(clean(text))
  if value is not None:
    return str(value.value)
  try:
    with time_limit.deadline():
      return str(_read(clean(text)).parsed[0])
  except (time_limit.TimedOut, Exception):
    return " ".join(text.split()) or None


def check_problem(problem):
  """Raises a `BadProblem` for a problem whose answer cannot be read."""
  if _is_no_algebra(clean(problem.answer)):
    return
  try:
    _read_gold(problem.answer)
  except BadProblem as e:
    raise BadProblem(f"problem {problem.id}: {e}") from None


def answer_of(completion):
  """The text of a completion's answer, or None."""
  tagged = think_format.answer(completion)
  if tagged is not None:
    return tagged
  text = think_format.after_thinking(completion)
  boxes = list(_BOX.finditer(text))
  return braced(text, boxes[-1].end() - 1) if boxes else None


@functools.cache
def _warm_up():
  """The parser reads its tables once, which is nobody's fault."""
  parse("1")


@functools.lru_cache(maxsize=4096)
def _read_gold(gold):
  _warm_up()
  try:
    with time_limit.deadline(0.4):
      return _read(clean(gold))
  except (time_limit.TimedOut, Exception) as e:
    reason = str(e) or type(e).__name__
    raise BadProblem(
      f"the gold answer {gold[:80]!r} cannot be read ({reason}); write it as"
      " a number, LaTeX or a word"
    ) from None


def _read(text):
  guard.check_text(text)
  return Answer(text)


def _parts(expression):
  if isinstance(expression, sympy.Basic):
    return [expression]
  return list(expression) if isinstance(expression, sympy.MatrixBase) else []
