"""Files that are whole or absent, and rows of JSON in them."""

import json
import math
import os
from pathlib import Path

from r1jax.errors import UserError


def encode(row):
  """A row as one JSON line; what is not finite becomes null, valid JSON."""
  return json.dumps(_plain(row), ensure_ascii=False, allow_nan=False) + "\n"


def read(path):
  """The rows of a file of metrics.

  Args:
    path: of a file of JSON lines; an absent file has no rows. A last line
      without its end is left out: the process died while writing it.

  Returns:
    list of dicts.

  Raises:
    UserError: a line is no JSON object.
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
        f"{path}:{number}: this line is no JSON object; remove it"
      ) from None
  return rows


def write_atomically(path, data):
  """Replaces a file, on disk and in one step.

  Args:
    path: of the file.
    data: bytes or text.
  """
  path = Path(path)
  data = data.encode() if isinstance(data, str) else data
  unfinished = path.with_name(f".{path.name}.tmp")
  with open(unfinished, "wb") as f:
    f.write(data)
    f.flush()
    os.fsync(f.fileno())
  os.replace(unfinished, path)


def _plain(x):
  """JSON values: numpy scalars made Python's, NaN and infinity made None."""
  if isinstance(x, dict):
    return {str(k): _plain(v) for k, v in x.items()}
  if isinstance(x, list | tuple):
    return [_plain(v) for v in x]
  if hasattr(x, "item") and getattr(x, "ndim", 0) == 0:
    x = x.item()
  if isinstance(x, float) and not math.isfinite(x):
    return None
  return x
