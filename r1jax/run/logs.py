"""What a run reports while it runs: JSON lines and a progress bar."""

import collections
import contextlib
import hashlib
import json
import math
import os
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from r1jax import stopping
from r1jax.disk import room
from r1jax.files import encode, write_atomically


class StepLog:
  """A file of JSON lines that a resumed run continues; each has its step.

  Args:
    path: of the file, in a directory that exists.
  """

  def __init__(self, path: str | Path) -> None:
    self._path = Path(path)
    self._lines, self._sum = 0, hashlib.sha256()

  @property
  def state(self) -> dict[str, Any]:
    """What `rewind` compares the file with: its lines and their checksum."""
    return {"lines": self._lines, "sha256": self._sum.hexdigest()}

  def rewind(self, step: int, written: Mapping[str, Any] | None = None) -> str:
    """Removes the lines of `step` and later, and those that are broken.

    The resumed run will write the later ones again. The file is replaced by
    one rename, and only if there is something to remove.

    Args:
      step: the step that the resumed run begins with.
      written: `state` when that step was saved; None if nothing was.

    Returns:
      what became of the lines before the step, in words; "" if all are there.

    Raises:
      UserError: the disk is full or cannot be written.
    """
    before = self._path.read_bytes() if self._path.exists() else b""
    kept = [line for line in before.splitlines(True) if _step(line) < step]
    text = b"".join(kept)
    if text != before:
      write_atomically(self._path, text)
    self._lines, self._sum = len(kept), hashlib.sha256(text)
    if written is None or written == self.state:
      return ""
    lost = written["lines"] - self._lines
    if lost <= 0:
      return f"{self._path}: lines before step {step} were changed"
    return (
      f"{self._path}: {lost} of the {written['lines']} lines before step"
      f" {step} are lost; the run goes on without them"
    )

  def rows(self) -> list[dict[str, Any]]:
    """The rows, in the order of the file; broken lines are left out."""
    data = self._path.read_bytes() if self._path.exists() else b""
    lines = data.splitlines(True)
    return [json.loads(x) for x in lines if _step(x) < math.inf]

  def append(self, rows: Iterable[Mapping[str, Any]]) -> None:
    """Appends rows without a buffer, so that a kill afterwards loses nothing.

    Args:
      rows: list of dicts, each with its "step".

    Raises:
      UserError: the disk is full or cannot be written; no row is appended.
    """
    rows = list(rows)
    whole = text = "".join(map(encode, rows)).encode()
    with room(self._path, len(text)):
      file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
      before = os.fstat(file).st_size
      try:
        while text:
          text = text[os.write(file, text) :]
      except OSError:
        os.ftruncate(file, before)
        raise
      finally:
        os.close(file)
    self._lines += len(rows)
    self._sum.update(whole)


def whole_steps(
  log: StepLog, metrics: StepLog, total: str
) -> tuple[int, list[dict[str, Any]]]:
  """The steps whose lines are all there, from the first step on.

  Args:
    log: any number of rows for each step.
    metrics: a row for each step, written after those of `log`.
    total: key of `metrics`: how many rows `log` has after that step.

  Returns:
    the number of such steps; their rows in `log`.
  """
  rows = log.rows()
  count = collections.Counter(row["step"] for row in rows)
  step = there = 0
  for row in metrics.rows():
    there += count[step]
    if (row["step"], row.get(total)) != (step, there):
      break
    step += 1
  return step, [row for row in rows if row["step"] < step]


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
      with contextlib.suppress(OSError):  # the terminal has gone
        self._bar.set_postfix_str("  ".join(shown), refresh=False)
        self._bar.update(done - self._bar.n)
      return
    tenth = done * 10 // max(self._total, 1)
    if tenth > self._printed:
      self._printed = tenth
      seconds = time.monotonic() - self._begin
      width = len(str(self._total))
      line = [f"{self._name} {done:{width}}/{self._total}", *shown]
      say("  ".join([*line, f"{seconds:.0f} s"]))

  def close(self) -> None:
    """Ends the bar; its last state stays on the screen."""
    if self._bar is not None:
      self._bar.close()


def _step(line):
  """The step of a line; infinity for one that is torn or no JSON object."""
  try:
    # Only a whole line ends in a newline.
    return float(json.loads(line)["step"]) if line[-1:] == b"\n" else math.inf
  except (ValueError, TypeError, KeyError):
    return math.inf


def say(text: str) -> None:
  """Prints a line; if nobody can read it, the run goes on without a word.

  Ctrl-C ends `tee` before the run itself, and a terminal may be closed.
  """
  try:
    print(text, flush=True)
  except OSError:
    stopping.silence(sys.stdout)


def _short(x):
  if not isinstance(x, float):
    return str(x)
  if abs(x) < 1e-2:
    return f"{x:.3g}"
  return f"{x:.3f}" if abs(x) < 10 else f"{x:.1f}"
