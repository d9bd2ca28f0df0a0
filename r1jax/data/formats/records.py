"""array_record files whose records are objects of JSON, as `store` writes."""

from collections.abc import Collection, Iterator
from pathlib import Path

from r1jax.data import jsonl
from r1jax.data.rows import Faults, Row, one_line
from r1jax.errors import UserError

# Records that are read at a time.
BATCH = 256


def array_record(
  path: str, columns: Collection[str] | None, faults: Faults
) -> Iterator[Row]:
  """The records of an array_record file.

  Args:
    path: of the file.
    columns: not used.
    faults: gets the records that are no objects of JSON.

  Yields:
    `Row`, whose place is "FILE: row N".

  Raises:
    UserError: the file cannot be read.
  """
  # Only here: files of other formats do without this library.
  from array_record.python import array_record_module

  name, number = Path(path).name, 0
  for records in _batches(path, array_record_module.ArrayRecordReader):
    for record in records:
      number += 1
      where = f"{path}: row {number}"
      try:
        values = jsonl.loads(jsonl.decode(record))
      except UserError as e:
        faults.unread(where, f"{e}; a set of TFDS is named by its directory")
        continue
      if isinstance(values, dict):
        yield Row(where, f"{name}:{number}", values, list(values))
      else:
        faults.unread(where, "a record must be a JSON object")


def _batches(path, reader_class):
  """Yields lists of the bytes of records."""
  with jsonl.opened(path):
    pass  # the library's own error does not say why
  try:
    reader = reader_class(str(path), "readahead_buffer_size:0")
    if not reader.num_records():
      # Of a file that was cut short the library finds no index.
      raise ValueError("no records")
    for start in range(0, reader.num_records(), BATCH):
      stop = min(start + BATCH, reader.num_records())
      yield reader.read(list(range(start, stop)))
  except Exception as e:  # the library raises nothing narrower
    raise UserError(
      f"{path}: no array_record file, or damaged: {one_line(str(e))}"
    ) from None
