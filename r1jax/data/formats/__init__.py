"""Formats of files and directories of data, each read row by row."""

import glob
import itertools
import os
from collections.abc import Collection, Iterator
from pathlib import Path

from r1jax.data import jsonl
from r1jax.data.formats import directories, records, tables, text
from r1jax.data.rows import Faults, Row
from r1jax.errors import UserError

# End of a file's name -> function (path, columns, faults) -> `Row`s.
FORMATS = {
  ".jsonl": lambda path, columns, faults: jsonl.rows(path, faults),
  ".ndjson": lambda path, columns, faults: jsonl.rows(path, faults),
  ".json": text.array,
  ".csv": text.table,
  ".tsv": text.table,
  ".parquet": tables.parquet,
  ".array_record": records.array_record,
}


def is_data(path: str) -> bool:
  """Whether a name is that of a file or directory that `read` can read."""
  place, _ = split_of(path)
  return _format(place) is not None or Path(place).is_dir()


def split_of(path: str) -> tuple[str, str]:
  """The directory and the split of DIR:SPLIT.

  Args:
    path: of a file or directory, or DIR:SPLIT of an existing directory.

  Returns:
    the path, and the split; "" if none is named.
  """
  place, colon, split = path.rpartition(":")
  if colon and not Path(path).exists() and Path(place).is_dir():
    return place, split
  return path, ""


def read(
  path: str,
  faults: Faults,
  columns: Collection[str] | None = None,
  split: str = "",
) -> Iterator[Row]:
  """The rows of a file or a directory, read as they are asked for.

  Args:
    path: of a file of `FORMATS`, also with .gz after a format of text; a
      pattern of such files, as the module `glob` has them; or of
      a directory: a set that `datasets` saved, a directory of a hub, a set of
      TFDS, or of array_record files. DIR:SPLIT names a split.
    faults: gets the rows that cannot be read.
    columns: the columns to read, where a format can leave out others; None
      reads all.
    split: the split to read if the path names none.

  Yields:
    `Row`.

  Raises:
    UserError: the path cannot be read at all.
  """
  place, named = split_of(path)
  if glob.has_magic(place) and not Path(place).exists():
    found = sorted(glob.glob(place, recursive=True))
    if not found:
      raise UserError(f"{path}: no file has such a name")
    for file in found:
      # Files of the same name in several directories have other ids.
      above = Path(os.path.relpath(file, _root(place))).parent
      for row in read(file, faults, columns, split):
        yield row._replace(id=(above / row.id).as_posix())
    return
  if Path(place).is_dir():
    yield from directories.read(place, faults, columns, named, split)
    return
  reader = _format(place)
  if reader is None and Path(place).exists():
    raise UserError(
      f"{place}: the end of the name is of no known format; known:"
      f" {', '.join(FORMATS)}, text also with .gz, and directories"
    )
  yield from (reader or FORMATS[".jsonl"])(place, columns, faults)


def _root(pattern):
  """The directory below which the names of a pattern differ."""
  parts = Path(pattern).parts
  fixed = itertools.takewhile(lambda part: not glob.has_magic(part), parts)
  return Path(*fixed)


def _format(path):
  name = str(path).lower().removesuffix(".gz")
  return next((f for end, f in FORMATS.items() if name.endswith(end)), None)


__all__ = ["FORMATS", "is_data", "read", "split_of"]
