"""Units after an answer."""

import re
from fractions import Fraction
from typing import NamedTuple


class Unit(NamedTuple):
  """What is measured, and one of it in the dimension's first unit."""

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
    "mass": {
      "mg": "1/1000", "g": "1", "kg": "1000", "gram": "1", "kilogram": "1000",
    },
    "volume": {"ml": "1/1000", "l": "1", "liter": "1", "litre": "1"},
    "angle": {"degree": "1", "deg": "1", "^\\circ": "1", "radian": "1/0"},
    "money": {"dollar": "100", "cent": "1"},
    "share": {"%": "1", "percent": "1", "percentage": "1", "pct": "1"},
  }  # fmt: skip
  # A radian is no rational number of degrees: a dimension of its own.
  known["angle"].pop("radian")
  known["radian"] = {"radian": "1", "rad": "1"}
  return {
    name: Unit(dimension, Fraction(factor))
    for dimension, names in known.items()
    for name, factor in names.items()
  }


UNITS = _table()
_DRESS = re.compile(r"\\(?:text|textbf|mathrm|mbox|rm|textrm|operatorname)\b")
_LAST = re.compile(
  r"[\d)}.]\s*((?:\^\{?\\circ\}?)|%|[A-Za-z]+)\s*"
  r"(?:\^\{?([23])\}?)?\s*[.$]*\s*$"
)


def split_unit(text):
  """The `Unit` that an answer ends in, or None.

  Args:
    text: "5 cm", "15\\mbox{ cm}^2", "30^\\circ".
  """
  plain = _DRESS.sub("", text[-60:])
  plain = re.sub(r"[{}~]|\\[,;! ]|\\ ", " ", plain.replace("\\%", "%"))
  plain = re.sub(r"\^\s*\\circ", "^\\\\circ", plain)
  match = _LAST.search(plain)
  if not match:
    return None
  word, power = match[1], int(match[2] or 1)
  unit = UNITS.get(word) or UNITS.get(word.lower().removesuffix("s"))
  if unit is None or (len(word) == 1 and word != "%" and "\\" not in text
                      and " " not in text.strip()):  # fmt: skip
    # "5m" may be five times m.
    return None
  if unit.dimension == "share":
    return None
  return Unit(f"{unit.dimension}^{power}", unit.factor**power)
