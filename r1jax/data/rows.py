"""Rows of files of data, each with its place, and the faults among them."""

import re
from collections.abc import Sequence
from pathlib import Path
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

  Args:
    path: of the file.

  Attributes:
    rows: of the file so far. Who uses rows counts them, `unread` the others.
    count: faults so far.
  """

  def __init__(self, path: str | Path = "") -> None:
    self.rows, self.count, self._unread = 0, 0, 0
    self._path = path
    self._first: list[tuple[str, str]] = []
    self._lacking: dict[str, tuple[int, str]] = {}

  def add(self, where: str, what: str, column: str = "") -> None:
    """Notes a fault.

    Args:
      where: as in `Row`.
      what: what is wrong, and the way out.
      column: the column that the row lacks, if that is the fault.
    """
    self.count += 1
    if len(self._first) < SHOWN:
      self._first.append((where, what))
    if column:
      lacking, _ = self._lacking.get(column, (0, ""))
      self._lacking[column] = lacking + 1, what

  def unread(self, where: str, what: str) -> None:
    """As `add`, of a row that cannot be read and is not used."""
    self.add(where, what)
    self.rows += 1
    self._unread += 1

  def check_columns(self) -> None:
    """Raises a `UserError` if all rows lack a column, which is said once."""
    for lacking, what in self._lacking.values():
      if 1 < lacking == self.rows - self._unread:
        raise UserError(one_line(f"{self._path}: {what}"))

  def check(self) -> None:
    """Raises a `UserError` with a line a fault, if there is any."""
    self.check_columns()
    if self.count:
      raise UserError(self.text())

  def text(self) -> str:
    """The faults, a line each."""
    self._first.sort(key=lambda fault: _by_number(fault[0]))
    lines = [one_line(f"{where}: {what}") for where, what in self._first]
    if more := self.count - len(lines):
      lines.append(f"... and {more} more, {self.count} faults in all")
    return "\n".join(lines)


def _by_number(where):
  """A key that sorts line 9 before line 10."""
  return [int(x) if x.isdecimal() else x for x in re.split(r"(\d+)", where)]


def one_line(text: str) -> str:
  """A text as a message shows it: one line, printable, not too long.

  Args:
    text: that may quote anything that a file holds.
  """
  text = " ".join(text[: 4 * WIDTH].split())
  text = "".join(c if c.isprintable() else "\ufffd" for c in text)
  return text if len(text) <= WIDTH else text[: WIDTH - 3] + "..."
