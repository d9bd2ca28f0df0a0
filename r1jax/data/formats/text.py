"""Text: arrays of JSON, and tables of comma or tab separated values."""

import csv
import io
from collections.abc import Collection, Iterator
from pathlib import Path

from r1jax.data import jsonl
from r1jax.data.rows import Faults, Row
from r1jax.errors import UserError


def array(
  path: str, columns: Collection[str] | None, faults: Faults
) -> Iterator[Row]:
  """The objects of a file that is an array of JSON, an object, or JSON lines.

  Args:
    path: of the file.
    columns: not used.
    faults: gets the items that are no objects.

  Yields:
    `Row`, whose place is "FILE: row N".

  Raises:
    UserError: the file is no JSON.
  """
  with jsonl.opened(path) as file:
    data = file.read()
  try:
    items = jsonl.loads(jsonl.decode(data).strip())
  except UserError as e:
    if data.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"["):
      raise UserError(f"{path}: {e}") from None
    # Many files of JSON lines are called .json.
    yield from jsonl.rows(path, faults)
    return
  items = items if isinstance(items, list) else [items]
  for number, item in enumerate(items, 1):
    where = f"{path}: row {number}"
    if isinstance(item, dict):
      yield Row(where, f"{Path(path).name}:{number}", item, list(item))
    else:
      faults.unread(
        where, f"a JSON object was expected, not {type(item).__name__}"
      )


def table(
  path: str, columns: Collection[str] | None, faults: Faults
) -> Iterator[Row]:
  """The rows of a .csv or .tsv file, whose first line names the columns.

  Args:
    path: of the file.
    columns: not used.
    faults: gets the rows with more or fewer cells than the first line.

  Yields:
    `Row`, whose values are text.

  Raises:
    UserError: the file cannot be read, or has no line of names.
  """
  tabs = ".tsv" in Path(path).suffixes
  # A cell may hold a whole program; the library's limit is 128 KiB.
  csv.field_size_limit(1 << 30)
  with jsonl.opened(path) as file:
    # Bytes that are not UTF-8 become halves of surrogate pairs, so that the
    # line is known.
    lines = io.TextIOWrapper(file, "utf-8-sig", "surrogateescape", newline="")
    reader = csv.reader(lines, strict=True, delimiter="\t" if tabs else ",")
    names: list[str] = []
    line = 1
    try:
      for cells in reader:
        where, line = f"{path}:{line}", reader.line_num + 1
        if not "".join(cells).strip():
          continue
        fault = _fault(cells, names)
        if fault and not names:
          raise UserError(f"{where}: {fault}")
        if fault:
          faults.unread(where, fault)
        elif names:
          id = f"{Path(path).name}:{where.rpartition(':')[2]}"
          yield Row(where, id, dict(zip(names, cells)), names)
        names = names or cells
    except csv.Error as e:
      raise UserError(f"{path}:{line}: not {Path(path).suffix}: {e}") from None


def _fault(cells, names):
  """What is wrong with a row of cells, or None; the first row has names."""
  if any(0xDC80 <= ord(c) <= 0xDCFF for cell in cells for c in cell):
    return "not UTF-8; save the file as UTF-8"
  if not names:
    twice = len(set(cells)) < len(cells)
    return "two columns have the same name" if twice else None
  if len(cells) != len(names):
    return f"{len(cells)} cells, but the first line names {len(names)} columns"
  return None
