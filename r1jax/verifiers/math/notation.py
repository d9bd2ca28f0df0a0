"""Rewrites different spellings of the same formula into one.

Text in, text out, by tables of patterns. Other modules read the text.
"""

import math
import re

from r1jax.verifiers.math import (
  characters,
  commands,
  guard,
  programs,
  sets,
  units,
  words,
)


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


_TEXT = r"\\(?:text|textbf|textrm|textit|mathrm|mathbf|mbox|operatorname)"


def _repeating(match):
  """The fraction of a repeating decimal such as 0.1\\overline{6}."""
  return _fraction(match[1] or "0", match[2], match[3])


def _grouped(match):
  return match[1] + re.sub(r"\D", "", match[2])


def _dotted(match):
  """The fraction of a decimal such as 0.1666 with dots after it."""
  whole, digits = match[1] or "0", match[2]
  for start in range(len(digits)):
    tail = digits[start:]
    for period in range(1, len(tail)):
      again = len(tail) - period
      if again < min(period, 3) or tail[period:] != tail[:again]:
        continue
      return _fraction(whole, digits[:start], tail[:period])
  return f"{whole}.{digits}" if len(digits) >= 10 else match[0]


def _fraction(whole, start, period):
  bottom = (10 ** len(period) - 1) * 10 ** len(start)
  top = int(whole + start + period) - int(whole + start)
  return f"\\frac{{{top}}}{{{bottom}}}"


def _chosen(match):
  """C(5, 2) is a number; C(2, 5) is a point."""
  n, k = match.groups()
  return f"\\binom{{{n}}}{{{k}}}" if int(k) <= int(n) else f"({n},{k})"


def _unit_as_text(match):
  """A word after a formula as a text, if it is a unit."""
  if units.unit_of(match[2]) is None:
    return match[0]
  return f"{match[1]}\\text{{ {match[2]}}}{match[3] or ''}"


def _double_factorial(match):
  return str(math.prod(range(int(match[1]), 0, -2)))


# The order counts: later patterns see the result of earlier ones.
_REWRITTEN = tuple(
  (re.compile(pattern), by)
  for pattern, by in (
    # Dress and space around a formula.
    (r"\\fbox\b|\\boxed\s(?=\{)", r"\\boxed"),
    (r"\\(?:display|text|script)style\b|\\q?quad\b", " "),
    (r"\\checkmark\b", " "),
    (r"\^\{\s?\\prime\s?\\prime\s?\}", "''"),
    (r"\^(?:\{\s?\\prime\s?\}|\\prime\b)", "'"),
    (r"\\[bB]igg?[lrm]?(?![A-Za-z])|\\middle(?![A-Za-z])", ""),
    # "About 14" means 14; so does "x is about 14".
    (r"^([\s$]{0,9}(?:\\boxed\{)?)[\s$]{0,9}(?:\\approx|\\sim(?:eq)?(?![A-Za-z])"
     r"|~|(?:about|approximately|approx\.?|roughly|around) ?(?=[\d\\$-]))",
     r"\1"),
    (r"^([\s$]{0,9}(?:\\boxed\{)?[A-Za-z])\s?\\approx", r"\1="),
    (r"\{:\}|\\colon(?![A-Za-z])", ":"),
    (r"\\(?:left|right)\s?\.", " "),
    (r"\\(?:tiny|small|large|Large|LARGE|huge|Huge)\b", " "),
    (r"\\underline\s?(?=\{)|\\(?:text)?color\s?\{\w+\}", ""),
    (r"\\(?:begin|end)\s?\{(?:align|aligned|equation|gather|gathered|split)"
     r"\*?\}", " "),
    (r"&\s?(?=[=<>]|\\[lg]eq?\b)", ""),
    (r"\\begin\{cases\}([^&]{0,300}?)(?:\\\\\s?)?\\end\{cases\}",
     lambda m: m[1].replace("\\\\", ", ")),
    (r"\\[lc]?dots\b|\u2026", r"\\dots"),
    (r"\\[lr]brace\b", lambda m: "\\{" if m[0][1] == "l" else "\\}"),
    (r"\\(?:left)?\s?\\?langle\b", "("),
    (r"\\(?:right)?\s?\\?rangle\b", ")"),
    (rf"{_TEXT}\s?\{{\s?((?:[Ff]inal )?[Aa]nswer\s?:?)\s?\}}", r"\1 "),
    (rf"^{_TEXT}\s?\{{[^{{}}]*\bis\s?:?\s?\}}", ""),
    (rf"{_TEXT}\s?\{{\s?,\s?(and|or)\s?\}}", r"\\text{ \1 }"),
    # Commands of the same meaning.
    (r"\\[dtc]frac\b", r"\\frac"),
    (r"\\[dt]binom\b", r"\\binom"),
    (r"\{([^{}]{0,200})\\choose\b([^{}]{0,200})\}", r"\\binom{\1}{\2}"),
    (r"\bC\((\d{1,9}),\s?(\d{1,9})\)", _chosen),
    (r"[_^]\{?(\d+)\}?C_\{?(\d+)\}?", r"\\binom{\1}{\2}"),
    (r"(?<![A-Za-z\\])C_\{?(\d{1,4})\}?\^\{?(\d{1,4})\}?", r"\\binom{\1}{\2}"),
    (r"(?<![A-Za-z\\])C\^\{?(\d{1,4})\}?_\{?(\d{1,4})\}?", r"\\binom{\2}{\1}"),
    (r"\\varnothing\b", r"\\emptyset"),
    (r"^([\s$]{0,9})[a-z]\s?\\neq?\s?\\pm\s?(\d{1,9})(?=[\s$]{0,9}$)",
     r"\1\\mathbb{R}\\setminus\\{-\2,\2\\}"),
    (r"\\backslash\b", r"\\setminus "),
    (r"\\lg\b", r"\\log_{10}"),
    (r"(\\mathbb\s?\{?\s?R\s?\}?)\s?-\s?(?=\\\{)", r"\1\\setminus "),
    (r"(\\log_\s?(?:\d|\{\d{1,4}\})|\\ln)\s?(\d{1,9})\s?"
     r"(?=\\(?:cdot|times)\b)", r"\1(\2)"),
    # The name of a point before its coordinates.
    (r"^([\s$]{0,9})(?:\\text\s?\{\s?)?(?:[Tt]he )?[Pp]oints?\s?\}?[\s$]{0,3}"
     r"(?=[A-Z(\\])", r"\1"),
    (r"^([\s$]{0,9})[A-Z]'?(?:_\{?\d\}?)?"
     r"\s?=?\s?"
     r"(?=(?:\\left\s?)?\([^()]{1,200},[^()]{1,200}\)[\s$.]{0,9}$)", r"\1"),
    (r"\\([lg])eqslant\b", r"\\\1e"),
    (r"\\degrees?\b", r"^\\circ"),
    (rf"\^\s?(?:\{{\s?)?{_TEXT}\s?\{{\s?o\s?\}}\}}?", r"^\\circ"),
    (r"(?<=\d)\^\s?(?:o\b|\{\s?o\s?\})", r"^\\circ"),
    (r"\\log_\s?(?:e\b|\{\s?e\s?\})", r"\\ln "),
    (rf"{_TEXT}\s?\{{\s?([ie])\s?\}}", r"\1"),
    (r"(?<![A-Za-z\\])pi(?![A-Za-z])", r"\\pi "),
    (r"(?<=\d)\s?x\s?(?=10\s?\^)", r"\\cdot "),
    # Styles: a bold number is that number.
    (r"\\(?:mathbf|boldsymbol|bm)\b(?=\s?\{)", ""),
    (r"\\text(?:bf|it|rm)\{\s?([-+\d.,/\s]{1,60})\}", r"\1"),
    # Numbers. Thousands do not begin with 0, so the comma of 0,125 is a point.
    (r"^([\s$]{0,9}(?:\\boxed\{)?\s?-?0),(?=\d{3,20}\s?\}?[\s$]{0,9}$)",
     r"\1."),
    (rf"{_TEXT}\s?\{{\s?(?:percent(?:age)?|pct)\s?\}}", r"\\%"),
    (r"(?:\\[,;:! ]|~)\s?(?=\\?%)", ""),
    (r"(?<![\d.])(\d{1,3})((?:(?:\{,\}|\\,|\\!|,\\!|\\ |~|\{\\,\})\d{3})+)"
     r"(?!\d)", _grouped),
    (r"(?<=\d)\{(?:\.\}(?=\d)|,\}(?=\d{1,2}(?!\w)))", "."),
    (r"(?<![\w.])(\d+(?:\.\d*)?)[eE]([-+]?\d{1,3})(?![\w.])",
     r"\1\\cdot 10^{\2}"),
    (r"(?<![\w.])(\d{0,20})\.(\d{0,20})\\(?:overline|bar|dot)\s?"
     r"\{(\d{1,20})\}(?!\d|\\dot)", _repeating),
    (r"(?<![\w.])(\d{0,20})\.(\d{0,20})\\dot\s?\{(\d)\}(\d{0,20})"
     r"\\dot\s?\{(\d)\}",
     lambda m: _fraction(m[1] or "0", m[2], m[3] + m[4] + m[5])),
    (r"^([\s$]{0,9})(\d{0,20})\.(\d{0,20})\((\d{1,20})\)(?=[\s$.]{0,9}$)",
     lambda m: m[1] + _fraction(m[2] or "0", m[3], m[4])),
    (r"(?<![\w.])(\d{0,20})\.(\d{2,60})\s?(?:\\dots(?![A-Za-z])|\.{2,6})(?!\d)",
     _dotted),
    (rf"(\d)\s?\^?\s?\{{?\s?(?:{_TEXT}\s?\{{\s?)?(?:st|nd|rd|th)\b\s?\}}?\}}?",
     r"\1"),
    (r"(?<![\w.])(\d{1,2})!!(?!\s?!)", _double_factorial),
    # Functions of degrees.
    (r"(\\(?:sin|cos|tan|cot|sec|csc))\s?[({]?\s?(\d+(?:\.\d+)?)\s?"
     r"\^\s?\{?\s?\\circ\s?\}?\s?[)}]?", r"\1(\\frac{\2\\pi}{180})"),
    # Units.
    (rf"{_TEXT}\s?\{{\s?(-?\d[\d,.]{{0,20}})\s"
     r"(?!(?:or|and|to|more|less|at|if|mod)\b)([A-Za-z][a-z ]{1,30})\}",
     r"\1\\text{ \2}"),
    (r"(\^\s?\{?\s?\\circ\s?\}?)\s?(?:\\(?:text|mathrm|mbox)\s?\{\s?)?"
     r"([CF])\b\s?\}?", r"\1\\text{ \2}"),
    (rf"\\frac\s?\{{\s?{_TEXT}\{{([^{{}}]*)\}}\s?\}}\s?"
     rf"\{{\s?{_TEXT}\{{([^{{}}]*)\}}\s?\}}", r"\\text{ \1/\2}"),
    (r"\\(?:textdollar|pounds|euro)\b|[\u20ac\u00a3\u00a5\u20b9]|\\\$", ""),
    (r"\b(?:USD|EUR|GBP)\s?(?=\d)", ""),
    (r"\\mathbb\s?\{?R\}?\s?\^\s?\{?\+\}?", r"(0,\\infty)"),
    # In a matrix, d is an entry and not a differential.
    (r"(?<![A-Za-z\\])d\s?(?=\\(?:end\b|\\)|&)", "{d}"),
    # After k pi, "k in Z" adds nothing.
    (rf"(?<=[\w)}}])\s?[,;]?\s?(?:{_TEXT}\{{[^{{}}]*\}}|for|where|with)?\s?\(?"
     r"[a-z]\s?\\in\s?\\mathbb\s?\{?\s?[ZN]\}?\)?(?=\$?$)", ""),
    # "x is in" a set means the set.
    (r"^([\s$(]{0,9})[A-Za-z]\s?\\in\s?(?=\(|\[|\\\{|\\left|\\mathbb)", r"\1"),
    # A unit at the end of a sentence.
    (r"(?<=[a-z] )(-?\d[\d,.]{0,20})\s?(?:[cmk]?m|ft|in)\^\{?[23]\}?"
     r"(?=[\s.]{0,9}$)", r"\1"),
    # A unit after a closed form.
    (r"(\\pi|\})\s((?:(?:square|cubic|sq\.?|cu\.?) )?[A-Za-z]{1,12})"
     r"(\^\{?[23]\}?)?(?=[\s.$]{0,9}$)", _unit_as_text),
    # Ends of sentences and lines.
    (r"(?<!\\)(?:[\s.,;:]|(?<!\\)\\(?:\s|$)|\\\\(?=\s?$)){1,40}$", ""),
    (r"(?<!\\)(?:[\s.,;:]|\\\s){1,40}(?=\${0,2}$)", ""),
  )
)  # fmt: skip
_OVER = re.compile(
  r"\{([^{}]{0,200})\\over\b([^{}]{0,200})\}|^([^{}]{0,200})\\over\b([^{}]{0,200})$"
)


def spelled(text: str) -> str:
  """A text whose characters, functions and arguments are those of LaTeX.

  Args:
    text: any text; currencies stay.
  """
  text = programs.to_latex(characters.to_latex(text))
  text = re.sub(r"(?<![A-Za-z])per\s?cent(?![A-Za-z])", "percent", text)
  return commands.braced_arguments(text)


def clean(text: str) -> str:
  """The end of a text in one spelling.

  Args:
    text: an answer, or a text that ends in one.
  """
  text = unwrapped(spelled(tail(text)))
  for pattern, by in _REWRITTEN:
    text = pattern.sub(by, text)
  text = _OVER.sub(
    lambda m: f"\\frac{{{m[1] or m[3]}}}{{{m[2] or m[4]}}}", text
  )
  if not text.isascii():
    # No grader would accept the digits of other scripts.
    text = "".join(c if c.isascii() or not c.isdigit() else "?" for c in text)
  text = _unboxed(_last_boxes(text))
  if "\\boxed" in text:
    return text
  return sets.canonical(words.symbol_of(text))


_WRAPS = (
  ("\\(", "\\)"), ("\\[", "\\]"), ("$$", "$$"), ("$", "$"), ('"', '"'),
  ("'", "'"), ("`", "`"), ("``", "''"),
)  # fmt: skip


_ANSWER = re.compile(
  r"\A\s{0,9}(?:the )?(?:final |correct )?(?:answer|option|choice)"
  r"(?: is:?|:)\s{1,3}", re.IGNORECASE,
)  # fmt: skip


def unwrapped(text: str) -> str:
  """A text without the dollars and the box around all of it.

  What is before a box does not count; what follows it does.

  Args:
    text: LaTeX.
  """
  for _ in range(4):
    before = text
    text = text.strip()
    bare = text.rstrip(".").rstrip()
    for opening, end in _WRAPS:
      inner = bare[len(opening) : -len(end)]
      if (
        bare.startswith(opening) and bare.endswith(end)
        and inner and opening not in inner
        and not inner.endswith("\\") and end not in inner
      ):  # fmt: skip
        text = inner
        break
    text = _unboxed(text)
    if len(text) < 100:  # a longer text may go on after the answer
      text = _ANSWER.sub("", text)
    if text == before:
      break
  return text


def _unboxed(text):
  """The text in a box, if it is the only one and nothing follows it."""
  if text.count("\\boxed{") != 1:
    return text
  at = text.index("\\boxed{") + len("\\boxed")
  inner = braced(text, at)
  if inner is None or text[at + len(inner) + 2 :].strip(" .$\n"):
    return text
  return inner


# "apples and", "for part (a) or", but not "is wrong and".
_NAMED = (
  r"(?:(?!(?:is|was|not|wrong|but|so|thus|hence|then|instead)\b)"
  r"(?:[a-z]{1,12}|\([a-z0-9]\)),?\s){0,4}"
)
_BETWEEN = re.compile(
  rf"[\s$,;.()\[\]\\]{{0,40}}(?:{_NAMED}(?:and|or)"
  rf"|\\text\s?\{{\s?{_NAMED},?\s?(?:and|or)\s?\}})?"
  r"[\s$,;()\[\]\\]{0,40}(?:[A-Za-z](?:_\{?\w{1,3}\}?)?\s?=[\s$]{0,9})?"
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


def tail(text: str) -> str:
  """The part of a text that has the answer, as long as allowed.

  Args:
    text: a text of any length.
  """
  if len(text) > guard.MAX_CHARACTERS:
    text = _last_part(text)
  # The patterns below allow one space, where any may be.
  text = re.sub(r"[ \t\r]+", " ", text)
  return re.sub(r"(?<!\s)(\s{3})\s+", r"\1", text)


def _last_part(text):
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
