"""Trackers: the numbers of metrics.jsonl for TensorBoard, wandb and trackio.

`c.trackers = ("tensorboard",)` writes events to DIR/tensorboard/PHASE. A
tracker gets the lines of metrics.jsonl, when they are written, and nothing
else. One that fails is left out; the run goes on.
"""

import hashlib
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol, get_args

from r1jax.extras import need
from r1jax.run import layout

Name = Literal["tensorboard", "wandb", "trackio"]
# Package that each one needs.
_PACKAGES = {
  "tensorboard": "tensorboardX",
  "wandb": "wandb",
  "trackio": "trackio",
}
# The project to which wandb and trackio add the phases of all runs.
_PROJECT = "r1jax"


class Tracker(Protocol):
  """What a tracker does."""

  def log(self, step: int, numbers: Mapping[str, float], time: float) -> None:
    """Takes the numbers of a step; `time` is in seconds since 1970."""

  def close(self) -> None:
    """Writes what it still holds."""


class _TensorBoard:
  """Event files; a resumed phase hides the steps that it repeats."""

  def __init__(self, root, phase, first):
    writer = need(_PACKAGES["tensorboard"]).SummaryWriter
    # Names of files have whole seconds; the step keeps a quick restart apart.
    self._writer = writer(
      str(root / layout.TENSORBOARD / phase),
      purge_step=first,
      filename_suffix=f".{first:09d}",
    )

  def log(self, step, numbers, time):
    for name, value in numbers.items():
      self._writer.add_scalar(name, value, step, walltime=time)
    self._writer.flush()

  def close(self):
    self._writer.close()


class _Service:
  """wandb, or trackio, whose functions are the same.

  A phase of a run is a run there, which a resumed phase continues.
  """

  def __init__(self, package, **options):
    self._package = need(package)
    self._package.init(project=_PROJECT, resume="allow", **options)

  def log(self, step, numbers, time):
    self._package.log(dict(numbers), step=step)

  def close(self):
    self._package.finish()


def _wandb(root, phase, first):
  name, own = _names(root, phase)
  return _Service("wandb", name=name, id=own, dir=str(root))


def _trackio(root, phase, first):
  name, own = _names(root, phase)
  # Its runs have no names but the one that is shown.
  return _Service("trackio", name=f"{name} {own[:6]}")


def _names(root, phase):
  """The name of a phase for people, and one that no other phase has."""
  root = root.absolute()
  own = hashlib.sha256(f"{root}/{phase}".encode()).hexdigest()[:16]
  return f"{root.name}/{phase}", own


_MAKERS: dict[str, Callable[[Path, str, int], Tracker]] = {
  "tensorboard": _TensorBoard,
  "wandb": _wandb,
  "trackio": _trackio,
}


def check(names: Sequence[str]) -> None:
  """Raises a `UserError` if the package of a tracker is not installed."""
  for name in names:
    need(_PACKAGES[name])


class Trackers:
  """The trackers of one phase; they begin with the first numbers.

  Args:
    names: of trackers.
    root: DIR, the directory of the run.
    phase: name of the phase.
  """

  def __init__(self, names: Sequence[str], root: Path, phase: str) -> None:
    assert set(names) <= set(get_args(Name)), names
    self._names, self._root, self._phase = tuple(names), Path(root), phase
    self._open: dict[str, Tracker] | None = None

  def log(self, row: Mapping[str, Any]) -> None:
    """Takes a line of metrics.jsonl: "step", "time" and numbers."""
    step = row["step"]
    if self._open is None:
      self._open = {}
      for name in self._names:
        self._attempt(name, lambda: self._begin(name, step))
    numbers = {
      key: float(value)
      for key, value in row.items()
      if key not in ("step", "time") and _is_number(value)
    }
    for name, tracker in list(self._open.items()):
      self._attempt(name, lambda: tracker.log(step, numbers, row["time"]))

  def close(self) -> None:
    """Ends all of them."""
    for name, tracker in list((self._open or {}).items()):
      self._attempt(name, tracker.close)
    self._open = None

  def _begin(self, name, step):
    self._open[name] = _MAKERS[name](self._root, self._phase, step)

  def _attempt(self, name, function):
    """Calls a function of a tracker; one that fails is left out."""
    try:
      function()
    except Exception as e:  # a tracker, or its network, can raise anything
      self._open.pop(name, None)
      reason = next(iter(str(e).splitlines()), "") or type(e).__name__
      print(
        f"warning: {self._phase}: {name} gets no more numbers ({reason})",
        file=sys.stderr,
      )


def _is_number(x):
  x = x.item() if hasattr(x, "item") and getattr(x, "ndim", 0) == 0 else x
  return isinstance(x, int | float) and math.isfinite(x)
