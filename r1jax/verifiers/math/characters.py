"""Unicode's mathematics as LaTeX: raised digits, fractions, roots, signs."""

import re
import unicodedata

_SIGNS = {
  "\u2212": "-", "\u2013": "-", "\u2014": "-", "\ufe63": "-", "\u2044": "/",
  "\u2215": "/", "\u00d7": "*", "\u2217": "*", "\u00f7": "/",
  "\u00b7": "\\cdot ", "\u22c5": "\\cdot ", "\u2219": "\\cdot ",
  "\u2264": "\\le ", "\u2265": "\\ge ", "\u2a7d": "\\le ",
  "\u2a7e": "\\ge ", "\u2266": "\\le ", "\u2267": "\\ge ",
  "\u2260": "\\ne ", "\u222a": "\\cup ", "\u2229": "\\cap ",
  "\u2208": "\\in ", "\u2209": "\\notin ", "\u2205": "\\emptyset ",
  "\u00d8": "\\emptyset ", "\u2216": "\\setminus ", "\u211d": "\\mathbb{R}",
  "\u2124": "\\mathbb{Z}", "\u2115": "\\mathbb{N}", "\u211a": "\\mathbb{Q}",
  "\u2102": "\\mathbb{C}", "\u00b1": "\\pm ", "\u2213": "\\mp ",
  "\u2261": "\\equiv ", "\u2248": "\\approx ", "\u2243": "\\approx ",
  "\u2245": "\\approx ", "\u223c": "\\sim ", "\u221e": "\\infty ",
  "\u00b0": "^\\circ ", "\u2103": "^\\circ C", "\u2109": "^\\circ F",
  "\u2032": "'", "\u2033": "''", "\u2018": "'", "\u2019": "'",
  "\u201c": '"', "\u201d": '"', "\u27e8": "\\langle ",
  "\u27e9": "\\rangle ", "\u2329": "\\langle ", "\u232a": "\\rangle ",
  "\u230a": "\\lfloor ", "\u230b": "\\rfloor ", "\u2308": "\\lceil ",
  "\u2309": "\\rceil ", "\u2223": "|", "\u2220": "\\angle ",
  "\u25b3": "\\triangle ", "\u2227": "\\wedge ", "\u2228": "\\vee ",
  "\u2211": "\\sum ", "\u220f": "\\prod ", "\u222b": "\\int ",
  "\u2236": ":", "\u2192": "\\to ", "\u22ef": "\\dots ",
  "\u2026": "\\dots ", "\u00a2": " cents", "\uff0c": ",", "\uff08": "(",
  "\uff09": ")", "\uff1a": ":", "\uff1b": ";", "\u3002": ".",
  "\u3001": ",", "\uff0e": ".", "\uff05": "%", "\uff1d": "=",
  "\uff0b": "+", "\uff0d": "-", "\u00a0": " ", "\u2002": " ",
  "\u2003": " ", "\u2009": " ", "\u200a": " ", "\u202f": " ",
  "\u3000": " ", "\u200b": None, "\u2060": None, "\u2061": None,
  "\u2062": None, "\u2063": None, "\ufeff": None, "\ufe0f": None,
}  # fmt: skip
_GREEK = (
  "alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta",
  "iota", "kappa", "lambda", "mu", "nu", "xi", None, "pi", "rho", None,
  "sigma", "tau", "upsilon", "phi", "chi", "psi", "omega",
)  # fmt: skip
_UPPER = ("Gamma", "Delta", "Theta", "Lambda", "Xi", "Pi", "Sigma", "Phi",
          "Psi", "Omega")  # fmt: skip


def _table():
  table: dict[int, str | None] = {ord(k): v for k, v in _SIGNS.items()}
  for i, name in enumerate(_GREEK):
    if name:
      table[0x3B1 + i] = f"\\{name} "
      if name.capitalize() in _UPPER:
        table[0x391 + i] = f"\\{name.capitalize()} "
  table |= {0x3D5: "\\phi ", 0x3F5: "\\epsilon ", 0x3D1: "\\theta "}
  # Letters in mathematical alphabets, such as an italic x.
  for code in (*range(0x1D400, 0x1D7CC), 0x210E, 0x2113):
    letter = unicodedata.normalize("NFKC", chr(code))
    if letter.isascii() and letter.isalpha():
      table[code] = letter
  # Vulgar fractions: 1/8 in one character.
  for code in (*range(0xBC, 0xBF), *range(0x2150, 0x215F), 0x2189):
    top, bottom = unicodedata.normalize("NFKC", chr(code)).split("\u2044")
    table[code] = f"\\frac{{{top}}}{{{bottom}}}"
  return table


_TABLE = _table()
_RAISED = "\u2070\u00b9\u00b2\u00b3\u2074\u2075\u2076\u2077\u2078\u2079"
_LOWERED = "".join(map(chr, range(0x2080, 0x208A)))
_AS_RAISED = dict(
  zip(_RAISED + "\u207a\u207b\u207d\u207e\u207f\u2071\u02e3\u02b8",
      "0123456789+-()nixy")
)  # fmt: skip
_AS_LOWERED = dict(zip(_LOWERED + "\u208a\u208b\u2099\u2090\u1d62\u2096",
                       "0123456789+-naik"))  # fmt: skip
_SCRIPTS = str.maketrans(_AS_RAISED | _AS_LOWERED)
_FRACTION = re.compile(rf"([{_RAISED}]{{1,40}})[\u2044/]([{_LOWERED}]{{1,40}})")
_ROOT = re.compile("(?<![\\w)}\\]])([\u00b2\u00b3\u2074-\u2079])\u221a")
_UP = re.compile(f"[{''.join(map(re.escape, _AS_RAISED))}]+")
_DOWN = re.compile(f"[{''.join(map(re.escape, _AS_LOWERED))}]+")
_ROOTS = {
  "\u221a": "\\sqrt ", "\u221b": "\\sqrt[3] ", "\u221c": "\\sqrt[4] ",
}  # fmt: skip
_RADICAND = re.compile(r"\s?(\d+(?:\.\d+)?|[A-Za-z])")
_OVERLINED = re.compile("((?:\\d[\u0305\u0304])+)")


def to_latex(text: str) -> str:
  """A text with Unicode's mathematical characters as LaTeX.

  Raised digits stay together: 10 with the raised digits 2 and 1 is 10^{21}.

  Args:
    text: any text.
  """
  if text.isascii():
    return text
  text = _OVERLINED.sub(
    lambda m: "\\overline{" + re.sub(r"\D", "", m[1]) + "}", text
  )
  text = _FRACTION.sub(
    lambda m: f"\\frac{{{m[1]}}}{{{m[2]}}}".translate(_SCRIPTS), text
  )
  text = _ROOT.sub(lambda m: f"\\sqrt[{m[1]}] ".translate(_SCRIPTS), text)
  text = _UP.sub(lambda m: f"^{{{m[0]}}}".translate(_SCRIPTS), text)
  text = _DOWN.sub(lambda m: f"_{{{m[0]}}}".translate(_SCRIPTS), text)
  text = _under_roots(text)
  return text.translate(_TABLE)


def _under_roots(text):
  """Roots as commands; a whole number or a bracket is under the root."""
  parts = re.split("([\u221a-\u221c])", text)
  made = [parts[0]]
  for sign, rest in zip(parts[1::2], parts[2::2]):
    root = _ROOTS[sign]
    match = _RADICAND.match(rest)
    if match:
      rest = f"{{{match[1]}}}{rest[match.end() :]}"
    made += [root, rest]
  return "".join(made)
