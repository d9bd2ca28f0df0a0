"""Reads and compares plain numbers exactly, without algebra."""

import re
from fractions import Fraction

from r1jax.verifiers.math.guard import MAX_DIGITS
from r1jax.verifiers.math.words import number_of

# Digits that a decimal needs to count as a number with infinitely many digits.
LONG_DECIMAL = 10


class Number:
  """A rational number and the significant digits of its decimal, or None."""

  def __init__(self, value: Fraction, digits: int | None = None) -> None:
    self.value, self.digits = value, digits


_POWER = re.compile(
  r"([-+]?\d+(?:\.\d*)?)\s*(?:\\cdot|\\times|\*)\s*10\s*\^\s*"
  r"(?:\{\s*([-+]?\d{1,3})\s*\}|(\d))"
)
_UNSIGNED = r"(?:\d{1,3}(?:,\d{3})+|\d+)?(?:\.\d*)?"
_DECIMAL = re.compile(rf"([-+]?)\s*(?=[\d.])({_UNSIGNED})")
_FRACTION = re.compile(
  r"([-+]?)\s*(?:(\d+)\s*)?\\frac\s*(?:\{\s*([-+]?\d+)\s*\}|(\d))\s*"
  r"(?:\{\s*([-+]?\d+)\s*\}|(\d))"
)
_RATIO = re.compile(r"([-+]?\d+)\s*/\s*([-+]?\d+)")
_MIXED = re.compile(r"([-+]?)(\d+)\s+(\d+)\s*/\s*(\d+)")
_BASED = re.compile(
  r"([0-9][0-9A-Za-z]{0,60})_\s*(?:\{\s*(\d{1,2})\s*\}|(\d)"
  r"|\{?\s*\\(?:text|mathrm)\s*\{\s*([a-z]+)\s*\}\s*\}?)"
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
  significant = len(digits.replace(".", "").lstrip("0"))
  exact = "." not in digits
  value = -value if sign == "-" else value
  return Number(value, None if exact else significant)


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
  return _stands_for(a, b) or _stands_for(b, a)


def _stands_for(decimal, number):
  """Whether a decimal has `LONG_DECIMAL` digits of a number, all right."""
  if (decimal.digits or 0) < LONG_DECIMAL or number.digits is not None:
    return False
  error = abs(decimal.value - number.value)
  return error * 10 ** (decimal.digits - 1) < abs(number.value)
