"""A text without its formulas, code and addresses, in linear time."""

import re

# Opening mark -> the mark that closes it, and one that must not come before.
_PAIRS = {
  "```": ("```", None),
  "~~~": ("~~~", None),
  "`": ("`", "\n"),
  "$$": ("$$", None),
  "$": ("$", "\n"),
  "\\(": ("\\)", "\\("),
  "\\[": ("\\]", "\\["),
}
_FENCES = ("```", "~~~")
_OPENER = re.compile(
  r"```|^[ \t]{0,3}(~~~)|`|\$\$|\$|\\[(\[]|\\\\"
  r"|\\begin\{((?:align|equation|gather|multline|cases|array|eqnarray|split"
  r"|[bpvBV]?matrix)(?:at|ed)?\*?)\}",
  re.MULTILINE,
)
_ADDRESS = re.compile(
  r"https?://[!-~]+|www\.[!-~]+|(?<![!-~])[!-~]{1,64}@[!-~]+", re.IGNORECASE
)
_TAG = re.compile(
  r"</?\w+>|\\(?:math[a-z]{2,4}|operatorname|ref|label|tag)\s?\{[^{}\n]{0,40}\}"
  r"|\\(?:begin|end)\{\w+\*?\}|\\[A-Za-z]+"
)


class _Finder:
  """Where a mark comes next; all searches of one text take linear time."""

  def __init__(self, text):
    self._text = text
    self._at = {}

  def find(self, mark, start):
    """The first index of a mark from `start` on, which never falls; or -1."""
    at = self._at.get(mark, 0)
    if at >= 0 and (mark not in self._at or at < start):
      at = self._at[mark] = self._text.find(mark, start)
    return at


def without(text: str) -> str:
  """A text with spaces in the place of what is no language.

  Fenced and inline code, formulas between dollars or brackets of LaTeX or in
  its environments, addresses, tags and commands. A formula between single
  dollars and inline code are on one line. An open fence has no end.

  Args:
    text: Markdown and LaTeX.
  """
  finder, kept, at, search = _Finder(text), [], 0, 0
  while match := _OPENER.search(text, search):
    search = match.end()
    mark = match[1] or match[0]
    if mark == "\\\\":  # a new line of LaTeX
      continue
    close, never = _PAIRS.get(mark, (f"\\end{{{match[2]}}}", None))
    end = finder.find(close, search)
    if end < 0 and mark not in _FENCES:
      continue
    if never and -1 < finder.find(never, search) < end:
      continue
    kept.append(text[at : match.start()])
    at = search = end + len(close) if end >= 0 else len(text)
  kept.append(text[at:])
  return _TAG.sub(" ", _ADDRESS.sub(" ", " ".join(kept)))
