"""JSON objects in files that others wrote, such as config.json."""

import json
import os
from pathlib import Path
from typing import Any

from r1jax.errors import UserError

# Bytes of the largest file that is read. Objects of Python take twenty times
# the memory of their text; the largest indices of weights have 10 MB.
LARGEST = 32 << 20


def read(path: str | Path) -> dict[str, Any]:
  """Reads a JSON object from a file.

  Args:
    path: of the file.

  Returns:
    dict.

  Raises:
    UserError: the file is absent or too large, or is not a JSON object.
  """
  try:
    with open(path, "rb") as file:
      size = os.fstat(file.fileno()).st_size
      data = file.read() if size <= LARGEST else b""
  except OSError as e:
    raise UserError(f"{path} cannot be read: {e.strerror}") from None
  if size > LARGEST:
    raise UserError(
      f"{path} has more than {LARGEST >> 20} MiB; that is no such file"
    )
  try:
    value = json.loads(data)
  except (ValueError, RecursionError) as e:
    raise UserError(f"{path} is damaged, not JSON: {_line(e)}") from None
  if not isinstance(value, dict):
    raise UserError(f"{path}: a JSON object was expected, not {_kind(value)}")
  return value


def _line(error):
  return " ".join(str(error).split())[:200]


def _kind(value):
  return {list: "a list", str: "a text"}.get(type(value), "a single value")
