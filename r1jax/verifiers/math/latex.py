"""Reads an answer in LaTeX or words.

The library `math-verify` reads LaTeX. It sees only the answer itself, in the
spelling of `notation`, and only if `guard` accepts it.
"""

import logging
import re
from typing import Any

import math_verify

from r1jax.verifiers.math.notation import last_box
from r1jax.verifiers.math.units import split_unit

# It would log a stack trace for every answer that it cannot read.
logging.getLogger("math_verify").setLevel(logging.CRITICAL)


class Unparsable(ValueError):
  """The text has no answer that can be compared."""


class Answer:
  """An answer: its text, its unit, and the library's reading of it."""

  def __init__(self, text: str) -> None:
    self.text = text
    self.parsed = parse(text)
    # The library's second reading is the text that it took for the answer.
    taken = self.parsed[-1] if isinstance(self.parsed[-1], str) else text
    self.taken = taken.strip()
    self.unit = split_unit(last_box(text))

  @property
  def expression(self) -> Any:
    return self.parsed[0]


_TEXT = r"\\(?:text|textbf|textrm|mathrm|mbox|boxed|rm)\b"
_DRESS = re.compile(_TEXT + r"|[$\\\s{}().]")


def word_of(text: str) -> str | None:
  """The one word of a text, in lower case; None if it is not one word."""
  word = _DRESS.sub("", text)
  return word.lower() if re.fullmatch("[A-Za-z]{2,40}", word) else None


def is_sequence(text: str) -> bool:
  """Whether a text is only capitals, such as HTH, whose order counts."""
  return bool(re.fullmatch("[A-Z]{3,40}", _DRESS.sub("", text)))


_PRIMED = re.compile(r"(?<![A-Za-z\\'`\"])([A-Za-z])('*)(?![A-Za-z])")


def primes_differ(a: str, b: str) -> bool:
  """Whether a letter has primes in one text and fewer in the other."""
  in_a, in_b = map(_primes, (last_box(a)[:300], last_box(b)[:300]))
  return any(in_a[name] != in_b[name] for name in in_a.keys() & in_b.keys())


def _primes(text):
  """Letter -> the set of the numbers of its primes."""
  found: dict[str, set[int]] = {}
  for m in _PRIMED.finditer(text):
    found.setdefault(m[1], set()).add(len(m[2]))
  return found


def _is_words(text):
  """Whether a text without mathematics is an answer in words."""
  words = re.sub(_TEXT, "", text)
  closed = all(words.count(a) == words.count(b) for a, b in ("{}", "()"))
  return closed and "\\" not in words and re.search("[A-Za-z]", words)


_DANGLING = re.compile(r"\d\s{0,3}[-*/=][\s$]{0,9}$|[\^_][\s$)}]{0,9}$")
_BUILDER = re.compile(
  r"\A\\?\{\s?\w\s?(?:\\in\s?\\mathbb\s?\{?R\}?\s?)?(?:\\mid|\||:)\s{0,3}"
  r"(.{0,300}?)\s{0,3}\\?\}$"
)


def parse(text: str) -> list[Any]:
  """The library's reading of a text: [expression, text] or [text]."""
  formulas = re.split(r"(?<!\$)\$(?!\$)|\\[()]", text)[1::2]
  if formulas and formulas[-1].lstrip(" \t").startswith("\n"):
    raise Unparsable("a formula that begins on another line")
  if _DANGLING.search(last_box(text)):
    raise Unparsable("an operator at the end without what follows it")
  if re.search(r"\?\d|\d\?", last_box(text)) and len(text) < 40:
    raise Unparsable("a question mark, or the digit of another script")
  if _inner_sign(last_box(text)):
    text = _both_signs(last_box(text))
  bare = text.strip()
  builder = _BUILDER.match(bare.strip("$"))
  if builder:
    bare = builder[1]
  if not any(mark in bare for mark in ("$", "\\boxed", "\\(", "\\[")):
    bare = f"${bare}$" if _is_formula(bare) else bare
  formula = bare.count("$") == 2 and bare[0] == bare[-1] == "$"
  latex_only = formula and "\\" in bare
  parsed = _extract(bare, latex_only)
  if not parsed and bare != text:
    parsed = _extract(text, latex_only)
  if not parsed or (len(parsed) == 1 and not _is_words(bare.strip("$"))):
    raise Unparsable("nothing of it is mathematics")
  return parsed


def _inner_sign(text):
  """Whether the only plus-or-minus of a formula is within brackets.

  The library knows this sign only between the terms of a sum.
  """
  before, *after = text.split("\\pm")
  if (
    len(after) != 1 or len(text) > 200 or before.lstrip(" $").startswith("\\{")
  ):
    return False
  opened = sum(map(before.count, "({")) - sum(map(before.count, ")}"))
  return opened > 0


def _both_signs(text):
  bare = text.strip().strip("$")
  both = ", ".join(bare.replace("\\pm", sign) for sign in "+-")
  return f"${both}$"


def _extract(text, latex_only):
  """What the library finds; `latex_only` ignores numbers in broken LaTeX."""
  kinds = [math_verify.LatexExtractionConfig()]
  if not latex_only:
    kinds.append(math_verify.ExprExtractionConfig())
  return math_verify.parse(
    text, kinds, parsing_timeout=None, raise_on_error=False
  )


def _is_formula(text):
  """Whether a short text is all formula and no prose."""
  if re.fullmatch(r"\A(?:-?\d+(?: \d{3})+(?:\.\d+)?|-?\d+,\d\d)", text):
    return False  # written as in prose: 1 000 and 1,22
  if re.search(r"[a-z]'[a-z]{1,2} ", text):
    return False  # it's prose
  prose = re.sub(r"\\\w{1,20}\{[^}]{0,200}\}", "", text)
  words = re.findall(r"(?<!\\)\b[A-Za-z]{3,}", prose)
  return len(words) <= 2 and len(text) < 300
