"""How large could the numbers of a formula be? Answered from the text alone.

The library evaluates some powers while it reads them, so a tower must be seen
before anything reads it. Every bound here is an upper one: a letter stands for
itself, a sum counts as at least its terms, a product as its factors.
"""

import math
import re
from typing import NamedTuple

# Bits of any number that is formed; 2006! has 19,000.
MAX_BITS = 1 << 16
# A power with unknowns could be expanded.
MAX_EXPONENT = 1000
MAX_MATRIX_EXPONENT = 20
MAX_TERMS = 200
MAX_ZETA = 100


class Refused(ValueError):
  """A text or expression is too large to compare safely."""


class Size(NamedTuple):
  """Bounds of a part of a formula.

  Attributes:
    bits: bits that write its value down.
    value: its absolute value; a letter counts as 1.
    unknown: whether it has letters.
    kind: "matrix", or "" for anything else.
  """

  bits: float
  value: float
  unknown: bool = False
  kind: str = ""


_ONE = Size(1.0, 1.0)
_TOKEN = re.compile(r"\\[A-Za-z]+|\\.|\d+(?:\.\d*)?|\.\d+|\S", re.DOTALL)
_OPENING = {"(": ")", "[": "]", "{": "}", "\\{": "\\}", "\\lfloor": "\\rfloor",
            "\\lceil": "\\rceil", "\\langle": "\\rangle"}  # fmt: skip
_CLOSING = frozenset(_OPENING.values())
# Between the terms of a sum, or between formulas.
_SPLITS = frozenset(
  ["+", "-", "\\pm", "\\mp", ",", ";", "=", "<", ">", "&", "\\\\", ":", "\\le",
   "\\ge", "\\leq", "\\geq", "\\ne", "\\neq", "\\cup", "\\cap", "\\setminus",
   "\\in", "\\to", "\\approx", "\\equiv", "\\text", "\\mid", "|"]
)  # fmt: skip
_EXPONENTIALS = frozenset(["\\exp", "\\sinh", "\\cosh", "\\tanh", "\\coth"])
_CONSTANTS = {"e": 3.0, "\\pi": 4.0, "\\e": 3.0}
_NAMES = frozenset(
  ["\\sin", "\\cos", "\\tan", "\\cot", "\\sec", "\\csc", "\\ln", "\\log",
   "\\lg", "\\arcsin", "\\arccos", "\\arctan", "\\gcd", "\\lcm", "\\max",
   "\\min", "\\cdot", "\\times", "\\left", "\\right", "\\,", "\\ ", "\\;",
   "\\!", "\\:", "$", "*", "/", "\\circ", "\\boxed", "\\mathrm", "\\cdots"]
)  # fmt: skip
MAX_DEPTH = 40
MAX_TOWER = 4


def check(text: str) -> None:
  """Raises `Refused` if a number of a formula could be too large.

  Args:
    text: LaTeX in the spelling of `notation`.
  """
  _Reader(_TOKEN.findall(text)).sequence(None)


class _Reader:
  """Reads tokens from left to right; any text has a reading."""

  def __init__(self, tokens):
    self.tokens, self.at, self.depth, self.tower = tokens, 0, 0, 0
    # The largest value of an index of a sum or product.
    self.index = 1.0

  def sequence(self, end):
    """Everything up to a closing bracket, as sums of products."""
    inside = end is not None
    total, term = None, None
    while self.at < len(self.tokens):
      token = self.tokens[self.at]
      if token == end or (token in _CLOSING and inside):
        self.at += 1
        break
      if token in _SPLITS:
        self.at += 1
        total, term = _plus(total, term), None
        continue
      inverse = token == "/"
      factor = self.factor()
      if inverse and self.at < len(self.tokens):
        factor = _inverse(self.factor())
      term = factor if term is None else _times(term, factor)
    return _plus(total, term) or _ONE

  def deeper(self):
    """Counts one level more."""
    self.depth += 1
    if self.depth > MAX_DEPTH:
      raise Refused("too deep")

  def factor(self):
    """One thing with its scripts and factorials."""
    size = self.thing()
    while self.at < len(self.tokens):
      token = self.tokens[self.at]
      if token == "_":
        self.at += 1
        self.thing()
      elif token == "^":
        self.at += 1
        size = _power(size, self.exponent())
      elif token == "!":
        self.at += 1
        size = _factorial(size)
      else:
        break
    return size

  def exponent(self):
    """The exponent, with the exponents above it."""
    self.deeper()
    self.tower += 1
    if self.tower > MAX_TOWER:
      raise Refused("too high a tower")
    size = self.thing()
    while self.at < len(self.tokens) and self.tokens[self.at] in "^!":
      token = self.tokens[self.at]
      self.at += 1
      if token == "!":
        size = _factorial(size)
      else:
        # Read from the left or from the right: the larger of both.
        above = self.exponent()
        size = max(
          (_power(size, above), _times(size, above)), key=lambda s: s.value
        )
    self.tower -= 1
    self.depth -= 1
    return size

  def thing(self):
    """A number, letter, bracket or command with its arguments."""
    if self.at >= len(self.tokens):
      return _ONE
    token = self.tokens[self.at]
    self.at += 1
    self.deeper()
    size = self.opened(token)
    self.depth -= 1
    return size

  def opened(self, token):
    """The thing that begins with a token."""
    if token[0].isdigit() or (token[0] == "." and len(token) > 1):
      return _number(token)
    if token in _OPENING:
      return self.sequence(_OPENING[token])
    if token in _CONSTANTS:
      return Size(2.0, _CONSTANTS[token])
    if token.isalpha():
      return Size(1.0, self.index, True)
    if token[0] == "\\":
      return self.command(token)
    return _ONE

  def command(self, name):
    """A command with its arguments."""
    if name in ("\\frac", "\\dfrac", "\\tfrac", "\\cfrac"):
      top, bottom = self.thing(), self.thing()
      return _times(top, _inverse(bottom))
    if name in ("\\binom", "\\dbinom", "\\tbinom"):
      return _binomial(self.thing(), self.thing())
    if name == "\\sqrt":
      if self.at < len(self.tokens) and self.tokens[self.at] == "[":
        self.at += 1
        if self.sequence("]").value > MAX_EXPONENT:
          raise Refused("too large a root")
      size = self.thing()
      if size.kind == "matrix":
        raise Refused("the root of a matrix")
      return size
    if name in _EXPONENTIALS:
      return _power(Size(2.0, 3.0), self.argument())
    if name == "\\Gamma":
      return _factorial(self.argument())
    if name == "\\zeta":
      argument = self.argument()
      if argument.value > MAX_ZETA:
        raise Refused("too large")
      return argument
    if name in ("\\sum", "\\prod"):
      return self.repeated(name)
    if name == "\\end":
      kind = "".join(self.tokens[self.at : self.at + 10])
      self.thing()
      matrix = "matrix" in kind or "array" in kind
      return Size(1.0, 1.0, True, "matrix" if matrix else "")
    if name == "\\begin":
      self.thing()
      return _ONE
    known = name in _NAMES
    return _ONE if known else Size(1.0, self.index, name.isalpha())

  def argument(self):
    """The argument of a function, with the powers of the function's name."""
    while self.at < len(self.tokens) and self.tokens[self.at] in (
      "^", "_", "\\left",
    ):  # fmt: skip
      self.at += 1
      if self.tokens[self.at - 1] != "\\left":
        self.thing()
    size = self.factor()
    # 2x^9 may all belong to the function, if it has no brackets.
    while self.at < len(self.tokens) and (
      self.tokens[self.at][0].isalnum() or self.tokens[self.at] == "\\cdot"
    ):
      size = _times(size, self.factor())
    return size

  def repeated(self, name):
    """A sum or product: its limits and the factor after it."""
    top = 1.0
    while self.at < len(self.tokens) and self.tokens[self.at] in "_^":
      upper = self.tokens[self.at] == "^"
      self.at += 1
      limit = self.thing()
      top = max(top, limit.value)
      if upper and limit.value > MAX_TERMS:
        raise Refused("too many terms")
    self.index = max(self.index, top)
    body = self.factor() if self.at < len(self.tokens) else _ONE
    bits = body.bits * top if name == "\\prod" else body.bits + top
    if bits > MAX_BITS:
      raise Refused("too large")
    return Size(bits, _power_of_two(bits), body.unknown)


def _number(token):
  value = float(token)
  digits = len(token)
  return Size(max(1.0, digits * 3.33), value)


def _plus(a, b):
  if a is None or b is None:
    return a or b
  matrix = a.kind or b.kind
  unknown = a.unknown or b.unknown
  return Size(max(a.bits, b.bits) + 1, a.value + b.value, unknown, matrix)


def _times(a, b):
  bits = a.bits + b.bits
  if bits > MAX_BITS:
    raise Refused("too large")
  value = max(a.value, 1.0) * max(b.value, 1.0)
  return Size(bits, value, a.unknown or b.unknown, a.kind or b.kind)


def _inverse(a):
  """1 / a: at most 1 if a is at least 1, else as large as its bits allow."""
  value = 1.0 if a.value >= 1.0 else _power_of_two(a.bits)
  return a._replace(value=value)


def _power_of_two(bits):
  return 2.0**bits if bits < 1000 else math.inf


def _power(base, exponent):
  value = exponent.value
  if base.kind == "matrix" and not (
    value <= MAX_MATRIX_EXPONENT and value == int(value)
  ):
    raise Refused("too large")
  if base.unknown and value > MAX_EXPONENT:
    raise Refused("too large")
  bits = max(1.0, base.bits) * max(1.0, value)
  if not bits <= MAX_BITS:
    raise Refused("too large")
  try:
    size = max(base.value, 1.0) ** max(1.0, value)
  except OverflowError:
    size = math.inf
  unknown = base.unknown or exponent.unknown
  return Size(bits, size, unknown, base.kind)


def _factorial(size):
  n = size.value
  bits = (n + 1) * math.log2(n + 2) if n < MAX_BITS else math.inf
  if not bits <= MAX_BITS:
    raise Refused("too large")
  return Size(max(1.0, bits), _power_of_two(bits), size.unknown)


def _binomial(top, bottom):
  n, k = top.value, bottom.value
  if bottom.unknown and n > MAX_EXPONENT:
    raise Refused("too large")
  if k > MAX_EXPONENT and (top.unknown or n > MAX_BITS):
    raise Refused("too large")
  bits = min(n + 1, k * max(1.0, top.bits))
  if not bits <= MAX_BITS or k > MAX_BITS:
    raise Refused("too large")
  unknown = top.unknown or bottom.unknown
  return Size(max(1.0, bits), _power_of_two(bits), unknown)
