"""Units: what each one measures, and how large it is."""

import re
from fractions import Fraction
from typing import NamedTuple


class Unit(NamedTuple):
  """A unit: its dimension, as (("length", 2),), and its size in base units."""

  dimension: tuple[tuple[str, int], ...]
  factor: Fraction


_KNOWN = {
  "length": {
    "nm": "1/1000000000", "mm": "1/1000", "cm": "1/100", "dm": "1/10",
    "m": "1", "km": "1000", "in": "127/5000", "ft": "381/1250",
    "yd": "1143/1250", "mi": "201168/125", "meter": "1", "metre": "1",
    "centimeter": "1/100", "centimetre": "1/100", "decimeter": "1/10",
    "kilometer": "1000", "kilometre": "1000", "millimeter": "1/1000",
    "millimetre": "1/1000", "micrometer": "1/1000000",
    "nanometer": "1/1000000000", "inch": "127/5000", "inche": "127/5000",
    "foot": "381/1250", "feet": "381/1250", "yard": "1143/1250",
    "mile": "201168/125",
  },
  "time": {
    "ms": "1/1000", "millisecond": "1/1000", "s": "1", "sec": "1",
    "second": "1", "min": "60", "minute": "60", "h": "3600", "hr": "3600",
    "hour": "3600", "day": "86400", "week": "604800",
  },
  "months": {
    "month": "1", "year": "12", "yr": "12", "decade": "120",
    "century": "1200", "centurie": "1200",
  },
  "mass": {
    "mg": "1/1000", "g": "1", "kg": "1000", "gram": "1", "kilogram": "1000",
    "milligram": "1/1000", "tonne": "1000000", "lb": "45359237/100000",
    "pound": "45359237/100000", "oz": "45359237/1600000",
    "ounce": "45359237/1600000",
  },
  "volume": {
    "ml": "1/1000000", "cl": "1/100000", "l": "1/1000", "liter": "1/1000",
    "litre": "1/1000", "milliliter": "1/1000000",
    "millilitre": "1/1000000", "gallon": "473176473/125000000000",
    "gal": "473176473/125000000000", "quart": "473176473/500000000000",
    "pint": "473176473/1000000000000", "cc": "1/1000000",
  },
  "area": {"hectare": "10000", "ha": "10000", "acre": "316160658/78125"},
  "speed": {
    "mph": "1397/3125", "kph": "5/18", "kmh": "5/18", "kmph": "5/18",
  },
  "angle": {"degree": "1", "deg": "1", "^\\circ": "1"},
  # A radian is not a rational number of degrees, so it is another dimension.
  "radian": {"radian": "1", "rad": "1"},
  "celsius": {"celsius": "1"}, "fahrenheit": {"fahrenheit": "1"},
  "kelvin": {"kelvin": "1"},
  "money": {
    "dollar": "100", "usd": "100", "cent": "1", "penny": "1", "pennie": "1",
    "dime": "10",
  },
  "euro": {"euro": "1", "eur": "1"}, "pounds": {"gbp": "1"},
  "yen": {"yen": "1", "jpy": "1"}, "rupee": {"rupee": "1", "inr": "1"},
  "yuan": {"yuan": "1", "cny": "1", "rmb": "1"},
  "unit": {"unit": "1"},
  "force": {"newton": "1"},
  "energy": {"joule": "1", "kj": "1000", "kilojoule": "1000"},
  "power": {"watt": "1", "kw": "1000", "kilowatt": "1000"},
  "frequency": {"hz": "1", "hertz": "1", "khz": "1000"},
  "voltage": {"volt": "1"}, "current": {"amp": "1", "ampere": "1"},
  "resistance": {"ohm": "1"}, "amount": {"mole": "1", "mol": "1"},
}  # fmt: skip
_MEANS = {
  "volume": (("length", 3),), "area": (("length", 2),),
  "speed": (("length", 1), ("time", -1)),
}  # fmt: skip
UNITS = {
  name: Unit(_MEANS.get(dimension, ((dimension, 1),)), Fraction(factor))
  for dimension, names in _KNOWN.items()
  for name, factor in names.items()
}
# Words of a phrase that is no unit.
_PROSE = frozenset(
  ["or", "and", "to", "more", "less", "at", "if", "mod", "than", "of", "is",
   "not", "in", "the", "times", "by", "on", "with", "from", "no", "old",
   "half", "halve", "halves", "third", "thirds", "fourth", "fourths",
   "quarter", "quarters", "fifth", "fifths", "sixth", "sixths", "eighth",
   "eighths", "tenth", "tenths", "hundredth", "hundredths", "hundred",
   "thousand", "million", "billion", "dozen", "percent", "percentage",
   "infinity", "squared", "cubed", "factorial", "root", "sqrt", "base",
   "modulo", "remainder", "choose", "plus", "minus", "over", "divided",
   "power", "where", "when", "only", "then", "either", "neither", "least",
   "most", "exactly", "points", "because", "sinh", "cosh", "tanh", "wrong",
   "pairs", "pair", "gross", "score", "but", "which", "that", "alpha", "beta",
   "theta", "sigma", "omega", "does", "false", "true", "except"]
)  # fmt: skip
_TOKEN = re.compile(r"\^\\circ|[A-Za-z]+|-?\d+|\S")
_WORDS = {"squared": 2, "cubed": 3}
_PREFIXES = {"square": 2, "sq": 2, "cubic": 3, "cu": 3}


def unit_of(text: str) -> Unit | None:
  """The `Unit` that a text means, or None.

  A word that is no unit counts as a thing, as in "people per square mile". Its
  name is the word's, after "~".

  Args:
    text: "cm", "m/s^2", "square miles", "miles per hour", "kg m^{-3}".
  """
  tokens = _TOKEN.findall(re.sub(r"[{}()~]|\\[,;!: ]", " ", text))
  powers: dict[str, int] = {}
  factor, sign, at, things = Fraction(1), 1, 0, 0
  while at < len(tokens):
    token = tokens[at]
    at += 1
    if token in ("/", "per", "an", "a"):
      sign = -1
      continue
    if token in (".", "*", "\\cdot"):
      continue
    prefix = _PREFIXES.get(token.lower(), 1)
    if prefix > 1:
      at += tokens[at : at + 1] == ["."]
      token = tokens[at] if at < len(tokens) else ""
      at += 1
    power, at = _power(tokens, at)
    unit, at = _named(token, tokens, at)
    if unit is None:
      if not _is_thing(token.lower()):
        return None
      things += 1
      unit = Unit((("~" + token.lower().removesuffix("s"), 1),), Fraction(1))
    power *= prefix * sign
    factor *= unit.factor**power
    for name, own in unit.dimension:
      powers[name] = powers.get(name, 0) + own * power
  if not powers or things > 3:
    return None
  dimension = tuple(sorted((n, p) for n, p in powers.items() if p))
  return Unit(dimension, factor)


def _is_thing(word):
  """Whether a word may name what is counted, and is no unknowns or number."""
  return (
    len(word) > 3 and word.isalpha() and word not in _PROSE
    and re.search("[aeiouy]", word) is not None
  )  # fmt: skip


def _power(tokens, at):
  """The power after a unit's name, and the index after it."""
  if at < len(tokens) and tokens[at].lower() in _WORDS:
    return _WORDS[tokens[at].lower()], at + 1
  if tokens[at : at + 1] == ["^"]:
    at += 1
    if at == len(tokens):
      return 1, at
  if at < len(tokens) and re.fullmatch("-?[1-4]", tokens[at]):
    return int(tokens[at]), at + 1
  return 1, at


def _named(token, tokens, at):
  """The `Unit` of one name, or None, and the index after it."""
  if token == "^\\circ" or token.lower() in ("degree", "degrees", "deg"):
    scale = tokens[at].lower() if at < len(tokens) else ""
    for letter, name in (("c", "celsius"), ("f", "fahrenheit")):
      if scale in (letter, name):
        return UNITS[name], at + 1
    return UNITS["degree"], at
  return named(token), at


def named(word: str) -> Unit | None:
  """The `Unit` of one word, in the singular or plural; or None.

  Args:
    word: "cm", "Miles", "mph".
  """
  unit = UNITS.get(word)
  if unit is None and (len(word) > 1 or word == "L"):
    unit = UNITS.get(word.lower()) or UNITS.get(word.lower().removesuffix("s"))
  return unit


def general(a: Unit, b: Unit) -> bool:
  """Whether one is a "unit" of length or area, and the other a named one."""
  if len(a.dimension) != 1 or len(b.dimension) != 1:
    return False
  (x, p), (y, q) = a.dimension[0], b.dimension[0]
  return p == q and {x, y} == {"unit", "length"}


_DRESS = re.compile(r"\\(?:text|textbf|mathrm|mbox|rm|textrm|operatorname)\b")
_PREFIX = r"(?:(?:square|sq|cubic|cu)\.?\s{1,3})?"
_LAST = re.compile(
  r"(?:[\d)}.$]|\\pi\b)\s{0,3}\$?\s{0,3}((?:\^\{?\\circ\}?(?:\s{1,3}[CF]\b)?)"
  rf"|{_PREFIX}[A-Za-z]{{1,20}})\s{{0,3}}(?:\^\s?\{{?([23])\}}?)?[\s.$]{{0,9}}$"
)


def split_unit(text: str) -> Unit | None:
  """The `Unit` at the end of an answer, or None.

  Args:
    text: "5 cm", "15\\mbox{ cm}^2", "30^\\circ".
  """
  plain = _DRESS.sub("", text[-60:])
  plain = re.sub(r"[{}~]|\\[,;! ]|\\ ", " ", plain.replace("\\%", "%"))
  plain = re.sub(r"\s+", " ", re.sub(r"\^\s*\\circ", "^\\\\circ", plain))
  for match in _LAST.finditer(plain):
    letter = len(match[1]) == 1
    if letter and "\\" not in text and " " not in text.strip():
      # "5m" may be five times m.
      return None
    return unit_of(match[1] + (f"^{match[2]}" if match[2] else ""))
  return None
