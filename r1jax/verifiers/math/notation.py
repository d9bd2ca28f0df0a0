"""Rewrites different spellings of the same formula into one.

Text in, text out, by tables of patterns. Other modules read the text.
"""

import math
import re

from r1jax.verifiers.math import guard, words


def last_box(text: str) -> str:
  """The text in the last box; the whole text if there is no box."""
  at = text.rfind("\\boxed{")
  inner = braced(text, at + len("\\boxed")) if at >= 0 else None
  return text if inner is None else inner


def braced(text: str, at: int) -> str | None:
  """The text in the braces that open at index `at`, or None."""
  depth = 0
  for i in range(at, len(text)):
    depth += (text[i] == "{") - (text[i] == "}")
    if depth == 0:
      return text[at + 1 : i]
  return None


_TYPED = str.maketrans(
  {"\u2212": "-", "\u2013": "-", "\u2044": "/", "\u00d7": "*", "\u00f7": "/",
   "\u00b7": "\\cdot ", "\u22c5": "\\cdot ", "\u2264": "\\le ",
   "\u2265": "\\ge ", "\u2260": "\\ne ", "\u222a": "\\cup ",
   "\u2229": "\\cap ", "\u2208": "\\in ", "\u2205": "\\emptyset ",
   "\u211d": "\\mathbb{R}", "\u00b1": "\\pm ", "\u2261": "\\equiv ",
   "\u00bd": "\\frac{1}{2}", "\u2153": "\\frac{1}{3}",
   "\u2154": "\\frac{2}{3}", "\u00bc": "\\frac{1}{4}",
   "\u00be": "\\frac{3}{4}", "\u221e": "\\infty ",
   "\u03c0": "\\pi ", "\u00b0": "^\\circ ", "\u00a0": " ", "\u2009": " ",
   "\u202f": " ", "\uff0c": ",", "\uff08": "(", "\uff09": ")",
   "\u200b": None, "\u2060": None, "\ufeff": None}
)  # fmt: skip
_POWERS = str.maketrans({"\u00b9": "^1", "\u00b2": "^2", "\u00b3": "^3"})
_TEXT = r"\\(?:text|textbf|textrm|textit|mathrm|mathbf|mbox|operatorname)"


def _repeating(match):
  """The fraction of a repeating decimal such as 0.1\\overline{6}."""
  whole, start, period = match[1] or "0", match[2], match[3]
  bottom = (10 ** len(period) - 1) * 10 ** len(start)
  top = int(whole + start + period) - int(whole + start)
  return f"\\frac{{{top}}}{{{bottom}}}"


def _grouped(match):
  return match[1] + re.sub(r"\D", "", match[2])


def _double_factorial(match):
  return str(math.prod(range(int(match[1]), 0, -2)))


# The order counts: later patterns see the result of earlier ones.
_REWRITTEN = tuple(
  (re.compile(pattern), by)
  for pattern, by in (
    # Dress and space around a formula.
    (r"\\fbox\b|\\boxed\s+(?=\{)", r"\\boxed"),
    (r"(?<![\w)\]}*])\*\*([^*\n]+)\*\*(?![\w({\\*])", r"\1"),
    (r"\\(?:display|text|script)style\b|\\q?quad\b", " "),
    (r"\\checkmark\b", " "),
    (r"\{:\}|\\colon(?![A-Za-z])", ":"),
    (r"\\(?:left|right)\s*\.", " "),
    (r"\\(?:tiny|small|large|Large|LARGE|huge|Huge)\b", " "),
    (r"\\underline\s*(?=\{)|\\(?:text)?color\s*\{\w+\}", ""),
    (r"\\(?:begin|end)\s*\{(?:align|aligned|equation|gather|gathered|split)"
     r"\*?\}", " "),
    (r"&\s*(?=[=<>]|\\[lg]eq?\b)", ""),
    (r"\\begin\{cases\}([^&]*?)(?:\\\\\s*)?\\end\{cases\}",
     lambda m: m[1].replace("\\\\", ", ")),
    (r"\\[lc]?dots\b|\u2026", r"\\dots"),
    (r"\\[lr]brace\b", lambda m: "\\{" if m[0][1] == "l" else "\\}"),
    (r"\\(?:left)?\s*\\?langle\b", "("),
    (r"\\(?:right)?\s*\\?rangle\b", ")"),
    (rf"{_TEXT}\s*\{{\s*((?:[Ff]inal )?[Aa]nswer\s*:?)\s*\}}", r"\1 "),
    (rf"^{_TEXT}\s*\{{[^{{}}]*\bis\s*:?\s*\}}", ""),
    (rf"{_TEXT}\s*\{{\s*,\s*(and|or)\s*\}}", r"\\text{ \1 }"),
    # Commands of the same meaning.
    (r"\\[dtc]frac\b", r"\\frac"),
    (r"\\[dt]binom\b", r"\\binom"),
    (r"\{([^{}]*)\\choose\b([^{}]*)\}", r"\\binom{\1}{\2}"),
    (r"\bC\((\d+),\s*(\d+)\)", r"\\binom{\1}{\2}"),
    (r"[_^]\{?(\d+)\}?C_\{?(\d+)\}?", r"\\binom{\1}{\2}"),
    (r"(?<![A-Za-z\\])C_\{?(\d{1,4})\}?\^\{?(\d{1,4})\}?", r"\\binom{\1}{\2}"),
    (r"(?<![A-Za-z\\])C\^\{?(\d{1,4})\}?_\{?(\d{1,4})\}?", r"\\binom{\2}{\1}"),
    (r"\\varnothing\b", r"\\emptyset"),
    (r"^([\s$]*)[a-z]\s*\\neq?\s*\\pm\s*(\d{1,9})(?=[\s$]*$)",
     r"\1\\mathbb{R}\\setminus\\{-\2,\2\\}"),
    (r"\\backslash\b", r"\\setminus "),
    (r"\\lg\b", r"\\log_{10}"),
    (r"(\\mathbb\s*\{?\s*R\s*\}?)\s*-\s*(?=\\\{)", r"\1\\setminus "),
    (r"(\\log_\s*(?:\d|\{\d{1,4}\})|\\ln)\s*(\d{1,9})\s*"
     r"(?=\\(?:cdot|times)\b)", r"\1(\2)"),
    # The name of a point before its coordinates.
    (r"^([\s$]*)[ABD-Z]\s*(?=\([^()A-Za-z]{1,40},[^()A-Za-z]{1,40}\)[\s$.]*$)",
     r"\1"),
    (r"\\([lg])eqslant\b", r"\\\1e"),
    (r"\\degrees?\b", r"^\\circ"),
    (rf"\^\s*(?:\{{\s*)?{_TEXT}\s*\{{\s*o\s*\}}\}}?", r"^\\circ"),
    (r"(?<=\d)\^\s*(?:o\b|\{\s*o\s*\})", r"^\\circ"),
    (r"\\log_\s*(?:e\b|\{\s*e\s*\})", r"\\ln "),
    (rf"{_TEXT}\s*\{{\s*([ie])\s*\}}", r"\1"),
    (r"(?<![A-Za-z\\])pi(?![A-Za-z])", r"\\pi "),
    (r"(?<=\d)\s*x\s*(?=10\s*\^)", r"\\cdot "),
    ("\u221a\\s*(?:(\\d+|[A-Za-z])|\\(([^()]*)\\))",
     lambda m: f"\\sqrt{{{m[1] or m[2]}}}"),
    # Styles: a bold number is that number.
    (r"\\(?:mathbf|boldsymbol|bm)\b(?=\s*\{)", ""),
    (r"\\text(?:bf|it|rm)\{\s*([-+\d.,/\s]+)\}", r"\1"),
    # Numbers. Thousands do not begin with 0, so the comma of 0,125 is a point.
    (r"^([\s$]*(?:\\boxed\{)?\s*-?0),(?=\d{3,20}\s*\}?[\s$]*$)", r"\1."),
    (rf"{_TEXT}\s*\{{\s*(?:percent(?:age)?|pct)\s*\}}", r"\\%"),
    (r"(?:\\[,;:! ]|~)\s*(?=\\?%)", ""),
    (r"(?<![\d.])(\d{1,3})((?:(?:\{,\}|\\,|\\!|,\\!|\\ |~|\{\\,\})\d{3})+)"
     r"(?!\d)", _grouped),
    (r"(?<=\d)\{(?:\.\}(?=\d)|,\}(?=\d{1,2}(?!\w)))", "."),
    (r"(?<![\w.])(\d+(?:\.\d*)?)[eE]([-+]?\d{1,3})(?![\w.])",
     r"\1\\cdot 10^{\2}"),
    (r"(?<![\w.])(\d{0,20})\.(\d{0,20})\\(?:overline|bar|dot)\s*"
     r"\{(\d{1,20})\}", _repeating),
    (rf"(\d)\s*\^?\s*\{{?\s*(?:{_TEXT}\s*\{{\s*)?(?:st|nd|rd|th)\b\s*\}}?\}}?",
     r"\1"),
    (r"(?<![\w.])(\d{1,2})!!(?!\s*!)", _double_factorial),
    # Functions of degrees.
    (r"(\\(?:sin|cos|tan|cot|sec|csc))\s*[({]?\s*(\d+(?:\.\d+)?)\s*"
     r"\^\s*\{?\s*\\circ\s*\}?\s*[)}]?", r"\1(\\frac{\2\\pi}{180})"),
    # Units.
    (rf"{_TEXT}\s*\{{\s*(-?\d[\d,.]{{0,20}})\s+"
     r"(?!(?:or|and|to|more|less|at|if|mod)\b)([A-Za-z][a-z ]{1,30})\}",
     r"\1\\text{ \2}"),
    (r"(\^\s*\{?\s*\\circ\s*\}?)\s*(?:\\(?:text|mathrm|mbox)\s*\{\s*)?"
     r"([CF])\b\s*\}?", r"\1\\text{ \2}"),
    (rf"\\frac\s*\{{\s*{_TEXT}\{{([^{{}}]*)\}}\s*\}}\s*"
     rf"\{{\s*{_TEXT}\{{([^{{}}]*)\}}\s*\}}", r"\\text{ \1/\2}"),
    (r"\\(?:textdollar|pounds|euro)\b|[\u20ac\u00a3\u00a5\u20b9]|\\\$", ""),
    (r"\b(?:USD|EUR|GBP)\s*(?=\d)", ""),
    (r"\\mathbb\s*\{?R\}?\s*\^\s*\{?\+\}?", r"(0,\\infty)"),
    # In a matrix, d is an entry and not a differential.
    (r"(?<![A-Za-z\\])d\s*(?=\\(?:end\b|\\)|&)", "{d}"),
    # After k pi, "k in Z" adds nothing.
    (rf"(?<=[\w)}}])\s*[,;]?\s*(?:{_TEXT}\{{[^{{}}]*\}}|for|where|with)?\s*\(?"
     r"[a-z]\s*\\in\s*\\mathbb\s*\{?\s*[ZN]\}?\)?(?=\$?$)", ""),
    # "x is in" a set means the set.
    (r"^([\s$(]*)[A-Za-z]\s*\\in\s*(?=\(|\[|\\\{|\\left|\\mathbb)", r"\1"),
    # Ends of sentences and lines.
    (r"(?<!\\)(?:[\s.,;:]|(?<!\\)\\(?:\s|$)|\\\\(?=\s*$))+$", ""),
    (r"(?<!\\)(?:[\s.,;:]|\\\s)+(?=\$*$)", ""),
  )
)  # fmt: skip
_OVER = re.compile(r"\{([^{}]*)\\over\b([^{}]*)\}|^([^{}]*)\\over\b([^{}]*)$")


def clean(text: str) -> str:
  """The end of a text in one spelling."""
  if len(text) > guard.MAX_CHARACTERS:
    text = _tail(text)
  # Long runs of white space only cost time.
  text = re.sub(r"(\s{3})\s+", r"\1", text.translate(_TYPED))
  if not re.search(r"[A-Za-z]{2,} +\w", text):
    text = text.translate(_POWERS)  # in prose these belong to units
  for pattern, by in _REWRITTEN:
    text = pattern.sub(by, text)
  text = _OVER.sub(
    lambda m: f"\\frac{{{m[1] or m[3]}}}{{{m[2] or m[4]}}}", text
  )
  if not text.isascii():
    # No grader would accept the digits of other scripts.
    text = "".join(c if c.isascii() or not c.isdigit() else "?" for c in text)
  text = _last_boxes(text)
  return text if "\\boxed" in text else words.symbol_of(text)


# "apples and", "for part (a) or", but not "is wrong and".
_NAMED = (
  r"(?:(?!(?:is|was|not|wrong|but|so|thus|hence|then|instead)\b)"
  r"(?:[a-z]{1,12}|\([a-z0-9]\)),?\s){0,4}"
)
_BETWEEN = re.compile(
  rf"[\s$,;.()\[\]\\]*(?:{_NAMED}(?:and|or)"
  rf"|\\text\s*\{{\s*{_NAMED},?\s*(?:and|or)\s*\}})?"
  r"[\s$,;()\[\]\\]*(?:[A-Za-z](?:_\{?\w{1,3}\}?)?\s*=[\s$]*)?"
)


def _last_boxes(text):
  """A text without its earlier boxes, except those listed with the last."""
  starts = [m.start() for m in re.finditer(r"\\boxed\{", text)]
  if len(starts) < 2:
    return text
  begin = starts.pop()
  for start in reversed(starts):
    inner = braced(text, start + len("\\boxed"))
    end = None if inner is None else start + len("\\boxed{}") + len(inner)
    if end is None or end > begin:
      return text  # one box in another
    if not _BETWEEN.fullmatch(text[end:begin]):
      return text[begin:]
    begin = start
  return text


def _tail(text):
  """The part of a long text that has the answer, as long as allowed."""
  at = text.rfind("\\boxed{")
  if at >= 0:
    # Several boxes may make one answer.
    begin = max(0, at - guard.MAX_CHARACTERS // 2)
    text = text[begin : begin + guard.MAX_CHARACTERS]
    return text[text.find("\\boxed{") :]
  at = text.lower().rfind("final answer")
  if at >= 0:
    return text[at : at + guard.MAX_CHARACTERS]
  text = text[-guard.MAX_CHARACTERS :]
  # Starts at a space, so as not to split a number or command.
  return text[text.find(" ") + 1 :]
