"""Does an arithmetic expression over given numbers reach a target?"""

import re
from fractions import Fraction

from r1jax.errors import BadProblem
from r1jax.text import think_format
from r1jax.types import Problem, Verdict

_TOKEN = re.compile(r"\s*(?:(0|[1-9][0-9]{0,8})|(.))", re.DOTALL)
MAX_NUMBER = 10**9 - 1
MAX_CHARACTERS = 200
MAX_DEPTH = 20


class Unparsable(ValueError):
  """The text is no expression of the grammar, or it is too long."""


class _Parser:
  """An exact recursive descent parser of + - * / ( ) and whole numbers."""

  def __init__(self, text):
    self.tokens = [
      number or symbol for number, symbol in _TOKEN.findall(text.strip())
    ]
    self.at = 0
    self.numbers = []

  def parse(self):
    value = self.sum(0)
    if self.at != len(self.tokens):
      raise Unparsable
    return value

  def next_in(self, symbols):
    if self.at < len(self.tokens) and self.tokens[self.at] in symbols:
      self.at += 1
      return self.tokens[self.at - 1]
    return None

  def sum(self, depth):
    value = self.product(depth)
    while op := self.next_in("+-"):
      other = self.product(depth)
      value = value + other if op == "+" else value - other
    return value

  def product(self, depth):
    value = self.atom(depth)
    while op := self.next_in("*/"):
      other = self.atom(depth)
      if op == "/" and other == 0:
        raise Unparsable
      value = value * other if op == "*" else value / other
    return value

  def atom(self, depth):
    if depth > MAX_DEPTH or self.at == len(self.tokens):
      raise Unparsable
    if self.next_in("("):
      value = self.sum(depth + 1)
      if not self.next_in(")"):
        raise Unparsable
      return value
    token = self.tokens[self.at]
    if not (token.isascii() and token.isdigit()):
      raise Unparsable
    self.at += 1
    self.numbers.append(int(token))
    return Fraction(int(token))


def evaluate(text: str) -> tuple[Fraction, list[int]]:
  """The exact value of an expression, and the numbers in it.

  The grammar has + - * / ( ) and whole numbers, and no signs, powers, decimals
  or names. Limits on length and depth keep a hostile text cheap.

  Args:
    text: the text between the answer tags.

  Returns:
    (`Fraction`, list of int in order of appearance).

  Raises:
    Unparsable: the text is no such expression, or divides by zero.
  """
  if len(text) > MAX_CHARACTERS:
    raise Unparsable
  parser = _Parser(text)
  return parser.parse(), parser.numbers


def verify(problem: Problem, completion: str) -> Verdict:
  """Whether the answer uses each number once and equals the target.

  Args:
    problem: a `Problem` whose data has "numbers" and "target".
    completion: the text that the policy wrote.

  Returns:
    `Verdict`; reason "correct", "wrong", "wrong_numbers", "unparsable" or
    "no_answer".

  Raises:
    BadProblem: see `check_problem`.
  """
  check_problem(problem)
  text = think_format.answer(completion)
  if not text:
    return Verdict(False, 0.0, "no_answer")
  try:
    value, numbers = evaluate(text)
  except Unparsable:
    return Verdict(False, 0.0, "unparsable")
  if sorted(numbers) != sorted(problem.data["numbers"]):
    return Verdict(False, 0.0, "wrong_numbers")
  if value != problem.data["target"]:
    return Verdict(False, 0.0, "wrong")
  return Verdict(True, 1.0, "correct")


def final_answer(problem: Problem, completion: str) -> str | None:
  """The value of the answer, for majority votes.

  Returns:
    str; None if there is no value or the numbers are not the given ones.
  """
  try:
    value, numbers = evaluate(think_format.answer(completion) or "")
  except Unparsable:
    return None
  if sorted(numbers) != sorted(problem.data["numbers"]):
    return None
  return str(value)


def check_problem(problem: Problem) -> None:
  """Raises a `BadProblem` if "numbers" or "target" is missing or invalid."""
  numbers, target = (problem.data.get(k) for k in ("numbers", "target"))
  if not (
    isinstance(numbers, list)
    and numbers
    and all(_whole(x) and x <= MAX_NUMBER for x in numbers)
  ):
    raise BadProblem(
      f'problem {problem.id}: data needs "numbers", a list of whole numbers'
      f" up to {MAX_NUMBER}"
    )
  if not _whole(target):
    raise BadProblem(
      f'problem {problem.id}: data needs "target", a whole number'
    )


def _whole(x):
  return type(x) is int and x >= 0
