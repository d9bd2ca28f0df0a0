"""Reads and compares plain numbers exactly, without algebra."""

import re
from fractions import Fraction
from typing import NamedTuple

from r1jax.verifiers.math.guard import MAX_DIGITS
from r1jax.verifiers.math.words import number_of

# Digits that a decimal needs to count as a number with infinitely many digits.
LONG_DECIMAL = 10


class Number(NamedTuple):
  """A rational number, as it was written.

  Attributes:
    value: the number.
    digits: significant digits of its decimal; None for other numbers.
    place: what 1 is worth in the last digit of its decimal.
  """

  value: Fraction
  digits: int | None = None
  place: Fraction = Fraction(0)


_POWER = re.compile(
  r"\A([-+]?\d+(?:\.\d*)?)\s{0,3}(?:\\cdot|\\times|\*)\s{0,3}10\s?\^\s?"
  r"(?:\{\s?([-+]?\d{1,3})\s?\}|(\d))"
)
_UNSIGNED = r"(?:\d{1,3}(?:,\d{3})+|\d+)?(?:\.\d*)?"
_DECIMAL = re.compile(rf"\A([-+]?)\s{{0,3}}(?=[\d.])({_UNSIGNED})")
_FRACTION = re.compile(
  r"\A([-+]?)\s{0,3}(?:(\d+)\s{0,3})?\\frac\s?(?:\{\s?([-+]?\d+)\s?\}|(\d))\s?"
  r"(?:\{\s?([-+]?\d+)\s?\}|(\d))"
)
_RATIO = re.compile(r"\A([-+]?\d+)\s{0,3}/\s{0,3}([-+]?\d+)")
_MIXED = re.compile(r"\A([-+]?)(\d+)\s{1,3}(\d+)\s{0,3}/\s{0,3}(\d+)")
_BASED = re.compile(
  r"\A([0-9][0-9A-Za-z]{0,60})_\s?(?:\{\s?(\d{1,2})\s?\}|(\d)"
  r"|\{?\s?\\(?:text|mathrm)\s?\{\s?([a-z]+)\s?\}\s?\}?)"
)


def plain(text: str) -> Number | None:
  """The `Number` of a text that is nothing but a number, or None."""
  text = text.strip().strip("$").strip()
  if text.startswith("\\boxed{") and text.endswith("}"):
    text = text[len("\\boxed{") : -1].strip()
  if len(text) > MAX_DIGITS:
    return None
  scale = Fraction(1)
  percent = re.search(r"\\?%$", text)
  if percent:
    text, scale = text[: percent.start()].strip(), Fraction(1, 100)
  if match := _POWER.fullmatch(text):
    text, power = match[1], int(match[2] or match[3])
    scale *= Fraction(10) ** power
  if match := _DECIMAL.fullmatch(text):
    return _decimal(match, scale)
  if match := _RATIO.fullmatch(text):
    top, bottom = int(match[1]), int(match[2])
  elif match := _MIXED.fullmatch(text):
    top, bottom = int(match[3]), int(match[4])
    top += int(match[2]) * bottom
    top *= -1 if match[1] == "-" else 1
  elif match := _FRACTION.fullmatch(text):
    top, bottom = int(match[3] or match[4]), int(match[5] or match[6])
    if bottom:
      top += int(match[2] or 0) * bottom
    top *= -1 if match[1] == "-" else 1
  else:
    return None
  return Number(Fraction(top, bottom) * scale) if bottom else None


def _decimal(match, scale):
  sign, digits = match.groups()
  digits = digits.replace(",", "")
  if not digits.strip("."):
    return None
  value = Fraction(digits + ("0" if digits.endswith(".") else ""))
  value *= scale
  value = -value if sign == "-" else value
  whole, point, after = digits.partition(".")
  if not point:
    return Number(value)
  significant = len((whole + after).lstrip("0"))
  return Number(value, significant, scale / 10 ** len(after))


def in_base(text: str) -> tuple[str, int] | None:
  """(digits, base) of a text like "1011_2" or "7f_{16}", or None."""
  match = _BASED.fullmatch(text.strip().strip("$"))
  if not match:
    return None
  base = number_of(match[4]) if match[4] else int(match[2] or match[3])
  return (match[1].lower(), base) if base else None


def same_in_base(a: tuple[str, int], b: tuple[str, int]) -> bool:
  """Whether two pairs (digits, base) are the same number."""
  try:
    return int(*a) == int(*b)
  except ValueError:  # a digit that the base does not have
    return a == b


def same_number(a: Number, b: Number) -> bool:
  """Whether two `Number`s are equal; a long decimal may be rounded."""
  if a.value == b.value:
    return True
  return _means(a, b) or _means(b, a)


def _means(decimal, number):
  """Whether a decimal is rounded from a number that has no exact decimal."""
  if number.digits is not None or _ends(number.value):
    return False
  return is_rounded(decimal, number.value)


def is_rounded(decimal: Number, value: Fraction) -> bool:
  """Whether a decimal has `LONG_DECIMAL` digits of a number, all right.

  Args:
    decimal: a `Number` with digits.
    value: a number whose decimal does not end, exact or to 60 digits.

  Returns:
    whether it is the number rounded or cut off to its digits, or the nearest
    double.
  """
  digits = decimal.digits or 0
  if digits < LONG_DECIMAL:
    return False
  rest = abs(value) - abs(decimal.value)
  if (value < 0) != (decimal.value < 0):
    return False
  if abs(rest) <= decimal.place / 2 or 0 <= rest < decimal.place:
    return True
  try:
    return digits >= 15 and float(value) == float(decimal.value)
  except OverflowError:
    return False


def _ends(value):
  """Whether the decimal of a fraction ends."""
  bottom = value.denominator
  return pow(10, bottom.bit_length(), bottom) == 0
