"""Optimizer steps that were not applied: counted, named, and at last an end.

A step whose loss or gradient is not finite changes nothing (see
`training.learner.Update`). A few of them cost a run nothing; many in a row
mean that it learns no more.
"""

import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from r1jax import hosts
from r1jax.errors import UserError
from r1jax.run import layout
from r1jax.run.phase_io import PhaseIO

# Names of a batch that the printed line has; the file has them all.
SHOWN = 8


class Watch:
  """Follows the optimizer steps of a phase.

  Args:
    io: the phase's `PhaseIO`, after `restore`.
    name: of the phase.
    most: skipped steps in a row at which the phase ends.
    updates: optimizer steps of a step of the phase.

  Attributes:
    total: steps of the whole phase that were skipped.
    in_a_row: how many of the latest were.
  """

  def __init__(
    self, io: PhaseIO, name: str, most: int, updates: int = 1
  ) -> None:
    self._io, self._name, self._most = io, name, most
    self._broken = False
    rows = io.skipped_before()
    self.total, self.in_a_row = len(rows), 0
    # A resumed run counts on where the run was stopped.
    last = (io.first - 1, updates - 1)
    if rows and (rows[-1]["step"], rows[-1]["update"]) == last:
      self.in_a_row = rows[-1]["in_a_row"]

  def __call__(
    self, step: int, update: int, checks: dict[str, Any], names: Callable
  ) -> None:
    """Notes an optimizer step, and writes it down if it was skipped.

    Args:
      step: of the phase, from 0.
      update: number of the optimizer step within it, from 0.
      checks: of the metrics of `learner.Update`, on the host.
      names: function that returns, for each micro-batch with data, a list of
        names of what it holds.
    """
    self._step, self._broken = step, not checks["params"]
    if checks["applied"]:
      self.in_a_row = 0
      return
    self.total += 1
    self.in_a_row += 1
    batches = names()
    bad = [i for i in range(len(batches)) if not checks["losses"][i]]
    self._what = "loss" if bad else "gradient"
    held = [name for i in bad or range(len(batches)) for name in batches[i]]
    held = list(dict.fromkeys(held))
    row = {
      "step": step,
      "update": update,
      "what": self._what,
      "in_a_row": self.in_a_row,
      "batch": held,
    }
    self._io.extend(layout.SKIPPED, step, [row])
    if hosts.is_first():
      more = f" and {len(held) - SHOWN} more" if len(held) > SHOWN else ""
      print(
        f"{self._name}: step {step}: the {self._what} is not finite, so this"
        f" optimizer step is not applied; its batch:"
        f" {', '.join(map(str, held[:SHOWN]))}{more}",
        file=sys.stderr, flush=True,
      )  # fmt: skip

  def check(self) -> None:
    """Ends the phase if it learns no more.

    Call it when the metrics of the step are written and no checkpoint yet.

    Raises:
      UserError: too many steps in a row were skipped, or a parameter is not
        finite.
    """
    saved = self._io.saved
    newest = f"is that of step {saved}" if saved else "does not exist yet"
    where = f"the newest checkpoint {newest}"
    if self._broken:
      raise UserError(
        f"{self._name}: a parameter is not finite after step {self._step};"
        f" {where}; lower lr"
      )
    if self.in_a_row >= self._most:
      raise UserError(
        f"{self._name}: the {self._what} was not finite in {self.in_a_row}"
        f" optimizer steps in a row, up to step {self._step}; {where};"
        f" {self._name}/skipped.jsonl names the batches; lower lr, or mend"
        " these data or rewards"
      )


def applied(updates: list[dict[str, Any]]) -> list[dict[str, Any]]:
  """The metrics of those optimizer steps that were applied."""
  return [u for u in updates if np.all(u["checks"]["applied"])]
