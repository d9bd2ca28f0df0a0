"""Reads and compares numbers with units: prices, lengths, rates, times."""

import re
from fractions import Fraction
from typing import NamedTuple

from r1jax.verifiers.math.numbers import plain
from r1jax.verifiers.math.units import UNITS, Unit, general, unit_of

_SCALES = {
  "hundred": 10**2, "thousand": 10**3, "million": 10**6, "billion": 10**9,
  "trillion": 10**12, "dozen": 12,
}  # fmt: skip
_WRAPPED = re.compile(
  r"\\(?:text(?:bf|rm|it|normal)?|math(?:rm|bf|it)|mbox|operatorname|rm)"
  r"\s{0,3}\{([^{}]{0,60})\}"
)
_CURRENCIES = (
  (r"(?:US)?\\\$|\\textdollar(?![A-Za-z])|\bUSD\b", " dollar "),
  ("\u20ac|\\\\euro(?![A-Za-z])|\\bEUR\\b", " euro "),
  ("\u00a3|\\\\pounds(?![A-Za-z])|\\bGBP\\b", " gbp "),
  ("\u00a5|\\bJPY\\b", " yen "), ("\u20b9|\\bINR\\b", " rupee "),
)  # fmt: skip
_MONEY = tuple((re.compile(sign), word) for sign, word in _CURRENCIES)
_POWER = r"\s?(?:\\cdot|\\times|\*)\s{0,2}10\s?\^\s?(?:\{-?\d{1,3}\}|\d)"
_NUMBER = (
  r"[-+]?\s?(?:(?:\d{1,20}\s?)?\\frac\s?\{\d{1,20}\}\s?\{\d{1,20}\}"
  r"|\d{1,20}\s+\d{1,20}/\d{1,20}|\d{1,20}\s?/\s?\d{1,20}"
  rf"|(?:\d{{1,3}}(?:,\d{{3}}){{1,6}}(?!\d)|\d{{1,60}})(?:\.\d{{1,60}})?"
  rf"(?:{_POWER})?|\.\d{{1,60}})"
)
_SIGN = "|".join(word.strip() for _, word in _CURRENCIES)
_PART = re.compile(
  rf"(?:(?P<money>{_SIGN})\s{{0,3}})?(?P<number>{_NUMBER})"
  rf"(?P<scale>\s{{0,3}}(?:{'|'.join(_SCALES)})s?\b)?"
  r"(?P<unit>(?:\^\s?\\circ|\^\s?\{?-?[1-4]\}?|(?<=[A-Za-z])[23](?![\d.])"
  r"|[^\d^$])*)"
)
_JOINS = re.compile(r"^\s*(?:,|and\b)?\s*|\s*(?:,|,?\s?and)?\s*$")


class Quantity(NamedTuple):
  """A number with or without a unit, or a sum such as 3 hours 20 minutes.

  Attributes:
    number: the first number, with words such as "million" applied.
    parts: how many numbers the sum has.
    unit: `Unit` of the first number, or None.
    value: the sum in the base unit.
    letter: whether the unit is one letter that may be an unknown: "5m".
  """

  number: Fraction
  parts: int
  unit: Unit | None
  value: Fraction
  letter: bool = False


def quantity(text: str) -> Quantity | None:
  """The `Quantity` of a text that is nothing but one, or None.

  Args:
    text: "3 hours 20 minutes", "25\\text{ m/s}", "\\$5 million", "200".
  """
  text = text.strip()
  if len(text) > 200:
    return None
  plain_text = _bare(text)
  at, found = 0, []
  while at < len(plain_text):
    part = _PART.match(plain_text, at)
    if not part:
      return None
    read = _read_part(part)
    if read is None:
      return None
    found.append(read)
    at = part.end()
  if not found:
    return None
  dimensions = {q.unit.dimension if q.unit else None for q in found}
  if len(found) > 1 and (len(dimensions) > 1 or None in dimensions):
    return None
  total = sum((q.value for q in found), Fraction(0))
  return found[0]._replace(parts=len(found), value=total)


def _bare(text):
  """A text without dollars of formulas, styles and final punctuation."""
  if text.startswith("$") and text.endswith("$") and len(text) > 1:
    text = text[1:-1].strip()
  # The unit may follow the formula: $5$ cm.
  text = re.sub(
    r"(?<!\\)\$(?=\\frac|-?\d)([^$]{1,40})\$(?=\s{0,3}[A-Za-z])", r"\1", text
  )
  if text.startswith("\\boxed{") and text.endswith("}"):
    text = text[len("\\boxed{") : -1]
  if text.startswith("$") and text.count("$") == 1:
    text = "\\" + text
  for sign, word in _MONEY:
    text = sign.sub(word, text)
  text = _WRAPPED.sub(r" \1 ", text)
  text = re.sub(r"\\frac\s?\{([^{}\d]{1,40})\}\s?\{([^{}\d]{1,40})\}",
                r" \1/\2", text)  # fmt: skip
  text = re.sub(r"\^\s?\{?\s?\\circ\s?\}?", r"^\\circ ", text)
  text = re.sub(r"\\[,;!: ]|~|\{,\}(?=\d)", lambda m: _space(m[0]), text)
  return text.strip().rstrip(".").strip()


def _space(found):
  return "," if found == "{,}" else " "


def _read_part(part):
  """The `Quantity` of one number, or None if its word is no unit."""
  read = plain(part["number"].strip())
  if read is None:
    return None
  number = read.value
  if part["scale"]:
    word = part["scale"].strip()
    number *= _SCALES.get(word) or _SCALES[word.removesuffix("s")]
  unit, letter = None, False
  words = _JOINS.sub("", part["unit"]).strip()
  if words:
    unit = unit_of(words)
    if unit is None:
      return None
    letter = len(words) == 1 and part["unit"][0] != " "
  if part["money"]:
    money = UNITS[part["money"]]
    if unit and all(power < 0 for _, power in unit.dimension):
      # $5 per hour
      dimension = tuple(sorted((*unit.dimension, *money.dimension)))
      unit = Unit(dimension, unit.factor * money.factor)
    elif unit:
      return None
    else:
      unit = money
  value = number * unit.factor if unit else number
  return Quantity(number, 1, unit, value, letter)


def same_quantity(a: Quantity, b: Quantity) -> bool:
  """Whether two quantities are equal; a unit that one lacks is ignored."""
  if not (a.unit and b.unit):
    return a.parts == b.parts and a.number == b.number
  x, y = a.unit.dimension, b.unit.dimension
  things = [{n for n, _ in d if n.startswith("~")} for d in (x, y)]
  if things[0] <= things[1] or things[1] <= things[0]:
    # "72 per minute" may be 72 words per minute, "5 apples" 5 red ones.
    x, y = (tuple(d for d in u if d[0][0] != "~") for u in (x, y))
  if x == y:
    return a.value == b.value
  pound = {(("pounds", 1),), (("mass", 1),)}
  pounds = {x, y} == pound and UNITS["pound"].factor in (
    a.unit.factor, b.unit.factor,
  )  # fmt: skip
  return (pounds or general(a.unit, b.unit)) and a.number == b.number


_NAMES = (
  (r"\\\$|\\textdollar(?![A-Za-z])|\bUSD\b|\bdollars?\b|\bcents?\b", "usd"),
  ("\u20ac|\\\\euro(?![A-Za-z])|\\bEUR\\b|\\beuros?\\b", "eur"),
  ("\u00a3|\\\\pounds(?![A-Za-z])|\\bGBP\\b", "gbp"),
  ("\u00a5|\\bJPY\\b|\\byen\\b", "yen"), ("\u20b9|\\bINR\\b", "inr"),
)  # fmt: skip
_NAMED = tuple((re.compile(sign), name) for sign, name in _NAMES)


def currencies(text: str) -> frozenset[str]:
  """The currencies that a text names.

  Args:
    text: any text.
  """
  return frozenset(name for sign, name in _NAMED if sign.search(text))
