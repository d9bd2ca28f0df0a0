"""Answers as they are written, to what they say.

Reading LaTeX is the work of the `math-verify` library. It is given no more
than the answer itself, typed alike, after `math_guard` has let it through.
"""

import logging
import re

import math_verify

from r1jax.verifiers import math_guard
from r1jax.verifiers.math_units import split_unit

# It would tell about every answer that it can't read, with a stack trace.
logging.getLogger("math_verify").setLevel(logging.CRITICAL)


class Unparsable(ValueError):
  """Nothing in the text is an answer that can be compared."""


class Answer:
  """An answer: its text, its unit, and what the library makes of it."""

  def __init__(self, text):
    self.text = text
    self.parsed = parse(text)
    # The library's second reading is the text that it took for the answer.
    taken = self.parsed[-1] if isinstance(self.parsed[-1], str) else text
    self.taken = taken.strip()
    self.unit = split_unit(self._outer())

  @property
  def expression(self):
    return self.parsed[0]

  def _outer(self):
    """The box's content where there is one: units are stripped from `taken`."""
    at = self.text.rfind("\\boxed{")
    inner = braced(self.text, at + len("\\boxed")) if at >= 0 else None
    return inner if inner is not None else self.text


def braced(text, at):
  """What stands in the braces that open at `at`, or None."""
  depth = 0
  for i in range(at, len(text)):
    depth += (text[i] == "{") - (text[i] == "}")
    if depth == 0:
      return text[at + 1 : i]
  return None


_TEXT = r"\\(?:text|textbf|textrm|mathrm|mbox|boxed|rm)\b"
_DRESS = re.compile(_TEXT + r"|[$\\\s{}().]")


def word_of(text):
  """A word in lower case without what surrounds it, or None."""
  word = _DRESS.sub("", text)
  return word.lower() if re.fullmatch("[A-Za-z]{2,40}", word) else None


def _is_words(text):
  """Whether what is no mathematics is an answer in words all the same."""
  words = re.sub(_TEXT, "", text)
  closed = all(words.count(a) == words.count(b) for a, b in ("{}", "()"))
  return closed and "\\" not in words and re.search("[A-Za-z]", words)


_TYPED = str.maketrans(
  {"\u2212": "-", "\u2013": "-", "\u2044": "/", "\u00d7": "*", "\u00f7": "/",
   "\u221e": "\\infty ", "\u03c0": "\\pi ", "\u00b0": "^\\circ "}
)  # fmt: skip
_GROUPED = re.compile(r"(?<![\d.])(\d{1,3})((?:(?:\{,\}|\\,|\\!|,\\!)\d{3})+)")
_SCIENTIFIC = re.compile(
  r"(?<![\w.])(\d+(?:\.\d*)?)[eE]([-+]?\d{1,3})(?![\w.])"
)
_REPEATING = re.compile(
  r"(?<![\w.])(\d{0,20})\.(\d{0,20})\\(?:overline|bar|dot)\s*\{(\d{1,20})\}"
)
_CLOCK = re.compile(r"[\s$]*(\d{1,2}:\d\d)[\s$]*")
_TRIG = re.compile(
  r"(\\(?:sin|cos|tan|cot|sec|csc))\s*[({]?\s*(\d+(?:\.\d+)?)\s*"
  r"\^\s*\{?\s*\\circ\s*\}?\s*[)}]?"
)
_BUILDER = re.compile(r"^\\?\{\s*\w\s*(?:\\mid|\||:)\s*(.*?)\s*\\?\}$")


def _repeating(match):
  """0.1\\overline{6} as the fraction that it is."""
  whole, start, period = match[1] or "0", match[2], match[3]
  bottom = (10 ** len(period) - 1) * 10 ** len(start)
  top = int(whole + start + period) - int(whole + start)
  return f"\\frac{{{top}}}{{{bottom}}}"


def clean(text):
  """The end of a text, typed alike."""
  if len(text) > math_guard.MAX_CHARACTERS:
    text = _tail(text)
  text = text.translate(_TYPED)
  if not text.isascii():
    # Digits of other scripts are no digits; no grader would take them.
    text = "".join(c if c.isascii() or not c.isdigit() else "?" for c in text)
  text = _GROUPED.sub(lambda m: m[1] + re.sub(r"\D", "", m[2]), text)
  text = _SCIENTIFIC.sub(r"\1\\cdot 10^{\2}", text)
  text = _REPEATING.sub(_repeating, text)
  text = text.replace("\\$", "").replace("\\dfrac", "\\frac")
  text = text.replace("\\tfrac", "\\frac")
  return _TRIG.sub(r"\1(\\frac{\2\\pi}{180})", text)


def clock(text):
  """The time of day that a text is and nothing else, "10:30", or None."""
  match = _CLOCK.fullmatch(text)
  return match[1] if match else None


def _tail(text):
  """At most as much as the guard allows, where the answer must be."""
  at = text.rfind("\\boxed{")
  if at >= 0:
    # Several boxes may make one answer.
    begin = max(0, at - math_guard.MAX_CHARACTERS // 2)
    text = text[begin : begin + math_guard.MAX_CHARACTERS]
    return text[text.find("\\boxed{") :]
  at = text.lower().rfind("final answer")
  if at >= 0:
    return text[at : at + math_guard.MAX_CHARACTERS]
  text = text[-math_guard.MAX_CHARACTERS :]
  # Not from the middle of a number or a command.
  return text[text.find(" ") + 1 :]


def parse(text):
  """What the library reads: [expression, text] or [text]."""
  formulas = re.split(r"(?<!\$)\$(?!\$)|\\[()]", text)[1::2]
  if formulas and formulas[-1].lstrip(" \t").startswith("\n"):
    raise Unparsable("a formula that begins on another line")
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


def _extract(text, latex_only):
  """What the library finds; with `latex_only` no number out of a broken one."""
  kinds = [math_verify.LatexExtractionConfig()]
  if not latex_only:
    kinds.append(math_verify.ExprExtractionConfig())
  return math_verify.parse(
    text, kinds, parsing_timeout=None, raise_on_error=False
  )


def _is_formula(text):
  """Whether the whole of a short text is the answer, and not prose."""
  if re.fullmatch(r"-?\d+(?: \d{3})+(?:\.\d+)?|-?\d+,\d\d", text):
    return False  # written as in prose: 1 000 and 1,22
  prose = re.sub(r"\\\w+\{[^}]*\}", "", text)
  words = re.findall(r"(?<!\\)\b[A-Za-z]{3,}", prose)
  return len(words) <= 2 and len(text) < 300
