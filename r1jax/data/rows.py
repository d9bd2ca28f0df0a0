"""Rows of files of data, each with its place, and the faults among them."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from r1jax.errors import UserError

# Faults that an error lists; of those after them it says the number.
SHOWN = 20
# Characters of a fault that are shown.
WIDTH = 500


class Row(NamedTuple):
  """A row of a file of data.

  Attributes:
    where: its place for people, FILE:LINE or "FILE: row N", counted from 1.
    id: FILE:LINE without directories, the same on every machine.
    values: column -> value, of the types of JSON.
    columns: the names of all columns, also of those that were not read.
  """

  where: str
  id: str
  values: dict[str, Any]
  columns: Sequence[str]


class Faults:
  """Collects the faults of a file, so that one error lists them all.

  Attributes:
    count: faults so far.
  """

  def __init__(self) -> None:
    self._first: list[str] = []
    self.count = 0

  def add(self, where: str, what: str) -> None:
    """Notes a fault.

    Args:
      where: as in `Row`.
      what: what is wrong, and the way out.
    """
    self.count += 1
    if len(self._first) < SHOWN:
      self._first.append(one_line(f"{where}: {what}"))

  def check(self) -> None:
    """Raises a `UserError` with a line a fault, if there is any."""
    if not self.count:
      return
    lines, more = list(self._first), self.count - len(self._first)
    if more:
      lines.append(f"... and {more} more, {self.count} faults in all")
    raise UserError("\n".join(lines))


def one_line(text: str) -> str:
  """A text as a message shows it: one line, printable, not too long.

  Args:
    text: that may quote anything that a file holds.
  """
  text = " ".join(text[: 4 * WIDTH].split())
  text = "".join(c if c.isprintable() else "\ufffd" for c in text)
  return text if len(text) <= WIDTH else text[: WIDTH - 3] + "..."
