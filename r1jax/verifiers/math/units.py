"""Reads units of answers, and answers that are quantities."""

import re
from fractions import Fraction
from typing import NamedTuple


class Unit(NamedTuple):
  """A unit: its dimension, as "length^2", and its size in the base unit."""

  dimension: str
  factor: Fraction


def _table():
  known = {
    "length": {
      "mm": "1/1000", "cm": "1/100", "m": "1", "km": "1000", "in": "127/5000",
      "ft": "381/1250", "yd": "1143/1250", "mi": "201168/125",
      "meter": "1", "metre": "1", "centimeter": "1/100", "kilometer": "1000",
      "millimeter": "1/1000", "inch": "127/5000", "inche": "127/5000",
      "foot": "381/1250", "feet": "381/1250", "yard": "1143/1250",
      "mile": "201168/125",
    },
    "time": {
      "s": "1", "sec": "1", "second": "1", "min": "60", "minute": "60",
      "h": "3600", "hr": "3600", "hour": "3600", "day": "86400",
      "week": "604800",
    },
    "months": {"month": "1", "year": "12", "yr": "12", "decade": "120"},
    "mass": {
      "mg": "1/1000", "g": "1", "kg": "1000", "gram": "1", "kilogram": "1000",
      "lb": "45359237/100000", "pound": "45359237/100000",
      "oz": "45359237/1600000", "ounce": "45359237/1600000",
    },
    "length^3": {
      "ml": "1/1000000", "l": "1/1000", "liter": "1/1000", "litre": "1/1000",
      "milliliter": "1/1000000", "millilitre": "1/1000000",
      "gallon": "473176473/125000000000", "quart": "473176473/500000000000",
      "pint": "473176473/1000000000000",
    },
    "length^2": {"hectare": "10000", "acre": "316160658/78125"},
    "length^1/time^1": {
      "mph": "1397/3125", "kph": "5/18", "kmh": "5/18", "kmph": "5/18",
    },
    "angle": {"degree": "1", "deg": "1", "^\\circ": "1", "radian": "1/0"},
    "celsius": {"^\\circ C": "1"}, "fahrenheit": {"^\\circ F": "1"},
    "money": {"dollar": "100", "cent": "1", "penny": "1", "pennie": "1"},
    "euro": {"euro": "1", "eur": "1"}, "pounds": {"gbp": "1"},
    "yen": {"yen": "1"}, "rupee": {"rupee": "1"},
    "share": {"%": "1", "percent": "1", "percentage": "1", "pct": "1"},
  }  # fmt: skip
  # A radian is not a rational number of degrees, so it is another dimension.
  known["angle"].pop("radian")
  known["radian"] = {"radian": "1", "rad": "1"}
  return {
    name: Unit(
      dimension if "^" in dimension else f"{dimension}^1", Fraction(factor)
    )
    for dimension, names in known.items()
    for name, factor in names.items()
  }


UNITS = _table()
_DRESS = re.compile(r"\\(?:text|textbf|mathrm|mbox|rm|textrm|operatorname)\b")
_PREFIX = r"(?:(?:square|sq|cubic|cu)\.?\s+)?"
_LAST = re.compile(
  r"(?:[\d)}.$]|\\pi\b)\s*\$?\s*((?:\^\{?\\circ\}?(?:\s+[CF]\b)?)|%|"
  rf"{_PREFIX}[A-Za-z]+)\s*(?:\^\{{?([23])\}}?)?\s*[.$]*\s*$"
)


def split_unit(text: str) -> Unit | None:
  """The `Unit` at the end of an answer, or None.

  Args:
    text: "5 cm", "15\\mbox{ cm}^2", "30^\\circ".
  """
  plain = _DRESS.sub("", text[-60:])
  plain = re.sub(r"[{}~]|\\[,;! ]|\\ ", " ", plain.replace("\\%", "%"))
  plain = re.sub(r"\^\s*\\circ", "^\\\\circ", plain)
  match = _LAST.search(plain)
  if not match:
    return None
  unit = _named(match[1], int(match[2] or 1))
  letter = len(match[1]) == 1 and match[1] != "%"
  if letter and "\\" not in text and " " not in text.strip():
    # "5m" may be five times m.
    return None
  return unit


def _named(word, power=1):
  """The `Unit` of "cm", "square miles", "mph", or None."""
  word = re.sub(r"\s+", " ", word.strip())
  prefix, _, noun = word.rpartition(" ")
  if prefix.strip(" ."):
    power *= 2 if prefix.startswith("sq") else 3
  if word.startswith("^"):
    power, noun = 1, word
  noun = noun.strip()
  unit = UNITS.get(noun) or UNITS.get(noun.lower().removesuffix("s"))
  if unit is None or unit.dimension == "share^1":
    return None
  if power == 1:
    return unit
  base, _, old = unit.dimension.partition("^")
  if not old.isdigit():
    return None
  return Unit(f"{base}^{int(old) * power}", unit.factor**power)


_SCALES = {
  "hundred": 10**2, "thousand": 10**3, "million": 10**6, "billion": 10**9,
  "trillion": 10**12, "dozen": 12,
}  # fmt: skip
_WRAPPED = re.compile(
  r"\\(?:text|textbf|textrm|mathrm|mbox|operatorname|rm)\s*\{([^{}]{0,60})\}"
)
_NUMBER = (
  r"-?(?:\\frac\s*\{\d{1,20}\}\s*\{\d{1,20}\}|\d{1,20}\s*/\s*\d{1,20}"
  r"|(?:\d{1,3}(?:,\d{3}){1,6}|\d{1,20})(?:\.\d{1,20})?)"
)
_WORD = (
  rf"{_PREFIX}[A-Za-z]{{1,12}}(?:\s*\^?\{{?[23]\}}?(?![\d.])"
  r"|\s+(?:squared|cubed)\b)?"
)
_MONEY = {
  "$": "dollar", "USD": "dollar", "US$": "dollar", "\\textdollar": "dollar",
  "\u20ac": "euro", "\\euro": "euro", "EUR": "euro",
  "\u00a3": "gbp", "\\pounds": "gbp", "GBP": "gbp",
  "\u00a5": "yen", "\u20b9": "rupee",
}  # fmt: skip
_PART = re.compile(
  r"(?P<money>(?:US)?\\?\$|[\u20ac\u00a3\u00a5\u20b9]|USD|EUR|GBP"
  r"|\\(?:textdollar|pounds|euro)\b)?"
  rf"\s*(?P<number>{_NUMBER})"
  rf"(?P<scale>\s*(?:{'|'.join(_SCALES)})s?\b)?"
  rf"(?P<unit>\s*{_WORD}(?:\s*(?:/|per\b)\s*{_WORD})?)?"
  r"\s*(?:,|\band\b)?\s*"
)


class Quantity(NamedTuple):
  """A number with or without a unit, or a sum such as 3 hours 20 minutes.

  Attributes:
    number: the first number, with words such as "million" applied.
    parts: how many numbers the sum has.
    unit: `Unit` of the first number, or None.
    value: the sum in the base unit.
  """

  number: Fraction
  parts: int
  unit: Unit | None
  value: Fraction


def quantity(text: str) -> Quantity | None:
  """The `Quantity` of a text that is nothing but one, or None.

  Args:
    text: "3 hours 20 minutes", "25\\text{ m/s}", "\\$5 million", "200".
  """
  text = text.strip()
  if len(text) > 200:
    return None
  text = text.translate({0xB2: "^2", 0xB3: "^3"})
  if text.startswith("$") and text.endswith("$") and len(text) > 1:
    text = text[1:-1].strip()
  # The unit may follow the formula: $5$ cm.
  text = re.sub(
    r"(?<!\\)\$(?=\\frac|-?\d)([^$]{1,40})\$(?=\s*[A-Za-z])", r"\1", text
  )
  if text.startswith("\\boxed{") and text.endswith("}"):
    text = text[len("\\boxed{") : -1]
  plain = _WRAPPED.sub(r" \1 ", text)
  plain = re.sub(r"\\[,;! ]|~", " ", plain).strip().rstrip(".")
  at, found = 0, []
  while at < len(plain):
    part = _PART.match(plain, at)
    if not part or part.end() == at:
      return None
    read = _read_part(part)
    if read is None:
      return None
    found.append(read)
    at = part.end()
  if not found:
    return None
  units = {q.unit.dimension if q.unit else None for q in found}
  if len(found) > 1 and (len(units) > 1 or None in units):
    return None
  total = sum(q.value for q in found)
  return found[0]._replace(parts=len(found), value=total)


def _read_part(part):
  """The `Quantity` of one number, or None if its word is no unit."""
  digits = re.findall(r"[\d.,]+", part["number"])
  top, *bottom = (Fraction(d.replace(",", "")) for d in digits)
  if bottom and not bottom[0]:
    return None
  number = top / bottom[0] if bottom else top
  number = -number if part["number"].startswith("-") else number
  if part["scale"]:
    word = part["scale"].strip()
    number *= _SCALES.get(word) or _SCALES[word.removesuffix("s")]
  unit = None
  if part["unit"]:
    above, *below = re.split(r"/|\bper\b", part["unit"])
    unit = _unit(above)
    if unit and below:
      other = _unit(" " + below[0].strip())
      unit = other and Unit(
        f"{unit.dimension}/{other.dimension}", unit.factor / other.factor
      )
    if unit is None:
      return None
  if part["money"]:
    if unit:
      return None
    unit = UNITS[_MONEY[part["money"].replace("\\$", "$")]]
  value = number * unit.factor if unit else number
  return Quantity(number, 1, unit, value)


def _unit(text):
  """The `Unit` of a word with its power, or None."""
  word, power = re.fullmatch(
    rf"\s*({_PREFIX}[A-Za-z]+?)(?:\s*\^?\{{?([23]?)\}}?\s*"
    r"|\s+(squared|cubed)\s*)",
    text,
  ).group(1, 2)
  if text.rstrip().endswith(("squared", "cubed")):
    power = 2 if "sq" in text else 3
  if len(word) == 1 and not text[0].isspace():
    return None
  return _named(word, int(power or 1))


def same_quantity(a: Quantity, b: Quantity) -> bool:
  """Whether two quantities are equal; a unit that one lacks is ignored."""
  if a.unit and b.unit:
    return a.unit.dimension == b.unit.dimension and a.value == b.value
  return a.parts == b.parts and a.number == b.number
