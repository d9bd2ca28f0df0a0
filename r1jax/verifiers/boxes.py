"""The boxes of a text: where `\\boxed{}` and `\\fbox{}` are, in linear time."""

import re
from typing import NamedTuple

_MARK = re.compile(
  r"\\(?:boxed|fbox)(?:\s{0,3}(?P<open>\{)|\s{1,3}(?P<bare>[A-Za-z0-9])(?!\w))"
  r"|\\[\\{}]|(?P<brace>[{}])"
)


class Box(NamedTuple):
  """A box and what it holds, as indices of the text.

  Attributes:
    start: of the box, at its backslash.
    end: after the box.
    inner_start: of what it holds.
    inner_end: after what it holds.
  """

  start: int
  end: int
  inner_start: int
  inner_end: int

  def of(self, text: str) -> str:
    """What the box holds."""
    return text[self.inner_start : self.inner_end]


def boxes(text: str) -> list[Box]:
  """The boxes that are closed and in no other box, in their order.

  Args:
    text: any text. `\\boxed C` counts as `\\boxed{C}`, for one character.
  """
  found: list[Box] = []
  opened: list[tuple[int, int | None]] = []
  for mark in _MARK.finditer(text):
    if mark["bare"]:
      found.append(Box(mark.start(), mark.end(), *mark.span("bare")))
    elif mark["open"]:
      opened.append((mark.start(), mark.end()))
    elif mark["brace"] == "{":
      opened.append((mark.start(), None))
    elif mark["brace"] and opened:
      start, inner = opened.pop()
      if inner is not None:
        while found and found[-1].start > start:
          found.pop()
        found.append(Box(start, mark.end(), inner, mark.start()))
  return found
