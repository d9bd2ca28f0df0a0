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
    self.unit = split_unit(last_box(text))

  @property
  def expression(self):
    return self.parsed[0]


def last_box(text):
  """What stands in the last box; the text itself where there is none."""
  at = text.rfind("\\boxed{")
  inner = braced(text, at + len("\\boxed")) if at >= 0 else None
  return text if inner is None else inner


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


def is_sequence(text):
  """Whether a text is capitals alone, HTH: their order counts."""
  return bool(re.fullmatch("[A-Z]{3,40}", _DRESS.sub("", text)))


_APPLIED = re.compile(
  r"(?<![A-Za-z\\])([A-Za-z])((?:'|\^\{?\\prime\}?)*)\("
)


def primes_differ(a, b):
  """Whether both apply a function, one of them its derivative."""
  a, b = (
    {m[1]: m[2].count("'") + m[2].count("prime") for m in _APPLIED.finditer(x)}
    for x in (last_box(a)[:300], last_box(b)[:300])
  )
  return any(a[name] != b[name] for name in a.keys() & b.keys())


def _is_words(text):
  """Whether what is no mathematics is an answer in words all the same."""
  words = re.sub(_TEXT, "", text)
  closed = all(words.count(a) == words.count(b) for a, b in ("{}", "()"))
  return closed and "\\" not in words and re.search("[A-Za-z]", words)


_TYPED = str.maketrans(
  {"\u2212": "-", "\u2013": "-", "\u2044": "/", "\u00d7": "*", "\u00f7": "/",
   "\u00b7": "\\cdot ", "\u22c5": "\\cdot ", "\u2264": "\\le ",
   "\u2265": "\\ge ", "\u2260": "\\ne ", "\u222a": "\\cup ",
   "\u00bd": "\\frac{1}{2}", "\u2153": "\\frac{1}{3}",
   "\u2154": "\\frac{2}{3}", "\u00bc": "\\frac{1}{4}",
   "\u00be": "\\frac{3}{4}", "\u221e": "\\infty ",
   "\u03c0": "\\pi ", "\u00b0": "^\\circ "}
)  # fmt: skip
_POWERS = str.maketrans({"\u00b9": "^1", "\u00b2": "^2", "\u00b3": "^3"})
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
_ROOT = re.compile("\u221a\\s*(?:(\\d+|[A-Za-z])|\\(([^()]*)\\))")
_BOLD = re.compile(r"\\(?:mathbf|boldsymbol|bm)\b(?=\s*\{)")
_BOLD_NUMBER = re.compile(r"\\text(?:bf|it|rm)\{\s*([-+\d.,/\s]+)\}")
_DANGLING = re.compile(r"\d\s*[-*/=]\s*\$*\s*$")
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
  if not re.search(r"[A-Za-z]{2,} +\w", text):
    text = text.translate(_POWERS)  # in prose they belong to units
  text = _ROOT.sub(lambda m: f"\\sqrt{{{m[1] or m[2]}}}", text)
  text = _BOLD.sub("", text.replace("{:}", ":"))
  text = _BOLD_NUMBER.sub(r"\1", text)
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
  if _DANGLING.search(last_box(text)):
    raise Unparsable("an operator at the end without what follows it")
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
