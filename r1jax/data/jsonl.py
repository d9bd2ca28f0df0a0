"""JSON lines: one object a line, so that a fault has a line number."""

import contextlib
import gzip
import json
import pathlib
import zlib
from collections.abc import Iterator
from typing import IO, Any, cast

from r1jax.data.rows import Faults, Row
from r1jax.errors import UserError


def read_jsonl(path: str | pathlib.Path) -> list[dict[str, Any]]:
  """The objects of a file; blank lines are skipped.

  Args:
    path: of a UTF-8 file; one that ends in .gz is unpacked.

  Returns:
    list of dict.

  Raises:
    UserError: the file cannot be read, or lines of it are no JSON objects;
      each line of the message starts with FILE:LINE.
  """
  faults = Faults(path)
  found = [row.values for row in rows(path, faults)]
  faults.check()
  return found


def rows(path: str | pathlib.Path, faults: Faults) -> Iterator[Row]:
  """The objects of a file, line by line.

  Args:
    path: as for `read_jsonl`.
    faults: gets the lines that are no JSON objects.

  Yields:
    `Row`.

  Raises:
    UserError: the file cannot be read.
  """
  name = pathlib.Path(path).name
  with opened(path) as file:
    # Not text: U+2028 and its like would end a line inside a JSON string.
    for number, line in enumerate(file, 1):
      if number == 1 and line.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise UserError(f"{path}: UTF-16; save the file as UTF-8")
      if not line.strip():
        continue
      where = f"{path}:{number}"
      try:
        values = _object(line, first=number == 1)
      except UserError as e:
        faults.unread(where, str(e))
        continue
      yield Row(where, f"{name}:{number}", values, list(values))


@contextlib.contextmanager
def opened(path: str | pathlib.Path) -> Iterator[IO[bytes]]:
  """A file to read, unpacked if its name ends in .gz.

  Args:
    path: of the file.

  Yields:
    a file of bytes.

  Raises:
    UserError: it cannot be read, also while the block reads it.
  """
  try:
    open_ = gzip.open if str(path).endswith(".gz") else open
    with cast(IO[bytes], open_(path, "rb")) as file:
      yield file
  except (EOFError, zlib.error, gzip.BadGzipFile) as e:
    raise UserError(f"{path}: cannot be unpacked by gzip: {e}") from None
  except OSError as e:
    raise UserError(f"{path}: cannot be read: {e.strerror}") from None


def loads(text: str) -> Any:
  """A value of JSON; unlike `json.loads` without NaN and repeated keys.

  Args:
    text: of the value.

  Raises:
    UserError: the text is no JSON.
  """
  try:
    return json.loads(
      text, parse_constant=_no_constant, object_pairs_hook=_distinct
    )
  except json.JSONDecodeError as e:
    at = f"line {e.lineno}, column" if e.lineno > 1 else "column"
    raise UserError(f"not JSON: {e.msg} at {at} {e.colno}") from None
  except RecursionError:
    raise UserError("nested too deep") from None
  except UserError:
    raise
  except ValueError as e:  # a whole number of too many digits
    raise UserError(f"not JSON: {str(e).partition(';')[0]}") from None


def decode(data: bytes, first: bool = True) -> str:
  """Text of UTF-8.

  Args:
    data: the bytes.
    first: whether they begin a file, whose byte order mark is no text.

  Raises:
    UserError: they are not UTF-8.
  """
  try:
    return data.decode("utf-8-sig" if first else "utf-8")
  except UnicodeDecodeError as e:
    raise UserError(
      f"not UTF-8: byte {e.start + 1} of the line; save the file as UTF-8"
    ) from None


def _object(line, first):
  try:
    row = loads(decode(line, first).strip())
  except UserError as e:
    way = "" if ";" in str(e) else "; correct or delete the line"
    raise UserError(f"broken line, {e}{way}") from None
  if not isinstance(row, dict):
    raise UserError(
      f"broken line, a JSON object was expected, not {type(row).__name__}"
    )
  return row


def _no_constant(name):
  raise UserError(f"not JSON: {name} is no number of JSON")


def _distinct(pairs):
  found = dict(pairs)
  if len(found) < len(pairs):
    keys = [key for key, _ in pairs]
    twice = next(key for key in keys if keys.count(key) > 1)
    raise UserError(f'the key "{twice}" is there twice')
  return found
