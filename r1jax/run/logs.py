"""What a run reports while it runs: JSON lines and a progress bar."""

import os
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from r1jax.files import encode, read, write_atomically


class StepLog:
  """A file of JSON lines that a resumed run continues; each has its step.

  Args:
    path: of the file, in a directory that exists.
  """

  def __init__(self, path: str | Path) -> None:
    self._path = Path(path)

  def rewind(self, step: int) -> None:
    """Removes the lines of `step` and later, and an incomplete last line.

    The resumed run will write them again. The file is replaced by one rename,
    and only if there is something to remove.

    Args:
      step: the step that the resumed run begins with.
    """
    if not self._path.exists():
      return
    rows = [r for r in read(self._path) if r.get("step", -1) < step]
    text = "".join(map(encode, rows)).encode()
    if text != self._path.read_bytes():
      write_atomically(self._path, text)

  def append(self, rows: Iterable[Mapping[str, Any]]) -> None:
    """Appends rows without a buffer, so that a kill afterwards loses nothing.

    Args:
      rows: list of dicts, each with its "step".
    """
    text = "".join(map(encode, rows)).encode()
    file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
      while text:
        text = text[os.write(file, text) :]
    finally:
      os.close(file)


class Progress:
  """A progress bar on a terminal, ten printed lines elsewhere.

  Args:
    name: of the phase.
    total: number of steps of the whole phase.
    first: the step that this process begins with.
    show: names of the metrics to print.
  """

  def __init__(
    self, name: str, total: int, first: int = 0, show: Sequence[str] = ()
  ) -> None:
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

  def update(self, done: int, metrics: Mapping[str, Any]) -> None:
    """Shows the progress.

    Args:
      done: number of steps that are done.
      metrics: name -> number; those in `show` are printed.
    """
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

  def close(self) -> None:
    """Ends the bar; its last state stays on the screen."""
    if self._bar is not None:
      self._bar.close()


def _short(x):
  if not isinstance(x, float):
    return str(x)
  if abs(x) < 1e-2:
    return f"{x:.3g}"
  return f"{x:.3f}" if abs(x) < 10 else f"{x:.1f}"
