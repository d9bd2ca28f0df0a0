"""All that a phase may touch of the world: its own directory.

  DIR/PHASE/checkpoints/STEP/   what `save` wrote, the newest two
  DIR/PHASE/metrics.jsonl       what `report` wrote, one line a step
  DIR/PHASE/samples.jsonl       what `samples` wrote: completions, to be read
  DIR/PHASE/NAME.jsonl          what `write` wrote

A phase may be killed at any moment. When it is run again, `restore` gives
the newest checkpoint, and the files are cut back to the steps before it, so
that they end up as if nothing had happened.
"""

import time
from pathlib import Path

import jax

from r1jax.files import encode, write_atomically
from r1jax.run import checkpoint
from r1jax.run.logs import Progress, StepLog


class PhaseIO:
  """The files, checkpoints and progress bar of one phase.

  Args:
    root: DIR, the directory of the run.
    name: of the phase.

  Attributes:
    dir: Path of DIR/PHASE.
    root: Path of DIR.
    first: the step that was restored, else 0.
    saved: the step of the newest checkpoint that is known, else 0.
  """

  def __init__(self, root, name):
    self.root = Path(root)
    self.dir = self.root / name
    self.first = 0
    self.saved = 0
    self._name = name
    self._writes = jax.process_index() == 0
    self._checkpoints = self.dir / "checkpoints"
    self._logs = {
      k: StepLog(self.dir / f"{k}.jsonl") for k in ("metrics", "samples")
    }
    self._rewound = False
    self._progress = None
    if self._writes:
      self.dir.mkdir(parents=True, exist_ok=True)

  def restore(self, target):
    """The newest checkpoint of this phase, if there is one.

    Args:
      target: pytree of arrays, or of `jax.ShapeDtypeStruct` with shardings:
        the structure and the placement that the phase wants.

    Returns:
      (step, tree like `target`), or None.

    Raises:
      UserError: the checkpoint is damaged. Nothing on disk is changed.
    """
    steps = checkpoint.steps(self._checkpoints)
    if not steps:
      return None
    tree = checkpoint.restore(self._checkpoints / str(steps[-1]), target)
    self.first = self.saved = steps[-1]
    self._rewind()
    return self.first, tree

  def save(self, step, tree):
    """Writes a checkpoint; it is complete on disk when this returns.

    Call it after the `report` and the `samples` of the step before.

    Args:
      step: steps done so far: where a resumed run goes on.
      tree: pytree of arrays. It alone must determine the steps to come.
    """
    self._rewind()
    checkpoint.save_step(self._checkpoints, step, tree)
    self.saved = step

  def report(self, step, metrics):
    """Appends the metrics of a step to metrics.jsonl and moves the bar.

    Args:
      step: counted from 0.
      metrics: name -> number.

    Raises:
      RuntimeError: a checkpoint after this step is saved already. A process
        killed in between would never write this line, so report first.
    """
    row = {"step": step, "time": round(time.time(), 3)}
    row |= {k: metrics[k] for k in sorted(metrics)}
    self._append("metrics", step, [row])
    if self._progress is not None:
      self._progress.update(step + 1, metrics)

  def samples(self, step, rows):
    """Appends completions of a step to samples.jsonl.

    Args:
      step: counted from 0.
      rows: list of dicts.

    Raises:
      RuntimeError: as `report`.
    """
    self._append("samples", step, [{"step": step, **row} for row in rows])

  def write(self, name, rows):
    """Writes DIR/PHASE/NAME.jsonl, whole.

    Args:
      name: of the file, without ".jsonl".
      rows: iterable of dicts.
    """
    if self._writes:
      text = "".join(map(encode, rows))
      write_atomically(self.dir / f"{name}.jsonl", text)

  def bar(self, total, first=0, show=("reward", "accuracy", "tokens")):
    """Begins the progress bar.

    Args:
      total: steps of the phase.
      first: the step that comes next.
      show: names of the metrics beside it.
    """
    if self._writes:
      self._progress = Progress(self._name, total, first, show)

  def close(self):
    """Ends the progress bar."""
    if self._progress is not None:
      self._progress.close()

  def _append(self, log, step, rows):
    if step < self.saved:
      raise RuntimeError(
        f"{self._name}: step {step} is written to {log}.jsonl after it was"
        " saved; io.save comes last, or a kill in between loses the lines"
      )
    if self._writes:
      self._rewind()
      self._logs[log].append(rows)

  def _rewind(self):
    """Before the first thing is written, drops what will be written again.

    Not earlier: a start that fails must leave the disk as it was.
    """
    if self._writes and not self._rewound:
      for log in self._logs.values():
        log.rewind(self.first)
    self._rewound = True
