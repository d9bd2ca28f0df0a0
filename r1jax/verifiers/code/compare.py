"""Is what a program printed or returned what was expected?

Nothing here evaluates what it reads, and all of it takes linear time.
"""

import json
import math
import re
from decimal import Decimal
from typing import Any

# Relative error of numbers with a decimal point, where no tolerance is asked.
RELATIVE = 1e-9
# Beside a whole number, a decimal one may differ by no more than this, so that
# large whole numbers are not equal to their neighbours.
_BESIDE_WHOLE = 1e-6
_NUMBER = re.compile(rb"[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d{1,6})?")
_MOST_DIGITS = 400


def same_output(
  output: bytes, expected: bytes, tolerance: float | None, lines: bool
) -> bool:
  """Whether a program printed what was expected.

  Args:
    output: what it printed.
    expected: what it should print.
    tolerance: of numbers; None for the usual one, see docs/verifiers.md.
    lines: whether to compare line by line instead of word by word.
  """
  if lines:
    return _lines(output) == _lines(expected)
  words, wanted = output.split(), expected.split()
  return len(words) == len(wanted) and all(
    word == want or _same_number(word, want, tolerance)
    for word, want in zip(words, wanted)
  )


def same_result(text: bytes, expected: Any, tolerance: float | None) -> bool:
  """Whether JSON that a program wrote is the value that was expected.

  Args:
    text: what it wrote.
    expected: plain JSON.
    tolerance: of numbers; None for the usual one, see docs/verifiers.md.
  """
  try:
    return _same(parse(text), expected, tolerance)
  except ValueError:
    return False


def parse(text: bytes) -> Any:
  """The value of JSON that a program wrote; a `ValueError` if it is none."""
  try:
    return json.loads(text, parse_constant=_refuse)
  except RecursionError:
    raise ValueError("the JSON is too deep") from None


def _refuse(name):
  raise ValueError(f"{name} is no JSON")


def _lines(output):
  return [line.rstrip() for line in output.rstrip().split(b"\n")]


def _same_number(word, want, tolerance):
  if max(len(word), len(want)) > _MOST_DIGITS:
    return False
  if not _NUMBER.fullmatch(word) or not _NUMBER.fullmatch(want):
    return False
  whole, want_whole = (not set(some) & set(b".eE") for some in (word, want))
  if want_whole and (tolerance is None or whole):
    # Text that differs, unless only in a sign or zeros that were asked for.
    return tolerance is not None and int(word) == int(want)
  if whole and tolerance is None:
    return Decimal(word.decode()) == Decimal(want.decode())
  return _close(float(word), float(want), tolerance)


def _close(value, expected, tolerance):
  if not math.isfinite(value) or not math.isfinite(expected):
    return False
  if tolerance is None:
    return math.isclose(value, expected, rel_tol=RELATIVE)
  return abs(value - expected) <= tolerance * max(1.0, abs(expected))


def _same(value, expected, tolerance):
  """Whether two JSON values are equal.

  Only `expected` bounds the depth of the recursion; a program cannot.
  """
  if isinstance(expected, list):
    return (
      isinstance(value, list)
      and len(value) == len(expected)
      and all(_same(a, b, tolerance) for a, b in zip(value, expected))
    )
  if isinstance(expected, dict):
    return (
      isinstance(value, dict)
      and value.keys() == expected.keys()
      and all(_same(value[key], expected[key], tolerance) for key in expected)
    )
  kinds = (type(value), type(expected))
  if kinds == (float, float):
    return _close(value, expected, tolerance)
  if kinds in ((int, float), (float, int)):
    return _close_to_whole(value, expected, tolerance)
  return type(value) is type(expected) and value == expected


def _close_to_whole(value, expected, tolerance):
  """As `_close`, where one of both is an int, of any size."""
  # The shortest text of a float: 1e23 is then the int 10**23.
  a, b = Decimal(repr(value)), Decimal(repr(expected))
  if not a.is_finite() or not b.is_finite():
    return False
  scale = max(Decimal(1), abs(b))
  if tolerance is not None:
    return abs(a - b) <= Decimal(tolerance) * scale
  return abs(a - b) <= min(Decimal(_BESIDE_WHOLE), Decimal(RELATIVE) * scale)
