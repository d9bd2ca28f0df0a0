"""Files and directories that are whole or absent, and rows of JSON.

What is being written has ".tmp" in its name until it is complete. A process
that dies while it writes leaves such a name behind, which nobody reads. A disk
that is full or read-only is a `UserError`, and leaves what was there before.
"""

import contextlib
import dataclasses
import errno
import json
import math
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from r1jax.disk import room
from r1jax.errors import UserError


def encode(row: Any) -> str:
  """A row as one line of valid JSON, with null for NaN and infinity.

  Args:
    row: a mapping or a dataclass.
  """
  return json.dumps(_plain(row), ensure_ascii=False, allow_nan=False) + "\n"


def read(path: str | Path) -> list[dict[str, Any]]:
  """The rows of a file of JSON lines, such as metrics.jsonl.

  Args:
    path: of the file; an absent file has no rows. A last line that does not
      end in a newline is left out: the process died while it wrote the line.

  Returns:
    list of dicts.

  Raises:
    UserError: a line is not a JSON object.
  """
  if not Path(path).exists():
    return []
  whole, _, _ = Path(path).read_bytes().rpartition(b"\n")
  rows = []
  for number, line in enumerate(whole.split(b"\n") if whole else [], 1):
    try:
      rows.append(dict(json.loads(line)))
    except (ValueError, TypeError):
      raise UserError(
        f"{path}:{number}: this line is not a JSON object; remove it"
      ) from None
  return rows


def write_rows(path: str | Path, rows: Iterable[Any]) -> None:
  """Replaces a file by rows of JSON, whole or not at all.

  Args:
    path: of the file.
    rows: an iterable of mappings or of dataclasses.
  """
  write_atomically(path, "".join(map(encode, rows)))


def write_atomically(path: str | Path, data: bytes | str) -> None:
  """Replaces a file by one rename, after its content is on disk.

  Args:
    path: of the file.
    data: bytes or text.

  Raises:
    UserError: the disk is full or cannot be written; the old file stays.
  """
  path = Path(path)
  data = data.encode() if isinstance(data, str) else data
  unfinished = path.with_name(f".{path.name}.tmp")
  with room(path, len(data)):
    try:
      with open(unfinished, "wb") as f:
        f.write(data)
        f.flush()
        os.fsync(f.fileno())
    except OSError:
      with contextlib.suppress(OSError):
        unfinished.unlink()
      raise
    os.replace(unfinished, path)


def check_empty(directory: str | Path) -> None:
  """Checks that a directory can be made without losing anything.

  Args:
    directory: a path.

  Raises:
    UserError: the directory exists and is not empty.
  """
  directory = Path(directory)
  if directory.exists() and any(directory.iterdir()):
    raise UserError(f"{directory} is not empty; name another directory")


@contextlib.contextmanager
def whole_directory(
  path: str | Path, replace: bool = False, size: int = 0
) -> Iterator[Path]:
  """Makes a directory that gets its name only when it is complete.

    with files.whole_directory(path) as unfinished:
      unfinished.mkdir()
      ...  # write into it

  If the block raises, nothing is left.

  Args:
    path: of the directory to make. Its parents are made too.
    replace: whether the new directory replaces an old one that is not empty.
    size: bytes that it needs; 0 if nobody knows.

  Yields:
    the path at which to make the directory. It has the same last name.

  Raises:
    UserError: the directory is not empty, and `replace` is not set; or the
      disk is full or cannot be written.
  """
  path = Path(path).absolute()
  if not replace:
    check_empty(path)
  with room(path, size):
    path.parent.mkdir(parents=True, exist_ok=True)
    # Half, since compression may help.
    if shutil.disk_usage(path.parent).free < size / 2:
      raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with _aside(path) as unfinished:
      yield unfinished
      if path.exists() and replace:
        remove_directory(path)
      # An empty directory gives way to the rename.
      unfinished.rename(path)


def remove_directory(path: str | Path) -> None:
  """Removes a directory in such a way that nobody sees half of it.

  Args:
    path: of the directory, which exists.
  """
  path = Path(path).absolute()
  with _aside(path) as doomed:
    path.rename(doomed)


def sweep(directory: str | Path, name: str = "*") -> None:
  """Removes the unfinished directories that dead processes left.

  Call it only where no other process writes.

  Args:
    directory: the parent of the unfinished directories.
    name: of the directory that was not completed, or a pattern.
  """
  for leftover in Path(directory).glob(f".{name}.tmp-*"):
    shutil.rmtree(leftover)


@contextlib.contextmanager
def _aside(path):
  """A path with the same last name, in a new directory beside `path`.

  That directory is removed in the end, with all that is still in it.
  """
  own = tempfile.mkdtemp(prefix=f".{path.name}.tmp-", dir=path.parent)
  try:
    yield Path(own) / path.name
  finally:
    shutil.rmtree(own, ignore_errors=True)


def _plain(x):
  """A value as JSON has it: no numpy scalars, None for NaN and infinity."""
  if dataclasses.is_dataclass(x):
    x = dataclasses.asdict(x)
  if isinstance(x, dict):
    return {str(k): _plain(v) for k, v in x.items()}
  if isinstance(x, list | tuple):
    return [_plain(v) for v in x]
  if hasattr(x, "item") and getattr(x, "ndim", 0) == 0:
    x = x.item()
  if isinstance(x, float) and not math.isfinite(x):
    return None
  return x
