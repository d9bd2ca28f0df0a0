"""Phases that take no time, for the tests of the launcher.

Run as a program it is a launcher of them, to be killed from outside:
  python tests/fake_phases.py WORKDIR [STEP_OF_RL_TO_DIE_AT]
"""

import dataclasses
import os
import signal
import sys
from typing import ClassVar, Literal

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from r1jax.phases.common import Phase
from r1jax.types import Example, TrainState

DIE_AT = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task:
  """A task that makes nothing."""

  kind: Literal["fake"] = "fake"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Train(Phase):
  """The keys of a walk."""

  IS_PLOTTED: ClassVar[bool] = True

  # Where examples come from.
  data: str
  # Steps of the walk.
  steps: int
  # Length of a step.
  lr: float
  # Steps between two checkpoints.
  save_every: int
  # Where problems come from.
  task: Task


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reject(Phase):
  """The keys of the phase that makes examples."""

  MAKES_EXAMPLES: ClassVar[bool] = True
  NEEDS_START: ClassVar[bool] = True


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluate(Phase):
  """The keys of an evaluation."""

  NEEDS_START: ClassVar[bool] = True

  # Name of the row.
  label: str


def train(config, state, data, io):
  """A walk whose every step depends on all before it."""
  start = jnp.zeros(8) if state is None else state.params["x"]
  shift = 0.1 * len(data) if isinstance(data, list) else 0.0
  state = TrainState(jnp.int32(0), {"x": jnp.copy(start)}, (jnp.zeros(8),))
  first, state = io.restore(state) or (0, state)
  io.bar(config.steps, first, show=("norm",))
  for step in range(first, config.steps):
    if config.name == "rl" and step == DIE_AT:
      os.kill(os.getpid(), signal.SIGKILL)
    noise = jax.random.normal(
      jax.random.fold_in(jax.random.key(config.seed), step), (8,)
    )
    moment = 0.9 * state.opt_state[0] + noise * config.lr + shift
    x = jnp.sin(state.params["x"] + moment)
    state = TrainState(state.step + 1, {"x": x}, (moment,))
    io.report(step, {"norm": float(jnp.abs(x).sum()), "accuracy": 0.5})
    io.samples(step, [{"text": str(step)}])
    if io.due(step + 1, config.save_every, config.steps):
      io.save(step + 1, state)
  return state, None


def reject(config, state, data, io):
  """Examples that depend on the parameters."""
  io.report(0, {"kept": 1.0})
  count = 1 + int(float(jnp.abs(state.params["x"]).sum()) * 100) % 7
  return state, [Example(f"q{i}", f"对 {i}") for i in range(count)]


def evaluate(config, state, data, io):
  """A row."""
  score = float(jnp.abs(state.params["x"]).sum())
  io.report(0, {"pass@1": score})
  return state, {"checkpoint": config.label, "pass@1": score, "tokens": 9.0}


PHASES = {
  "train": (Train, train),
  "reject": (Reject, reject),
  "evaluate": (Evaluate, evaluate),
}
MODEL = dict(
  vocab_size=8, d_model=8, n_layers=1, n_heads=1, n_kv_heads=1, head_dim=8,
  d_ff=8, max_length=8,
)  # fmt: skip


def get_config(_=""):
  """base -> rl -> examples -> student, with two evaluations."""
  c = ConfigDict()
  c.seed = 3
  c.task = dict(kind="fake")
  c.models = dict(small=MODEL)
  c.phases = ("base", "rl", "eval_rl", "kept", "student", "eval_student")
  walk = dict(phase="train", model="small", steps=3, save_every=2, lr=0.1)
  c.base = dict(walk, data="corpus")
  c.rl = dict(walk, init="base", data="problems")
  c.eval_rl = dict(phase="evaluate", init="rl", label="rl")
  c.kept = dict(phase="reject", init="eval_rl")
  c.student = dict(walk, data="kept")
  c.eval_student = dict(phase="evaluate", init="student", label="student")
  c.report = dict(plot=("rl",))
  return c


if __name__ == "__main__":
  from experiments import launch

  DIE_AT = int(sys.argv[2]) if len(sys.argv) > 2 else None
  launch.run(get_config(), sys.argv[1], PHASES)
