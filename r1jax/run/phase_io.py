"""The files of one phase: the only part of the world that a phase touches.

  DIR/PHASE/checkpoints/STEP/   written by `save`; the newest two stay
  DIR/PHASE/metrics.jsonl       written by `report`, one line a step
  DIR/PHASE/samples.jsonl       written by `samples`: completions to read
  DIR/PHASE/skipped.jsonl       written by `extend`: steps not applied
  DIR/PHASE/NAME                written by `write`

A phase may be killed at any moment. When the phase runs again, `restore`
returns the newest checkpoint, and the lines of later steps are removed from
the files. In the end the files are the same as without the kill.

A signal (`r1jax/stopping.py`) makes `due` true, and `save` ends the phase.
"""

import contextlib
import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from r1jax import disk, files, hosts, stopping
from r1jax.run import checkpoint, layout
from r1jax.run.logs import Progress, StepLog, say, whole_steps
from r1jax.run.trackers import Trackers


class PhaseIO:
  """The files, checkpoints and progress bar of one phase.

  Args:
    root: DIR, the directory of the run.
    name: of the phase.
    parents: name -> directory of another phase of the run.
    describe: function of the directory that writes what the parameters of the
      phase mean, see `stored.describe`. It is called before the first of them
      are written.
    trackers: `Trackers` that get the metrics too, or None.

  Attributes:
    dir: Path of DIR/PHASE.
    root: Path of DIR.
    first: the step that was restored; 0 if none was.
    saved: the step of the newest checkpoint; 0 if there is none.
  """

  def __init__(
    self,
    root: str | Path,
    name: str,
    parents: Mapping[str, Path] | None = None,
    describe: Callable[[Path], None] | None = None,
    trackers: Trackers | None = None,
  ) -> None:
    self.root = Path(root)
    self.dir = self.root / name
    self.first = 0
    self.saved = 0
    self._name = name
    self._parents = parents or {}
    self._describe = describe
    self._trackers = trackers
    self._writes = hosts.is_first()
    self._checkpoints = self.dir / layout.CHECKPOINTS
    self._logs = {
      k: StepLog(self.dir / k)
      for k in (layout.METRICS, layout.SAMPLES, layout.SKIPPED)
    }
    self._rewound = False
    self._reported = -1
    self._by_rows = False  # not by checkpoints
    self._progress: Progress | None = None
    if self._writes:
      with disk.room(self.dir):
        self.dir.mkdir(parents=True, exist_ok=True)

  def restore(self, target: Any) -> tuple[int, Any] | None:
    """Reads the newest checkpoint of this phase; from now on it can be stopped.

    A damaged checkpoint is named and set aside, and the one before is read.
    The steps in between are computed again, to the same bits.

    Args:
      target: pytree of arrays, or of `jax.ShapeDtypeStruct` with shardings:
        the structure and the shardings that the phase wants.

    Returns:
      (step, tree like `target`), or None if there is no checkpoint.

    Raises:
      UserError: no checkpoint can be read. Nothing on disk is changed.
    """
    found, damaged = checkpoint.restore_newest(self._checkpoints, target)
    if found is not None:
      self.first = self.saved = found[0]
    for path, culprit in damaged.items():
      self.say(
        f"the checkpoint {path} is damaged: {culprit}; the run goes on from"
        f" step {self.first} before it"
      )
      checkpoint.set_aside(path)
    stopping.defer(True)
    if found is not None:
      self._rewind()
    return found

  def resume(self, name: str, total: str) -> tuple[int, list[dict[str, Any]]]:
    """The steps that a phase without checkpoints has behind it, and their rows.

    Such a phase writes the rows of a step by `extend`, and then `report`s it.

    Args:
      name: of the file of rows.
      total: the metric that says how many rows there are after a step.

    Returns:
      the step that comes next; the rows of the steps before it.
    """
    self._logs[name] = StepLog(self.dir / name)
    self._by_rows = True
    self.first, rows = hosts.on_first(
      whole_steps, self._logs[name], self._logs[layout.METRICS], total
    )
    self.saved = self.first
    self._rewind()
    return self.first, rows

  def extend(self, name: str, step: int, rows: Iterable[Any]) -> None:
    """Appends the rows of a step to a file of rows.

    Args:
      name: of the file: skipped.jsonl, or the one that `resume` read.
      step: counted from 0.
      rows: dicts or dataclasses.
    """
    plain = [json.loads(files.encode(row)) for row in rows]
    self._append(name, step, [{"step": step, **row} for row in plain])

  def due(self, done: int, every: int, total: int) -> bool:
    """Whether a phase saves now; then it calls `save`.

    Args:
      done: number of steps done.
      every: steps between two checkpoints.
      total: steps of the phase.

    Returns:
      True after each `every` steps, after the last one, and when a signal
      asked any process of the run to stop. The answer is the same on every
      host. Several hosts agree only after a step that was reported.
    """
    if done % every == 0 or done == total:
      return True
    agree = hosts.is_alone() or self._reported == done - 1
    return agree and hosts.greatest(stopping.asked()) > 0

  def save(self, step: int, tree: Any) -> None:
    """Writes a checkpoint; it is complete on disk when this returns.

    Call it after the `report` and the `samples` of the previous step.

    Args:
      step: number of steps done, which is the step that a resumed run begins
        with.
      tree: pytree of arrays. The later steps must depend on nothing else.

    Raises:
      Stopped: a signal asked for it; the checkpoint is complete.
      UserError: the disk is full or cannot be written. The checkpoints before
        this one stay.
    """
    self._rewind()
    logs = {name: log.state for name, log in self._logs.items()}
    notes = {layout.LOGS: json.dumps(logs)}
    self._describe_once()
    checkpoint.save_step(self._checkpoints, step, tree, notes=notes)
    self.saved = step
    if number := hosts.greatest(stopping.asked()):
      raise stopping.Stopped(number)

  @contextlib.contextmanager
  def stoppable(self, step: int, tree: Any) -> Iterator[None]:
    """Saves the state before a step if a signal stops the step in the block.

    Args:
      step: the step that the block is a part of, from 0.
      tree: pytree of arrays, as `save` takes it. The block leaves it as it is.
    """
    try:
      yield
    except stopping.Stopped:
      if step > self.saved:
        self.save(step, tree)
      raise

  def report(self, step: int, metrics: Mapping[str, Any]) -> None:
    """Appends the metrics of a step to metrics.jsonl and moves the bar.

    Args:
      step: counted from 0.
      metrics: name -> number.

    Raises:
      RuntimeError: a checkpoint after this step exists already. If the
        process were killed between `save` and `report`, the resumed run would
        never write this line. So call `report` first.
    """
    row = {"step": step, "time": round(time.time(), 3)}
    row |= {k: metrics[k] for k in sorted(metrics)}
    self._append(layout.METRICS, step, [row])
    self._reported = step
    if self._by_rows:
      self.saved = step + 1
    if self._trackers is not None and self._writes:
      self._trackers.log(row)
    if self._progress is not None:
      self._progress.update(step + 1, metrics)

  def samples(self, step: int, rows: Iterable[Any]) -> None:
    """Appends completions of a step to samples.jsonl.

    Args:
      step: counted from 0.
      rows: list of dicts.

    Raises:
      RuntimeError: a checkpoint after this step exists already, as for
        `report`.
    """
    self._append(layout.SAMPLES, step, [{"step": step, **row} for row in rows])

  def skipped_before(self) -> list[dict[str, Any]]:
    """The rows of skipped.jsonl of the steps before the restored one."""
    rows = files.read(self.dir / layout.SKIPPED)
    return [row for row in rows if row["step"] < self.first]

  def write(self, name: str, rows: Iterable[Any]) -> None:
    """Writes DIR/PHASE/NAME, whole or not at all.

    Args:
      name: of the file.
      rows: iterable of dicts or of dataclasses.
    """
    if self._writes:
      files.write_rows(self.dir / name, rows)

  def write_params(self, params: Any) -> None:
    """Writes the parameters that the phase made.

    Args:
      params: nested dict of arrays.
    """
    self._describe_once()
    checkpoint.save(self.dir / layout.PARAMS, params)

  def parent(self, name: str) -> Any:
    """The parameters of another phase that the config names in `parents`.

    Args:
      name: key of `parents`.

    Returns:
      dict of the fields of their `ModelConfig`; nested dict of arrays.

    Raises:
      UserError: the parameters are damaged.
    """
    directory = self._parents[name]
    fields = json.loads((directory / layout.MODEL).read_text())
    return fields, checkpoint.load_params(directory)

  def bar(
    self,
    total: int,
    first: int = 0,
    show: Sequence[str] = ("reward", "accuracy", "tokens"),
  ) -> None:
    """Begins the progress bar.

    Args:
      total: number of steps of the phase.
      first: the step that comes next.
      show: names of the metrics to print beside the bar.
    """
    if self._writes:
      self._progress = Progress(self._name, total, first, show)

  def say(self, text: str) -> None:
    """Prints a line of the phase, on the first host.

    Args:
      text: the line, without the name of the phase.
    """
    if self._writes:
      say(f"{self._name}: {text}")

  def close(self) -> None:
    """Ends bar and trackers; there is nothing to save any more."""
    # Alone, a process may end at any moment; of several all end together.
    stopping.defer(not hosts.is_alone())
    if self._progress is not None:
      self._progress.close()
    if self._trackers is not None:
      self._trackers.close()

  def _append(self, log, step, rows):
    if step < self.saved:
      raise RuntimeError(
        f"{self._name}: step {step} is written to {log} after its"
        " checkpoint; io.save comes last, or a kill in between loses the lines"
      )
    if self._writes:
      self._rewind()
      self._logs[log].append(rows)

  def _describe_once(self):
    if self._describe is not None:
      self._describe(self.dir)
    self._describe = None

  def _rewind(self):
    """Removes lines that will be written again, before the first new one.

    Not earlier: a start that fails must not change the disk.
    """
    if self._writes and not self._rewound:
      written = self._written()
      for name, log in self._logs.items():
        found = log.rewind(self.first, written.get(name))
        if found:
          self.say(found)
    self._rewound = True

  def _written(self):
    """Name of a log -> its `state` when the restored step was saved."""
    path = self._checkpoints / str(self.first) / layout.LOGS
    return json.loads(path.read_text()) if path.exists() else {}
