"""Tables of Arrow: Parquet files, and values of Arrow as those of JSON."""

import datetime
import decimal
import uuid
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from r1jax.data import jsonl
from r1jax.data.rows import Faults, Row, one_line
from r1jax.errors import UserError
from r1jax.extras import need

# Rows that are decoded at a time.
BATCH = 256


def parquet(
  path: str, columns: Collection[str] | None, faults: Faults
) -> Iterator[Row]:
  """The rows of a Parquet file; columns that are not asked for are not read.

  Args:
    path: of the file.
    columns: names; None reads all.
    faults: gets the rows that cannot be decoded.

  Yields:
    `Row`, whose place is "FILE: row N".

  Raises:
    UserError: the file cannot be read.
  """
  arrow = need("pyarrow")
  name, number = Path(path).name, 0
  with jsonl.opened(path):
    pass  # the library's own error is long
  try:
    with need("pyarrow.parquet").ParquetFile(path, memory_map=True) as file:
      names = file.schema_arrow.names
      if len(set(names)) < len(names):
        raise UserError(f"{path}: two columns have the same name")
      wanted = [n for n in names if columns is None or n in columns]
      for batch in file.iter_batches(BATCH, columns=wanted):
        for values in _decoded(batch):
          number += 1
          where = f"{path}: row {number}"
          if isinstance(values, UserError):
            faults.unread(where, str(values))
          else:
            yield Row(where, f"{name}:{number}", values, names)
  except OSError as e:
    reason = e.strerror or f"the Parquet file is damaged: {one_line(str(e))}"
    raise UserError(f"{path}: cannot be read: {reason}") from None
  except arrow.ArrowException as e:
    raise UserError(
      f"{path}: no Parquet file, or damaged: {one_line(str(e))}"
    ) from None


def _decoded(batch):
  """Yields the rows of a batch as dicts, or a `UserError` for a bad one."""
  try:
    rows = batch.to_pylist()
  except UnicodeDecodeError:
    rows = [None] * batch.num_rows
  singles = [
    n for n, t in zip(batch.schema.names, batch.schema.types)
    if str(t) in ("float", "halffloat")
  ]  # fmt: skip
  for i, row in enumerate(rows):
    try:
      row = batch.slice(i, 1).to_pylist()[0] if row is None else row
      for name in singles:
        # 0.1 of 32 bits is 0.1, not 0.10000000149011612.
        if row[name] is not None:
          row[name] = np.float32(row[name])
      yield {key: plain(value) for key, value in row.items()}
    except UnicodeDecodeError:
      yield UserError("text that is not UTF-8")
    except UserError as e:
      yield e


def plain(value: Any) -> Any:
  """A value of Arrow, numpy or TFDS as JSON has it.

  Args:
    value: of any type. In a mapping inside it a key without a value is left
      out, since Arrow gives all rows the same keys.

  Returns:
    of the types of JSON.

  Raises:
    UserError: nothing of JSON is like it.
  """
  if isinstance(value, np.floating):
    return float(str(value))
  if isinstance(value, np.ndarray | np.generic):
    return plain(value.tolist())
  if value is None or isinstance(value, str | int | float):
    return value
  if isinstance(value, Mapping):
    return {str(k): plain(v) for k, v in value.items() if v is not None}
  if isinstance(value, list | tuple):
    return [plain(v) for v in value]
  if isinstance(value, bytes):
    try:
      return value.decode()
    except UnicodeDecodeError:
      raise UserError("bytes that are no text of UTF-8") from None
  if isinstance(value, datetime.date | datetime.time):
    return value.isoformat()
  if isinstance(value, decimal.Decimal):
    return format(value, "f")
  if isinstance(value, uuid.UUID):
    return str(value)
  raise UserError(
    f"a value of type {type(value).__name__} is no text or number"
  )
