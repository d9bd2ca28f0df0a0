"""Compares equations of several unknowns, such as lines and circles.

Two polynomial equations mean the same if one is a multiple of the other. The
multiple shows at random points, so nothing is expanded or solved.
"""

import random
from fractions import Fraction
from typing import Any

import sympy

from r1jax.verifiers.math.guard import value_at

_DIGITS = 60
_POINTS = 5
# Operations of an equation whose fractions are brought together.
_MOST_OPERATIONS = 120


def same_equation(a: Any, b: Any) -> bool | None:
  """Whether two equations have the same solutions.

  Args:
    a: what the library read.
    b: likewise.

  Returns:
    bool; None if they are not both polynomial equations of several unknowns.
  """
  if not (isinstance(a, sympy.Eq) and isinstance(b, sympy.Eq)):
    return None
  sides = [_without_fractions(e) for e in (a, b)]
  if None in sides:
    return None
  p, q = sides
  unknown = sorted(p.free_symbols | q.free_symbols, key=str)
  several = len(unknown) > 1
  if p.free_symbols != q.free_symbols:
    return False if several and p.free_symbols and q.free_symbols else None
  if not unknown:
    return None
  multiple = _is_multiple(p, q, unknown)
  # Of one unknown, x^2 = 0 and x = 0 mean the same: the library solves them.
  return multiple if multiple or several else None


def _without_fractions(equation):
  """The polynomial that an equation says is 0, or None."""
  left, right = equation.args
  if not all(isinstance(s, sympy.Expr) for s in (left, right)):
    return None
  symbols = equation.free_symbols
  both = left - right
  if both.has(sympy.Float):
    both = both.xreplace(
      {f: sympy.Rational(str(f)) for f in both.atoms(sympy.Float)}
    )
  if not both.is_polynomial(*symbols):
    if not both.is_rational_function(*symbols):
      return None
    if both.count_ops() > _MOST_OPERATIONS:
      return None
    both = sympy.fraction(sympy.together(both))[0]
  return both


def _is_multiple(p, q, unknown):
  """Whether p / q is the same number at random points."""
  draw = random.Random(f"{p}|{q}")
  ratios = []
  for _ in range(3 * _POINTS):
    point = {}
    for x in unknown:
      value = Fraction(draw.randint(-(10**9), 10**9), 10**8)
      point[x] = sympy.Float(value.numerator, _DIGITS) / value.denominator
    top, bottom = value_at(p, point, _DIGITS), value_at(q, point, _DIGITS)
    if top is None or bottom is None:
      continue
    tiny = sympy.Float(10) ** -30
    if abs(top) < tiny or abs(bottom) < tiny:
      if abs(top) < tiny and abs(bottom) < tiny:
        continue
      return False
    ratios.append(top / bottom)
    if abs(ratios[-1] - ratios[0]) > abs(ratios[0]) * tiny:
      return False
    if len(ratios) == _POINTS:
      return True
  return None
