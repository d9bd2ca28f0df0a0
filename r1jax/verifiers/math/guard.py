"""Refuses mathematics that would take too much time or memory.

First the text and then the expression is measured, before either is evaluated.
What is accepted runs under the deadline of `time_limit`.
"""

import math
import re
from collections.abc import Mapping
from typing import Any

import mpmath
import sympy

from r1jax.verifiers.math import size
from r1jax.verifiers.math.size import MAX_BITS, Refused

MAX_CHARACTERS = 1000
MAX_DEPTH = 24
# Round brackets in round brackets: with each, the library takes longer to see
# whether the outermost is a point, an interval or a product.
MAX_ROUND = 5
MAX_FUNCTIONS = 12
# Nested exponents.
MAX_TOWER = 3
MAX_DIGITS = 300
MAX_NODES = 400
# How often each may occur in a formula, since all pairs are compared.
MAX_MARKS = {
  "=": 12, "<": 12, "\\le": 12, "|": 12, "!": 12, "/": 24, "^": 24,
  ",": 64, "&": 64, "(": 32, "{": 64, "_": 24,
}  # fmt: skip

_COMMANDS = re.compile(
  r"\\(?:input|include|write|read|open|def|let|csname|catcode|loop|usepackage)"
)


_FUNCTION = re.compile(
  r"\\(?:arc)?(?:sin|cos|tan|cot|sec|csc|sinh|cosh|tanh|coth|ln|log|exp|Gamma"
  r"|zeta|gcd|lcm|max|min|det|vec|overline)(?![A-Za-z])"
)
_CHAIN = re.compile(r"(?:\\(?:arc)?(?:sin|cos|tan|cot|sec|csc|ln|log)h?\s?){4}")
_NOT_CLOSED = re.compile(r"\\(?:i{0,3}int|oint|lim)(?![A-Za-z])")


def check_text(text: str) -> None:
  """Raises `Refused` for a text that no parser should see."""
  if len(text) > MAX_CHARACTERS:
    raise Refused("too long")
  if re.search(rf"\d{{{MAX_DIGITS + 1}}}", text):
    raise Refused("too many digits")
  if "__" in text or _COMMANDS.search(text) or "\0" in text:
    raise Refused("no mathematics")
  _check_depth(text)
  for formula in re.split(r"\$|\\[()\[\]]", text):
    if any(formula.count(mark) > most for mark, most in MAX_MARKS.items()):
      raise Refused("too many parts")
  if len(_FUNCTION.findall(text)) > MAX_FUNCTIONS:
    raise Refused("too many functions")
  if _CHAIN.search(text):
    raise Refused("too many functions of functions")
  # A factorial of a factorial is a large number by itself.
  if re.search(r"![\s)}\]]{0,30}!", text):
    raise Refused("too large")
  if re.search(r"(?:_\s{0,9}\w\s{0,9}){4}", text):
    raise Refused("too deep")
  size.check(text)


def check_closed(text: str) -> None:
  """Raises `Refused` for integrals and limits, which nothing here evaluates.

  Args:
    text: LaTeX. The library takes long to read several of them.
  """
  if _NOT_CLOSED.search(text):
    raise Refused("not in closed form")


def _check_depth(text):
  opened, before = [], ""
  for c in text:
    if c in "([{":
      opened.append((c, before in "^_" and before != ""))
    elif c in ")]}" and opened:
      opened.pop()
    round_ = sum(bracket != "{" for bracket, _ in opened)
    scripts = sum(script for _, script in opened)
    if len(opened) > MAX_DEPTH or scripts > MAX_TOWER or round_ > MAX_ROUND:
      raise Refused("too deep")
    before = before if c == " " else c
  if text.count("\\sqrt") > MAX_DEPTH:
    raise Refused("too deep")


def check_expression(expression: Any) -> None:
  """Raises `Refused` for an expression whose value could be too large."""
  for nodes, node in enumerate(sympy.preorder_traversal(expression)):
    if nodes > MAX_NODES:
      raise Refused("too large")
    if isinstance(node, sympy.Sum | sympy.Product):
      _check_range(node)
    elif isinstance(
      node, sympy.Integral | sympy.Derivative | sympy.Limit | sympy.ConditionSet
    ):
      raise Refused("not in closed form")
  for node in sympy.preorder_traversal(expression):
    if isinstance(node, sympy.Expr) and not node.free_symbols:
      _log2(node)
    elif isinstance(node, sympy.Pow) and node.exp.is_number:
      _check_exponent(node.exp)
  if isinstance(expression, sympy.Basic) and expression.has(sympy.log):
    _check_factors(expression)


def _check_factors(expression):
  # The library makes log(x^n) of n log(x), and computes x^n.
  logs = {log: sympy.Dummy() for log in expression.atoms(sympy.log)}
  rest = expression.xreplace(logs)
  powers = [
    x for x in rest.atoms(sympy.Pow) if all(y.is_Rational for y in x.args)
  ]
  sizes = [max(abs(n.p), n.q) for n in rest.atoms(sympy.Rational)]
  sizes += [max(abs(x.base.p), x.base.q) ** min(abs(x.exp), 21) for x in powers]
  if any(size > 10**6 for size in sizes):
    raise Refused("too large")


def _check_exponent(exponent):
  # The library could expand (x + 1)^1000000.
  if abs(_value(exponent)) > 1000:
    raise Refused("too large")


def _check_range(node):
  for _, low, high in node.limits:
    if not (low.is_Integer and high.is_Integer and high - low <= 200):
      raise Refused("too many terms")


def _value(node):
  """The float of a small number, such as an exponent."""
  if _log2(node) > 40:
    raise Refused("too large")
  value = sympy.N(node, 15)
  try:
    return float(value)
  except TypeError:
    return abs(complex(value))


def _log2(node):
  """An upper bound of log2 of |node|, found without forming the number.

  Args:
    node: a sympy expression without unknowns.

  Raises:
    Refused: a part of it exceeds `MAX_BITS` bits.
  """
  if node.is_Integer:
    bits = float(abs(int(node)).bit_length())
  elif node.is_Rational:
    # A small number counts as its inverse.
    bits = float(max(int(abs(node.p)).bit_length(), int(node.q).bit_length()))
  elif node.is_Float:
    bits = abs(float(sympy.log(abs(node), 2).evalf(5))) if node else 1.0
  elif isinstance(node, sympy.Add):
    bits = max(map(_log2, node.args)) + math.log2(len(node.args))
  elif isinstance(node, sympy.Mul):
    bits = sum(map(_log2, node.args))
  elif isinstance(node, sympy.Pow):
    base, exponent = _log2(node.base), abs(_value(node.exp))
    bits = max(1.0, base) * max(1.0, exponent)
  elif isinstance(node, sympy.factorial | sympy.factorial2 | sympy.gamma):
    n = abs(_value(node.args[0]))
    bits = (n + 1) * math.log2(n + 2)
  elif isinstance(node, sympy.binomial | sympy.exp):
    bits = 2 * abs(_value(node.args[0])) + 1
  else:
    bits = max([1.0, *(_log2(a) for a in node.args if a.is_number)])
  if not bits <= MAX_BITS:
    raise Refused("too large")
  return bits


def value_at(node: Any, point: Mapping[Any, Any], digits: int) -> Any:
  """The value of an expression for given values of its unknowns.

  Each step is measured before it is computed: for random values of its unknown,
  x^x^x can be too large for any memory.

  Args:
    node: a sympy expression.
    point: dict from symbols to numbers.
    digits: digits of every intermediate value.

  Returns:
    a number of that many digits; None if it is undefined, infinite or too
    large.
  """
  if not node.args:
    return point.get(node, node)
  args = [value_at(a, point, digits) for a in node.args]
  if None in args:
    return None
  if isinstance(node, sympy.Pow):
    bits = abs(_bits(args[0])) * 2.0 ** _bits(args[1])
  elif isinstance(node, sympy.Add | sympy.Mul):
    bits = max(map(_bits, args))
  else:
    bits = 2.0 ** max(map(_bits, args))
  if not bits <= MAX_BITS:
    return None
  value = node.func(*args).evalf(digits)
  return value if value.is_number and value.is_finite else None


def _bits(number):
  """About log2 of |number|, between -1000 and 1000."""
  if not number:
    return 0.0
  power = mpmath.mag(mpmath.mpmathify(number.evalf(15)))
  return float(min(max(power, -1000), 1000))
