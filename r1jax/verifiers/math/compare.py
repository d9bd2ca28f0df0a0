"""Compares two expressions; numbers exactly."""

import re
from fractions import Fraction

import math_verify
import sympy

from r1jax.verifiers.math import equations, latex, units
from r1jax.verifiers.math.values import (
  DIGITS,
  equal_at_random,
  equal_numbers,
  exact,
)

_Relation = sympy.core.relational.Relational


def same(gold: latex.Answer, got: latex.Answer) -> bool:
  """Whether two `latex.Answer`s mean the same.

  Args:
    gold: the right answer.
    got: the answer to judge.
  """
  if _is_false(got.expression) or _brackets_differ(gold, got):
    return False
  if _is_infinite(got.expression) != _is_infinite(gold.expression):
    return False
  scale = Fraction(1)
  if gold.unit and got.unit and gold.unit != got.unit:
    if gold.unit.dimension != got.unit.dimension:
      return units.general(gold.unit, got.unit) and bool(
        _equal(gold.expression, got.expression)
      )
    scale = got.unit.factor / gold.unit.factor
  a, b = map(_without_bars, (gold.expression, got.expression))
  if scale != 1:
    if not (_is_number(a) and _is_number(b)):
      return False
    return _equal(a, b * sympy.Rational(scale.numerator, scale.denominator))
  a, b = _as_set(a, b, gold.taken), _as_set(b, a, got.taken)
  a, b = _values(a, b), _values(b, a)
  a, b = _vector(a, b), _vector(b, a)
  a, b = _roots(a, b)
  answer = equations.same_equation(a, b)
  if answer is None:
    answer = _equal(a, b)
  return _library(gold, got) if answer is None else answer


def _library(gold, got):
  return math_verify.verify(
    gold.parsed, got.parsed, float_rounding=12, numeric_precision=DIGITS,
    timeout_seconds=None,
  )  # fmt: skip


def _is_infinite(expression):
  """Whether it is infinite, such as 1/0, which equals all to the library."""
  if not isinstance(expression, sympy.Expr | sympy.Eq):
    return False
  if isinstance(expression, sympy.Expr):
    expression = exact(expression)  # a logarithm to the base 1 is infinite
  return expression.has(sympy.oo, -sympy.oo, sympy.zoo, sympy.nan)


def _is_false(expression):
  """Whether it is a false equation of numbers: 3 = 2 does not mean 2."""
  if isinstance(expression, sympy.And):
    # A chain that begins with an unknown, z = 3 + 3 = 2, counts by its end.
    chain = not expression.free_symbols
    return chain and any(map(_is_false, expression.args))
  if isinstance(expression, sympy.Eq):
    left, right = expression.args
    if _is_number(left) and _is_number(right):
      return not _equal(left, right)
  return False


_OPEN_BRACE = re.compile(r"\A(\\?)(?:left\s{0,3}\\)?\{")
_OPEN_ROUND = re.compile(r"\A(\\?)(?:left\s{0,3})?\(")


def _between(text, opening, end):
  """(what is before the bracket, what is in it), or None."""
  match = opening.match(text)
  if not match or not text.endswith(end):
    return None
  inner = text[match.end() : -1].removesuffix("\\").rstrip()
  return match[1], inner.removesuffix("\\right").rstrip()


def _brackets_differ(gold, got):
  """Whether one is a set and the other a tuple or interval.

  Bare braces {1, 2} may also mean a tuple.
  """
  for a, b in ((gold, got), (got, gold)):
    braces = _between(a.taken, _OPEN_BRACE, "}")
    round_ = _between(b.taken, _OPEN_ROUND, ")")
    if not (braces and round_ and "," in b.taken) or _several(round_[1]):
      continue
    bare = not braces[0]
    return not (bare and _squeezed(braces[1]) == _squeezed(round_[1]))
  return False


def _several(inner):
  """Whether the text between outer brackets closes the first of them."""
  depth = 0
  for c in inner:
    depth += (c == "(") - (c == ")")
    if depth < 0:
      return True
  return False


def _squeezed(text):
  return re.sub(r"\s+", "", text)


def _as_set(a, b, text):
  """A relation of one unknown as a set, if b is a relation or set too."""
  if isinstance(a, sympy.Eq) and isinstance(a.rhs, sympy.Set):
    return a.rhs  # the library reads "x in [0, 1)" as x = [0, 1)
  if isinstance(a, sympy.Intersection):
    a = a.doit()
  if isinstance(a, sympy.Complement):
    a = sympy.Complement(*a.args)
  sets = sympy.Interval | sympy.Union | sympy.Complement
  if isinstance(b, sympy.Eq):
    b = b.rhs
  if _are_relations(a) or _are_relations(b):
    # Both are sets of relations, or both are not.
    if type(a) is type(b):
      return a
  elif not isinstance(b, sets):
    return a
  if isinstance(a, sympy.Ne):
    left, right = a.args
    return sympy.Complement(sympy.S.Reals, sympy.FiniteSet(right)).doit()
  if _are_relations(a):
    # "x > 1 and x < 2" means "and", but "x < 1 and x > 2" means "or".
    both = "or" in text or _solved(sympy.And(*a.args))
    if both in (True, sympy.S.EmptySet, None):
      a = sympy.Or(*a.args)
    else:
      return both
  return _solved(a) or a


def _without_bars(a):
  """|x| < 2 becomes -2 < x and x < 2; |x| > 2 becomes x < -2 or x > 2."""
  if isinstance(a, sympy.Gt | sympy.Ge) and isinstance(a.rhs, sympy.Abs):
    a = a.reversed
  if isinstance(a, sympy.Lt | sympy.Le) and isinstance(a.rhs, sympy.Abs):
    a = a.reversed
  if not (isinstance(a, _Relation) and isinstance(a.lhs, sympy.Abs)):
    return a
  inner, size = a.lhs.args[0], a.rhs
  if not (inner.is_Symbol and size.is_number and size.is_positive):
    return a
  if isinstance(a, sympy.Lt | sympy.Le):
    return sympy.And(a.func(inner, size), a.func(-size, inner))
  if isinstance(a, sympy.Gt | sympy.Ge):
    return sympy.Or(a.func(inner, size), a.func(-size, inner))
  return a


def _values(a, b):
  """a = 1, b = 2 becomes (1, 2), in the written order, if b is a tuple."""
  equations = isinstance(a, sympy.FiniteSet) and a.args and all(
    isinstance(x, sympy.Eq) and x.lhs.is_Symbol for x in a.args
  )  # fmt: skip
  if not (equations and isinstance(b, sympy.Tuple) and len(a.args) > 1):
    return a
  return sympy.Tuple(*(x.rhs for x in getattr(a, "_unsorted_args", a.args)))


def _vector(a, b):
  """A matrix of one column or row as a tuple, if b is a tuple."""
  pair = isinstance(b, sympy.Interval) and b.is_open
  if isinstance(a, sympy.MatrixBase) and 1 in a.shape:
    return sympy.Tuple(*a) if pair or isinstance(b, sympy.Tuple) else a
  open_pair = isinstance(a, sympy.Interval) and a.is_open
  if open_pair and isinstance(b, sympy.MatrixBase) and 1 in b.shape:
    return sympy.Tuple(*a.args[:2])
  return a


def _roots(a, b):
  """x = 1, x = 2 and x_1 = 1, x_2 = 2 both become the set {1, 2}."""
  names = []
  for x in (a, b):
    if not (isinstance(x, sympy.FiniteSet) and x.args):
      return a, b
    if not all(isinstance(e, sympy.Eq) and e.lhs.is_Symbol for e in x.args):
      return a, b
    names.append({str(e.lhs) for e in x.args})
  plain, counted = sorted(names, key=len)
  if len(plain) != 1 or len(counted) == 1:
    return a, b
  name = next(iter(plain))
  if any(re.fullmatch(rf"{re.escape(name)}_\{{?\d\}}?", x) is None
         for x in counted):  # fmt: skip
    return a, b
  return tuple(sympy.FiniteSet(*(e.rhs for e in x.args)) for x in (a, b))


def _are_relations(a):
  return isinstance(a, sympy.FiniteSet) and a.args and all(
    isinstance(x, _Relation | sympy.And) and not isinstance(x, sympy.Eq)
    for x in a.args
  )  # fmt: skip


def _solved(a):
  """The set where inequalities of one unknown hold, or None."""
  inequality = isinstance(a, _Relation | sympy.And | sympy.Or)
  if inequality and len(a.free_symbols) == 1 and not a.has(sympy.Eq):
    x = next(iter(a.free_symbols))
    sides = [s for r in a.atoms(_Relation) for s in r.args]
    if all(s.is_polynomial(x) and sympy.degree(s, x) <= 2 for s in sides):
      return a.as_set()
  return None


def _is_number(x):
  return isinstance(x, sympy.Expr) and not x.free_symbols


def _equal(a, b):
  """Whether two expressions are equal; None if the library must decide."""
  if isinstance(a, sympy.Tuple) and isinstance(b, sympy.Tuple):
    return _all(a, b) if len(a) == len(b) else False
  if isinstance(a, sympy.Interval) and isinstance(b, sympy.Interval):
    if (a.left_open, a.right_open) != (b.left_open, b.right_open):
      return False
    return _all(a.args[:2], b.args[:2])
  if isinstance(a, sympy.FiniteSet) and isinstance(b, sympy.FiniteSet):
    return _matched(a, b)
  if isinstance(a, sympy.Set) and a == b:
    return True
  if isinstance(a, sympy.Ne) and isinstance(b, sympy.Ne):
    return True if set(a.args) == set(b.args) else None
  if isinstance(a, sympy.And) and isinstance(b, sympy.And):
    # 0 < x < 1 and 1 > x > 0
    x, y = ({_ordered(r) for r in c.args} for c in (a, b))
    return True if x == y else None
  if not (isinstance(a, sympy.Expr) and isinstance(b, sympy.Expr)):
    return None
  if a.has(sympy.core.function.AppliedUndef) or b.has(
    sympy.core.function.AppliedUndef
  ):
    return None
  a, b = (_known(x, y) for x, y in ((a, b), (b, a)))
  if _is_number(a) and _is_number(b):
    return equal_numbers(a, b)
  return equal_at_random(a, b)


def _ordered(relation):
  """A relation with the smaller side on the left."""
  if isinstance(relation, sympy.Gt | sympy.Ge):
    return relation.reversed
  return relation


def _all(a, b):
  answers = [_equal(x, y) for x, y in zip(a, b)]
  if False in answers:
    return False
  return None if None in answers else True


def _matched(a, b):
  """Whether each element of one set is in the other."""
  if not all(map(_is_number, (*a.args, *b.args))):
    return None
  found = [any(_equal(x, y) for y in b.args) for x in a.args]
  back = [any(_equal(x, y) for x in a.args) for y in b.args]
  return all(found) and all(back)


def _known(x, other):
  """x with i as the imaginary unit, if i is the only unknown of both."""
  letters = {s.name for s in x.free_symbols | other.free_symbols}
  if letters != {"i"}:
    return x
  return x.subs(dict.fromkeys(x.free_symbols, sympy.I))
