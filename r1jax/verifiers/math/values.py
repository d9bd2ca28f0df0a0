"""Compares the values of expressions: exactly, or at random points."""

import random
from decimal import Decimal
from fractions import Fraction
from typing import Any

import sympy

from r1jax.verifiers.math.guard import value_at
from r1jax.verifiers.math.numbers import Number, is_rounded, same_number

# Digits of every value.
DIGITS = 60


def exact(x: Any) -> Any:
  """x evaluated, with each decimal as the exact fraction."""
  floats = {f: sympy.Rational(str(f)) for f in x.atoms(sympy.Float)}
  x = x.xreplace(floats).doit()
  # The odd root of a negative number means the real root.
  return x.replace(
    lambda e: e.is_Pow and e.base.is_Rational and e.base < 0
    and e.exp.is_Rational and e.exp.q > 1 and e.exp.q % 2 == 1,
    lambda e: (-1) ** e.exp.p * (-e.base) ** e.exp,
  )  # fmt: skip


def equal_numbers(a: Any, b: Any) -> bool | None:
  """Whether two numbers are equal; None if one is no ordinary number."""
  decimal = [x.is_Float for x in (a, b)]
  one = any(decimal) and not all(decimal)
  x, y = exact(a), exact(b)
  if x.is_Rational and y.is_Rational:
    if one:
      return same_number(*(
        _number(w) if f else Number(Fraction(int(v.p), int(v.q)))
        for v, w, f in ((x, a, decimal[0]), (y, b, decimal[1]))
      ))  # fmt: skip
    return x == y
  if x.is_infinite or y.is_infinite:
    return None if sympy.zoo in (x, y) else x == y
  p, q = (sympy.N(v, DIGITS) for v in (x, y))
  if not (p.is_number and q.is_number) or (p + q).has(sympy.nan, sympy.zoo):
    return None
  if one:
    closed, written = (q, a) if decimal[0] else (p, b)
    if not (closed.is_Float or closed.is_Rational):
      return False
    return is_rounded(_number(written), Fraction(str(closed)))
  # Different closed forms of this size do not agree in so many digits.
  return bool(abs(p - q) <= abs(p) * sympy.Float(10) ** (15 - DIGITS))


def _number(decimal):
  """The `Number` of sympy's decimal."""
  written = Decimal(str(decimal)).normalize().as_tuple()
  place = Fraction(10) ** int(written.exponent)
  value = Fraction(int("".join(map(str, written.digits)))) * place
  return Number(-value if written.sign else value, len(written.digits), place)


def equal_at_random(a: Any, b: Any) -> bool | None:
  """Whether two expressions agree at random values of their unknowns.

  An identity holds at all six points. Anything else fails at each point, but
  for a chance of about 10^-9. Unknowns in a logarithm are positive.
  """
  unknown = sorted(a.free_symbols | b.free_symbols, key=str)
  draw = random.Random(f"{a}|{b}")
  a, b = exact(a), exact(b)
  logs = set().union(*(x.free_symbols for x in (a + b).atoms(sympy.log)))
  compared = 0
  for _ in range(12):
    point = {
      x: Fraction(3 * draw.randint(1 if x in logs else -(10**9), 10**9), 10**9)
      for x in unknown
    }
    agree = _agree(a, b, point)
    if agree is False:
      return False
    compared += agree is True
    if compared == 6:
      return True
  return True if compared >= 3 else None


def _agree(a, b, point):
  """Whether two expressions have the same value; None if one has none."""
  sizes = []
  for digits in (DIGITS, 4 * DIGITS):
    values = {
      x: sympy.Float(v.numerator, digits) / v.denominator
      for x, v in point.items()
    }
    p, q = value_at(a, values, digits), value_at(b, values, digits)
    if p is None or q is None:
      return None
    sizes.append(abs(p) + abs(q))
    if abs(p - q) <= sizes[-1] * sympy.Float(10) ** -25:
      return True
  # Terms that cancel leave noise, which is smaller with more digits.
  return bool(sizes[1] < sizes[0] * sympy.Float(10) ** -DIGITS)
