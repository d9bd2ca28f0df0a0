"""Mathematics as programs write it: sqrt(2), ln(5), 2**12, x^(n+1)."""

import re

_FUNCTIONS = (
  "arcsinh", "arccosh", "arctanh", "arcsin", "arccos", "arctan", "arccot",
  "arcsec", "arccsc", "sinh", "cosh", "tanh", "coth", "sin", "cos", "tan",
  "cot", "sec", "csc", "ln", "log", "lg", "exp",
)  # fmt: skip
_OTHER = {
  "asin": "arcsin", "acos": "arccos", "atan": "arctan", "tg": "tan",
  "ctg": "cot", "cotan": "cot", "cosec": "csc", "arctg": "arctan",
  "arcctg": "arccot",
}  # fmt: skip
_CALLED = ("max", "min", "gcd", "lcm")
_BEFORE = r"(?<![A-Za-z\\])"
_STYLED = re.compile(
  r"\\operatorname\*?\s?\{\s{0,3}("
  + "|".join((*_FUNCTIONS, *_OTHER, *_CALLED)) + r")\s{0,3}\}"
  # In a text, "sec" and "min" are units.
  r"|\\(?:mathrm|text|mathit|rm)\s?\{\s{0,3}("
  + "|".join(f for f in (*_FUNCTIONS, *_OTHER) if f != "sec") + r")\s{0,3}\}"
)  # fmt: skip
_COMMAND = re.compile(r"\\(" + "|".join(_OTHER) + r")(?![A-Za-z])")
_NAMED = re.compile(
  _BEFORE + "(" + "|".join((*_FUNCTIONS, *_OTHER)) + ")"
  r"(?![A-Za-z])(?=\s{0,3}(?:(?<!sec)(?<!sec )\d|[({\[|^\\]|_[\d{]"
  r"|[A-Za-z](?![A-Za-z])))"
)  # fmt: skip
_BASED = re.compile(_BEFORE + r"\\?log\s?(2|10)\s?\(")
_CALL = re.compile(_BEFORE + "(" + "|".join(_CALLED) + r")\(")
_SQRT = re.compile(r"(?<![A-Za-z\\])sqrt\s?(?:(\d+)|(?=\{))")
_GREEK = re.compile(
  r"(?<![A-Za-z\\{])(alpha|beta|theta|lambda|phi|omega|mu|sigma)(?![A-Za-z}])"
)
_WRAPPED = (
  (re.compile(r"(?<![A-Za-z])\\?sqrt\s?\("), "\\sqrt{", "}"),
  (re.compile(r"(?<![A-Za-z\\])cbrt\s?\("), "\\sqrt[3]{", "}"),
  (re.compile(r"\\sqrt\[\d\] ?\("), None, "}"),
  (re.compile(r"(?<![A-Za-z\\])abs\("), "\\left|", "\\right|"),
  (re.compile(r"(?<![A-Za-z\\])floor\("), "\\lfloor ", "\\rfloor "),
  (re.compile(r"(?<![A-Za-z\\])ceil\("), "\\lceil ", "\\rceil "),
  (re.compile(r"\^\s?\("), "^{", "}"),
)
_BOLD = re.compile(r"(?<![\w)\]}*])\*\*([^*\n]{1,300})\*\*(?![\w({\\*])")
_EXPONENT = re.compile(r"\s?(-?\d+(?:\.\d+)?|-?[A-Za-z](?![A-Za-z]))")
_NEGATIVE = re.compile(r"\^\s?(-\d+|-[A-Za-z](?![A-Za-z]))")
# More calls or powers than this are no answer.
_MOST = 24


def to_latex(text: str) -> str:
  """A text whose functions and powers are those of LaTeX.

  Args:
    text: such as "3*x**2", "arctan(1/3)", "sqrt(2)/2".
  """
  text = _powers(_BOLD.sub(r"\1", text))
  for pattern, opening, closing in _WRAPPED:
    text = _wrap(text, pattern, opening, closing)
  text = _NEGATIVE.sub(r"^{\1}", text)
  text = _STYLED.sub(lambda m: _command(m[1] or m[2]), text)
  text = _COMMAND.sub(lambda m: f"\\{_OTHER[m[1]]} ", text)
  text = _BASED.sub(r"\\log_{\1}(", text)
  text = _CALL.sub(r"\\\1(", text)
  text = _NAMED.sub(lambda m: _command(m[0]), text)
  text = _SQRT.sub(lambda m: f"\\sqrt{{{m[1]}}}" if m[1] else "\\sqrt", text)
  return _GREEK.sub(r"\\\1 ", text)


def _powers(text):
  """2**12 as 2^{12}; powers of powers from the right."""
  if text.count("**") > _MOST:
    return text
  while (at := text.rfind("**")) >= 0:
    before, after = text[:at].rstrip(), text[at + 2 :]
    match = _EXPONENT.match(after)
    if match:
      exponent, rest = match[1], after[match.end() :]
    elif after.lstrip()[:1] in ("(", "{"):
      after = after.lstrip()
      end = closing(after, 0)
      if end is None:
        return text
      exponent, rest = after[1:end], after[end + 1 :]
    else:
      return text
    if rest[:2] == "^{":
      # The exponent is a power itself, made in an earlier turn.
      end = closing(rest, 1)
      if end is None:
        return text
      exponent, rest = exponent + rest[: end + 1], rest[end + 1 :]
    text = f"{before}^{{{exponent}}}{rest}"
  return text


def _wrap(text, pattern, opening, end):
  """Replaces the brackets of each call by those of LaTeX."""
  for _ in range(_MOST):
    match = pattern.search(text)
    if not match:
      return text
    close = closing(text, match.end() - 1)
    if close is None:
      return text
    begin = opening or match[0][:-1].rstrip() + "{"
    inner = text[match.end() : close]
    text = text[: match.start()] + begin + inner + end + text[close + 1 :]
  return text


def closing(text: str, at: int) -> int | None:
  """The index of the bracket that closes the one at an index, or None.

  Args:
    text: any text.
    at: the index of "(", "[" or "{".
  """
  opened, pair = text[at], {"(": ")", "[": "]", "{": "}"}
  depth = 0
  for i in range(at, len(text)):
    depth += (text[i] == opened) - (text[i] == pair.get(opened))
    if depth == 0:
      return i
  return None


def _command(name):
  return f"\\{_OTHER.get(name, name)} "
