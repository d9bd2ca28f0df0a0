"""Is a mathematical answer right, however it is written?

The library `math-verify` reads LaTeX and compares sets, relations and words.
This package adds what the library is lax about:

  numbers   compares numbers exactly
  notation  rewrites different spellings of the same formula alike
  units     compares quantities with units
  words     reads times, ratios, residues and names
  latex     notices false equations, alternatives and other brackets
  guard     refuses to evaluate what could take too much time or memory

Nothing here uses signals, so any thread may call it.
"""

import functools
import operator
import re

import sympy

from r1jax.errors import BadProblem
from r1jax.text import think_format
from r1jax.types import Problem, Verdict
from r1jax.verifiers.math import commands, guard, time_limit, words
from r1jax.verifiers.math.compare import same
from r1jax.verifiers.math.latex import (
  Answer,
  Unparsable,
  is_sequence,
  parse,
  primes_differ,
  word_of,
)
from r1jax.verifiers.math.notation import (
  braced,
  clean,
  last_box,
  spelled,
  tail,
  unwrapped,
)
from r1jax.verifiers.math.numbers import (
  in_base,
  plain,
  same_in_base,
  same_number,
)
from r1jax.verifiers.math.quantities import (
  currencies,
  quantity,
  same_quantity,
)

_BOX = re.compile(r"\\(?:boxed|fbox)(?![A-Za-z])")
CORRECT = Verdict(True, 1.0, "correct")


def _wrong(reason="wrong"):
  return Verdict(False, 0.0, reason)


def equivalent(gold: str, prediction: str) -> Verdict:
  """Whether a prediction means the same as the gold answer.

  Each is an answer or a text that ends in one: plain, LaTeX, between dollars or
  in `\\boxed{}`. If the prediction has answer tags, their text counts, else
  the last box and those listed with it. A decimal equals a fraction that it
  approximates if it has `LONG_DECIMAL` right digits. 3 % is 3/100. A unit
  that only one of the two has is ignored.

  Args:
    gold: text of the right answer.
    prediction: text of the answer to judge.

  Returns:
    `Verdict`; reason "correct", "wrong", "no_answer", "unparsable", "refused"
    if evaluating it could take too much, or "timed_out".

  Raises:
    BadProblem: the gold answer itself cannot be read.
  """
  try:
    return _judge(gold, prediction)
  except BadProblem:
    raise
  except Exception:  # whatever the text of a model did to us is its own fault
    return _wrong("error")


def _judge(gold, prediction):
  """`equivalent`, except that it may fail in any way."""
  tagged = think_format.answer(prediction)
  if tagged is None:
    prediction = think_format.after_thinking(prediction)
  else:
    prediction = tagged
  if not clean(prediction).strip():
    return _wrong("no_answer")
  gold, prediction = (unwrapped(spelled(tail(t))) for t in (gold, prediction))
  gold, prediction = _without_option(gold, prediction)
  equal = _same_without_algebra(gold, prediction)
  if equal is None:
    return _compare_algebra(gold, clean(prediction))
  return CORRECT if equal else _wrong()


def _same_without_algebra(gold, prediction):
  """Compares quantities, numbers, times and the like.

  Returns:
    bool; None if the two must be compared as formulas.
  """
  given = [_given(t) for t in (gold, prediction)]
  quantities = [quantity(t) for t in given]
  if all(quantities) and all(q.unit for q in quantities):
    return same_quantity(*quantities)
  money = [currencies(t) for t in given]
  if all(money) and not money[0] & money[1]:
    return False
  equal = _same_kind(clean(gold), clean(prediction))
  if equal is None and all(quantities):
    return same_quantity(*quantities)
  return equal


def _compare_algebra(gold, text):
  """The `Verdict` on two formulas; the second is already `clean`."""
  try:
    want = _read_gold(gold)
  except BadProblem:
    if _is_no_algebra(clean(gold)):
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
      guard.check_closed(text)
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
    # sympy raises these for mathematics that it does not know.
    return _wrong("unparsable")


def _without_option(gold, prediction):
  """Both texts without option letters, such as the "(B)" of "(B) 12".

  If one text is a letter alone, the result is the two letters.
  """
  if words.letters(gold) or words.letters(prediction):
    return gold, prediction
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
  """The text of the last box, unless a final answer follows the box."""
  at = text.rfind("\\boxed{")
  return text if "final answer" in text[at:].lower() else last_box(text)


_KINDS = (
  (plain, same_number),
  (in_base, same_in_base),
  (words.clock, words.same_clock),
  (words.ratio, operator.eq),
  (words.residues, operator.eq),
  (words.pieces, operator.eq),
  (words.letters, words.same_letters),
)


def _same_kind(gold, text):
  """Compares two numbers, times, ratios or phrases.

  Returns:
    bool; None if they are not of the same such kind.
  """
  boxes = _given(gold), _given(text)
  for read, compare in _KINDS:
    a, b = (read(t) for t in (boxes if read != plain else (gold, text)))
    if a is not None and b is not None:
      same_kind = compare(a, b)
      if same_kind is not None:
        return same_kind
  wanted = words.residues(boxes[0])
  if wanted and re.fullmatch(r"\d{1,30}", boxes[1].strip(" $")):
    return wanted[1] == {int(boxes[1].strip(" $"))}
  a, b = map(words.phrase, boxes)
  if a and a == b:
    return True
  a, b = map(words.squeezed, boxes)
  return True if a and a == b else None


def _is_no_algebra(text):
  box = _given(text)
  return words.phrase(box) or any(read(box) is not None for read, _ in _KINDS)


def verify(problem: Problem, completion: str) -> Verdict:
  """Whether a completion's answer is `problem.answer`.

  Args:
    problem: a `Problem`; its data is not used.
    completion: the text that the policy wrote. After the thinking, the text in
      the answer tags counts, else the last `\\boxed{}`.

  Returns:
    `Verdict`; the reasons are those of `equivalent`.

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


def final_answer(problem: Problem, completion: str) -> str | None:
  """The answer in a normal spelling, for majority votes; or None."""
  text = answer_of(completion)
  if text is None:
    return None
  try:
    value = plain(clean(text))
    if value is not None:
      return str(value.value)
    with time_limit.deadline():
      return str(_read(clean(text)).parsed[0])
  except (time_limit.TimedOut, Exception):
    return " ".join(text.split()) or None


def check_problem(problem: Problem) -> None:
  """Raises a `BadProblem` if the problem's answer cannot be read."""
  try:
    if not _is_no_algebra(clean(problem.answer)):
      _read_gold(problem.answer)
  except BadProblem as e:
    raise BadProblem(f"problem {problem.id}: {e}") from None
  except Exception as e:
    raise BadProblem(
      f"problem {problem.id}: the answer {problem.answer[:80]!r} cannot be"
      f" read ({e}); write it as a number, LaTeX or a word"
    ) from None


def answer_of(completion: str) -> str | None:
  """The text of a completion's answer, or None."""
  tagged = think_format.answer(completion)
  if tagged is not None:
    return tagged
  text = think_format.after_thinking(completion)
  boxes = list(_BOX.finditer(text))
  if not boxes:
    return None
  box = text[boxes[-1].start() :]
  if not re.match(r"\\[a-z]+\s{0,3}\{", box):
    box = commands.braced_arguments(box[:100])  # \boxed 7
  return braced(box, box.index("{")) if "{" in box else None


@functools.cache
def _warm_up():
  """Lets the parser read its tables, outside of any deadline."""
  parse("1")


@functools.lru_cache(maxsize=4096)
def _read_gold(gold):
  _warm_up()
  try:
    with time_limit.deadline():
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
