"""The numbers of a run where TensorBoard and others look for them."""

import json
import sys
import types

import fake_phases
import pytest
from tensorboard.backend.event_processing.event_accumulator import (
  EventAccumulator,
)

from experiments import launch
from r1jax import files
from r1jax.errors import UserError
from r1jax.run.trackers import Trackers


def run(workdir, *trackers, die_at=None):
  config = fake_phases.get_config()
  config.trackers = trackers
  config.phases = ("base", "rl", "eval_rl")
  config.rl.update(steps=4, save_every=2)
  kinds = dict(fake_phases.PHASES)
  if die_at is not None:
    kinds["train"] = (fake_phases.Train, dies(die_at))
  launch.run(config, workdir, kinds)


def dies(at):
  """The walk, stopped by an error when the phase rl begins a step."""

  def train(config, state, data, io):
    report = io.report

    def reporting(step, metrics):
      if config.name == "rl" and step == at:
        raise InterruptedError
      report(step, metrics)

    io.report = reporting
    return fake_phases.train(config, state, data, io)

  return train


def events(workdir, phase):
  """Tag -> list of (step, value, time), as TensorBoard shows them."""
  found = EventAccumulator(str(workdir / "tensorboard" / phase))
  found.Reload()
  return {
    tag: [(e.step, e.value, e.wall_time) for e in found.Scalars(tag)]
    for tag in found.Tags()["scalars"]
  }


def test_tensorboard_has_the_lines_of_the_metrics(tmp_path):
  run(tmp_path, "tensorboard")
  for phase in ("base", "rl", "eval_rl"):
    rows = files.read(tmp_path / phase / "metrics.jsonl")
    shown = events(tmp_path, phase)
    tags = {k for row in rows for k in row} - {"step", "time"}
    # TensorBoard's names have no "@".
    assert set(shown) == {tag.replace("@", "_") for tag in tags}
    for tag in tags:
      steps, values, times = zip(*shown[tag.replace("@", "_")])
      assert list(steps) == [row["step"] for row in rows]
      assert values == pytest.approx([row[tag] for row in rows], rel=1e-6)
      assert times == pytest.approx([row["time"] for row in rows], abs=1e-3)


def test_a_resumed_phase_shows_each_step_once(tmp_path):
  with pytest.raises(InterruptedError):
    run(tmp_path, "tensorboard", die_at=3)
  # Step 2 is written, and its checkpoint is not: it will be written again.
  assert [step for step, *_ in events(tmp_path, "rl")["norm"]] == [0, 1, 2]
  run(tmp_path, "tensorboard")
  rows = files.read(tmp_path / "rl/metrics.jsonl")
  steps, values, _ = zip(*events(tmp_path, "rl")["norm"])
  assert steps == (0, 1, 2, 3)
  assert values == pytest.approx([row["norm"] for row in rows], rel=1e-6)


class Service(types.ModuleType):
  """What wandb and trackio have in common, on paper."""

  def __init__(self, fail=False):
    super().__init__("service")
    self.calls, self._fail = [], fail

  def init(self, **keys):
    self.calls.append(("init", keys))

  def log(self, numbers, step):
    if self._fail and step == 1:
      raise ConnectionError("no network\nat all")
    self.calls.append(("log", step, numbers))

  def finish(self):
    self.calls.append(("finish",))


@pytest.mark.parametrize("name", ["wandb", "trackio"])
def test_a_service_gets_the_numbers(name, tmp_path, monkeypatch):
  service = Service()
  monkeypatch.setitem(sys.modules, name, service)
  trackers = Trackers((name,), tmp_path / "run", "rl")
  trackers.log({"step": 0, "time": 1.0, "reward": 0.5, "bad": None})
  trackers.log({"step": 1, "time": 2.0, "reward": 1, "text": "x"})
  trackers.close()
  (_, keys), *logged, end = service.calls
  assert keys["name"].startswith("run/rl") and keys["resume"] == "allow"
  assert logged == [("log", 0, {"reward": 0.5}), ("log", 1, {"reward": 1.0})]
  assert end == ("finish",)
  # A resumed phase goes on with the same run there.
  again = Trackers((name,), tmp_path / "run", "rl")
  again.log({"step": 2, "time": 3.0, "reward": 0.0})
  assert service.calls[-2][1] == keys
  # That of another directory does not, though its last name is the same.
  other = Trackers((name,), tmp_path / "other/run", "rl")
  other.log({"step": 0, "time": 1.0, "reward": 0.5})
  assert service.calls[-2][1] != keys


def test_a_tracker_that_fails_does_not_end_the_run(
  tmp_path, monkeypatch, capsys
):
  service = Service(fail=True)
  monkeypatch.setitem(sys.modules, "wandb", service)
  run(tmp_path, "wandb", "tensorboard")
  warnings = capsys.readouterr().err.splitlines()
  assert "warning: base: wandb gets no more numbers (no network)" in warnings
  assert len(events(tmp_path, "rl")["norm"]) == 4
  assert (tmp_path / "results.json").exists()


def test_a_package_that_is_missing_is_said_first(tmp_path, monkeypatch):
  monkeypatch.setitem(sys.modules, "wandb", None)
  with pytest.raises(UserError, match=r"wandb is not installed.*\[wandb\]"):
    run(tmp_path / "run", "wandb")
  with pytest.raises(UserError, match='trackers.*"tensorbord" is unknown'):
    run(tmp_path / "run", "tensorbord")
  assert not (tmp_path / "run").exists()


def test_without_trackers_nothing_is_written(tmp_path):
  run(tmp_path)
  assert not (tmp_path / "tensorboard").exists()
  assert "trackers" in json.loads((tmp_path / "config.json").read_text())
