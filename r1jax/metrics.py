"""What a run says of itself while it runs: JSON lines and a progress bar."""

import json
import math
import os
import sys
import time
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


class StepLog:
  """A file of JSON lines, each with its step, that a resumed run continues.

  Args:
    path: of the file; its directory exists.
  """

  def __init__(self, path):
    self._path = Path(path)

  def rewind(self, step):
    """Drops the lines of `step` and later, and a torn last line.

    They will be written again. The file is replaced by one rename, and only
    if there is something to drop.
    """
    if not self._path.exists():
      return
    rows = [r for r in read(self._path) if r.get("step", -1) < step]
    text = "".join(map(encode, rows)).encode()
    if text != self._path.read_bytes():
      write_atomically(self._path, text)

  def append(self, rows):
    """Adds rows, with no buffer in between.

    A process that is killed after this call has lost nothing.
    """
    text = "".join(map(encode, rows)).encode()
    file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
      while text:
        text = text[os.write(file, text) :]
    finally:
      os.close(file)


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


class Progress:
  """One line on the terminal; elsewhere a line every tenth of the way.

  Args:
    name: of the phase.
    total: steps of the whole phase.
    first: the step at which this process begins.
    show: names of the metrics to print.
  """

  def __init__(self, name, total, first=0, show=()):
    self._name, self._total, self._show = name, total, show
    self._begin = time.monotonic()
    self._printed = first * 10 // max(total, 1)
    self._bar = None
    if sys.stderr.isatty():
      from tqdm import tqdm

      self._bar = tqdm(
        total=total,
        initial=first,
        desc=name,
        dynamic_ncols=True,
        bar_format=(
          "{desc} {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt}"
          " [{elapsed}<{remaining}{postfix}]"
        ),
      )

  def update(self, done, metrics):
    """Shows that `done` steps are done."""
    shown = [f"{k} {_short(metrics[k])}" for k in self._show if k in metrics]
    if self._bar is not None:
      self._bar.set_postfix_str("  ".join(shown), refresh=False)
      self._bar.update(done - self._bar.n)
      return
    tenth = done * 10 // max(self._total, 1)
    if tenth > self._printed:
      self._printed = tenth
      seconds = time.monotonic() - self._begin
      width = len(str(self._total))
      line = [f"{self._name} {done:{width}}/{self._total}", *shown]
      print("  ".join([*line, f"{seconds:.0f} s"]), flush=True)

  def close(self):
    """Leaves the last state of the bar on the screen."""
    if self._bar is not None:
      self._bar.close()


def _short(x):
  if not isinstance(x, float):
    return str(x)
  if abs(x) < 1e-2:
    return f"{x:.3g}"
  return f"{x:.3f}" if abs(x) < 10 else f"{x:.1f}"


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
