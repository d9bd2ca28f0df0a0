"""A disk that is full or read-only: one line, whatever libraries raise."""

import contextlib
import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from r1jax.errors import UserError

# What a disk without room answers, and one that cannot be written.
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_CLOSED = (errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO)


@contextlib.contextmanager
def room(path: str | Path, size: int = 0) -> Iterator[None]:
  """Says in one line that a disk is full or cannot be written.

  Args:
    path: of what is written in the block. Where the block fails, it removes
      what it has written.
    size: bytes that it needs; 0 if nobody knows.

  Raises:
    UserError: the block raised an error that says so, or one that was caused
      by such an error.
  """
  try:
    yield
  except Exception as e:
    found = _fault(e)
    if found is None:
      raise
    number, culprit = found
    raise UserError(_line(number, culprit, path, size)) from e


def _line(number, culprit, path, size):
  """What the disk answered, and what a user can do."""
  reason = os.strerror(number)
  reason = reason[0].lower() + reason[1:]
  if number in _CLOSED:
    return (
      f"{culprit or path} cannot be written ({reason}); nothing was changed"
    )
  parent = Path(path).absolute()
  while not parent.exists():
    parent = parent.parent
  needed = f"{size / 1e6:.1f} MB are needed, " if size else ""
  free = shutil.disk_usage(parent).free / 1e6
  return (
    f"{path} cannot be written ({reason}: {needed}{free:.1f} MB are free);"
    " nothing half-written is kept; make room, and the same command goes on"
    " from what was saved"
  )


def _fault(error):
  """The errno by which a disk refused to be written, and the file, or None.

  Libraries report it as the cause of their own errors, or in words.
  """
  seen, left = [], [error]
  while left:
    e = left.pop()
    if e is None or isinstance(e, UserError) or any(e is s for s in seen):
      continue
    seen.append(e)
    if isinstance(e, OSError) and e.errno in _FULL + _CLOSED:
      return e.errno, e.filename
    if not isinstance(e, OSError):
      for number in (*_FULL, errno.EROFS):
        if os.strerror(number) in str(e):
          return number, None
    left += [e.__cause__, e.__context__, *getattr(e, "exceptions", ())]
  return None
