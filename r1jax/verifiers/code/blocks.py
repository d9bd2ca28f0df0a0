"""The program in a completion: which of its fenced blocks counts.

Blocks are those of CommonMark, with what people and models write besides: text
before the opening fence, a closing fence on the last line of the code, and a
block that is not closed before the next one opens.
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

from r1jax.text import think_format

# What a fence may call a language, without the digits at its end.
_NAMES = dict.fromkeys(("python", "py", "pypy", "cpython", "ipython"), "python")
_NAMES |= dict.fromkeys(("cpp", "c++", "cc", "cxx", "gnu++"), "cpp")
_MARKDOWN = ("md", "markdown")
# Indentation, a quote's or list's mark, the fence, and the text after it.
_FENCE = re.compile(
  r"\A([ \t]*(?:>[ \t]?)?(?:(?:[-*+]|\d{1,9}[.)])[ \t]+)?)"
  r"(`{3,}+|~{3,}+)([^`]*)$"
)
_MARK = re.compile(r"\{?\.?([a-z+]+)[\d.]*")
# A fence with this much more white space before it than the opening one is
# code, as in CommonMark.
_DEEPER = 4


class _Fence(NamedTuple):
  """A line with a fence; `column` is where the fence begins."""

  column: int
  mark: str
  info: str
  bare: bool
  quoted: bool = False


class _Block:
  """A block that is open, and the lines in it."""

  def __init__(self, fence: _Fence):
    self.fence = fence
    self.lines: list[str] = []
    self.nested: int | None = None  # column of a fence in the code
    self.loose: int | None = None  # lines before a fence that may close it

  def closes(self, fence):
    """Whether a fence is the end of this block; else it is code."""
    if fence.info or fence.mark[0] != self.fence.mark[0]:
      return False
    if not fence.bare or len(fence.mark) < len(self.fence.mark):
      return False
    if fence.column == self.nested:
      self.nested = None
      return False
    if fence.column >= self.fence.column + _DEEPER:
      if self.loose is None:
        self.loose = len(self.lines)
      return False
    return True

  def replaced_by(self, fence):
    """Whether a fence opens the next block though this one is open."""
    if not _language(fence.info) or len(fence.mark) < len(self.fence.mark):
      return False
    if fence.mark[0] == self.fence.mark[0]:
      if fence.column <= self.fence.column:
        return True
      self.nested = fence.column
    return False


def fenced_code(completion: str, language: str) -> str | None:
  """The code that counts, of those between closed fences after the thinking.

  It is the last block that is marked with the language. Without such a block
  it is the last that has no mark. Blocks with other marks and empty ones do not
  count, and text without fences is no program.

  Args:
    completion: the text that the policy wrote.
    language: one of `programs.LANGUAGES`.

  Returns:
    str that ends with a line break; None if there is no such block.
  """
  text = think_format.after_thinking(completion)
  # The answer tags are often on the lines of the fences.
  fence = "(?:```|~~~)"
  text = re.sub(rf"{think_format.ANSWER}[ \t]*(?={fence})", "\n", text)
  text = re.sub(rf"(?<=```)[ \t]*{think_format.END_ANSWER}", "\n", text)
  text = re.sub(rf"(?<=~~~)[ \t]*{think_format.END_ANSWER}", "\n", text)
  marked = plain = None
  for info, lines in _all_blocks(text.split("\n")):
    if not any(line.strip() for line in lines):
      continue
    if _language(info) == language:
      marked = lines
    elif not info:
      plain = lines
  lines = plain if marked is None else marked
  return None if lines is None else "\n".join(_dedent(lines)) + "\n"


def _all_blocks(lines):
  """(mark, lines) of each block, and of those in blocks of Markdown."""
  for info, inside in _blocks(lines):
    if _word(info) in _MARKDOWN:
      yield from _blocks(inside)
    else:
      yield info, inside


def _blocks(lines) -> Iterator[tuple[str, list[str]]]:
  """(text after the fence, lines) of each closed block, in one pass."""
  block: _Block | None = None
  for line in lines:
    line = line.rstrip("\r")
    fence = _fence(line)
    if block is None:
      if fence is None:
        continue
      # Code on the line of its own fences.
      if not (whole := _one_line(line)):
        block = _Block(fence)
      else:
        yield whole
      continue
    if fence and block.closes(fence):
      yield block.fence.info, block.lines
      block = None
    elif fence and block.replaced_by(fence):
      yield from _half_closed(block)
      block = _Block(fence)
    elif (last := _closed_code(line, block.fence)) is not None:
      yield block.fence.info, [*block.lines, last]
      block = None
    else:
      block.lines.append(_unquoted(line, block.fence))
  if block:
    yield from _half_closed(block)


def _half_closed(block):
  if block.loose is not None:
    yield block.fence.info, block.lines[: block.loose]


def _fence(line) -> _Fence | None:
  if "```" not in line and "~~~" not in line:
    return None
  line = line.rstrip()
  if match := _FENCE.match(line):
    before, mark, info = match.groups()
    bare = not before.strip(" \t>")
    return _Fence(len(before), mark, info.strip(), bare, ">" in before)
  # Text before a fence counts only if the fence names a language.
  before, _, info = line.rpartition("```")
  before = before.rstrip("`")
  if (
    "```" not in before
    and _language(info)
    and _MARK.fullmatch(info.strip().lower())
  ):
    return _Fence(0, "```", info.strip(), False)
  if _one_line(line):
    return _Fence(0, "```", "", False)
  return None


def _one_line(line):
  """(mark, [code]) of a line such as "```python print(1)```", or None."""
  line = line.strip()
  if not line.startswith("```") or not line.endswith("```"):
    return None
  words = line.strip("`").split(None, 1)
  if len(words) < 2 or not _language(words[0]) or "```" in words[1]:
    return None
  return words[0], [words[1]]


def _closed_code(line, fence):
  """The code before a closing fence on its last line, or None."""
  line = line.rstrip()
  sign = fence.mark[0]
  if not line.endswith(fence.mark):
    return None
  code = line.rstrip(sign)
  return code.rstrip() if code.strip() and 3 * sign not in code else None


def _unquoted(line, fence):
  """A line of a quoted block without the mark of the quote."""
  text = line.lstrip()
  if not fence.quoted or not text.startswith(">"):
    return line
  return text[2:] if text[1:2] == " " else text[1:]


def _language(info):
  """The language that the text after a fence names, or None."""
  return _NAMES.get(_word(info))


def _word(info):
  match = _MARK.match(info.strip().lower())
  return match[1] if match else ""


def _dedent(lines):
  """The lines without the indentation of the first one that is code."""
  first = next(
    (line for line in lines if line.strip() and line.lstrip()[0] != "#"), ""
  )
  width = len(first) - len(first.lstrip())
  return [line[_indent(line, width) :] for line in lines]


def _indent(line, most):
  """Number of characters of white space that begin a line, up to `most`."""
  return min(most, len(line) - len(line.lstrip(" \t")))
