"""A run that was killed, at any moment, ends as one that was left alone."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import fake_phases
import jax
import numpy as np
import pytest

from experiments import launch
from r1jax import files
from r1jax.errors import UserError
from r1jax.run import checkpoint

ROOT = Path(__file__).parents[1]


class Killed(BaseException):
  """What no `except Exception` on the way can stop, as a real kill."""


class Killer:
  """Dies at the n-th thing that is done to the disk, before or after it."""

  def __init__(self, monkeypatch, at=None):
    self.events = 0
    self._at = at
    for owner, name in (
      (os, "replace"),
      (os, "write"),
      (Path, "rename"),
      (Path, "write_text"),
      (shutil, "rmtree"),
      (checkpoint.ocp.Checkpointer, "save"),
    ):
      monkeypatch.setattr(owner, name, self._wrap(getattr(owner, name)))

  def _event(self):
    # What is dead stays dead: it does not tidy up either.
    self.events += 1
    if self._at and self.events >= self._at:
      raise Killed

  def _wrap(self, function):
    def wrapped(*args, **kwargs):
      if function is WRITE and args[0] > 2 and self.events + 1 == self._at:
        WRITE(args[0], args[1][: len(args[1]) // 2])  # A torn line.
      self._event()
      result = function(*args, **kwargs)
      self._event()
      return result

    return wrapped


WRITE = os.write


def run(workdir):
  return launch.run(fake_phases.get_config(), workdir, fake_phases.PHASES)


def contents(workdir):
  """All that a run leaves, without times."""
  found = {}
  for path in sorted(Path(workdir).rglob("*.json*")):
    inside = path.relative_to(workdir)
    if "checkpoints" in inside.parts or "params" in inside.parts:
      continue
    if path.suffix == ".jsonl":
      rows = files.read(path)
    else:
      rows = json.loads(path.read_text())
      rows = rows if isinstance(rows, list) else [rows]
    timed = ("time", "seconds", "resumed_at")
    found[str(inside)] = [
      {k: v for k, v in row.items() if k not in timed} for row in rows
    ]
  for phase in ("base", "rl", "student"):
    params = checkpoint.load(Path(workdir) / phase / "params")
    found[phase] = np.asarray(params["x"]).tobytes()
    found[f"{phase} steps"] = checkpoint.steps(
      Path(workdir) / phase / "checkpoints"
    )
  return found


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
  """The run left alone: its directory, its contents, its rows."""
  workdir = tmp_path_factory.mktemp("alone") / "run"
  rows = run(workdir)
  return workdir, contents(workdir), rows


def test_phases_hand_on_states_and_data(alone):
  workdir, found, rows = alone
  assert [r["checkpoint"] for r in rows] == ["rl", "student"]
  assert json.loads((workdir / "results.json").read_text()) == rows
  assert found["kept/data.jsonl"][0] == {"prompt": "q0", "completion": "对 0"}
  assert found["rl/metrics.jsonl"][2]["step"] == 2
  assert found["eval_rl/done.json"][0]["state"] == "rl"
  assert found["rl steps"] == [2, 3]
  assert (workdir / "report.png").exists()


def test_a_finished_run_is_not_run_again(alone, capsys):
  workdir, found, rows = alone
  stamps = {p: p.stat().st_mtime_ns for p in workdir.rglob("done.json")}
  assert run(workdir) == rows
  assert contents(workdir) == found
  assert all(p.stat().st_mtime_ns == t for p, t in stamps.items())
  out = capsys.readouterr().out
  assert "rl: done" in out and "student" in out


def test_what_is_on_disk_at_any_moment_resumes(alone, tmp_path, monkeypatch):
  """Killed again and again, each time a little later in what is left."""
  with monkeypatch.context() as patch:
    total = Killer(patch)
    run(tmp_path / "counted")
  assert total.events > 100
  kills, at = 0, 1
  while True:
    try:
      with monkeypatch.context() as patch:
        Killer(patch, at)
        run(tmp_path / "run")
      break
    except Killed:
      kills += 1
      at = 1 + (at + 7) % 43
  assert kills > 8
  assert contents(tmp_path / "run") == alone[1]
  assert not list((tmp_path / "run").rglob("*tmp*"))


@pytest.mark.slow
def test_a_kill_at_every_single_moment_resumes(tmp_path, monkeypatch):
  config = fake_phases.get_config()
  # Checkpoints, one of which is removed; parameters; examples.
  config.phases = ("rl", "kept")
  config.rl.update(init="", save_every=1)
  config.kept.init = "rl"
  config.report.plot = ()

  def short(workdir):
    launch.run(config, workdir, fake_phases.PHASES)

  def result(workdir):
    names = ("metrics.jsonl", "samples.jsonl", "data.jsonl")
    rows = [
      [{k: v for k, v in row.items() if k != "time"} for row in rows]
      for p in ("rl", "kept")
      for rows in [files.read(workdir / p / n) for n in names]
    ]
    params = checkpoint.load(workdir / "rl/params")["x"]
    return rows, np.asarray(params).tobytes()

  with monkeypatch.context() as patch:
    whole = Killer(patch)
    short(tmp_path / "whole")
  for at in range(1, whole.events + 1):
    workdir = tmp_path / str(at)
    with monkeypatch.context() as patch, pytest.raises(Killed):
      Killer(patch, at)
      short(workdir)
    short(workdir)
    assert result(workdir) == result(tmp_path / "whole"), at


def test_sigkill_in_the_middle_of_rl(alone, tmp_path):
  script = [sys.executable, ROOT / "tests/fake_phases.py", tmp_path / "run"]
  environment = os.environ | {"PYTHONPATH": str(ROOT)}
  killed = subprocess.run([*script, "2"], env=environment)
  assert killed.returncode == -9
  assert not (tmp_path / "run/rl/done.json").exists()
  run(tmp_path / "run")
  assert contents(tmp_path / "run") == alone[1]
  done = json.loads((tmp_path / "run/rl/done.json").read_text())
  assert done["resumed_at"] == 2


def test_an_interrupt_says_where_it_goes_on(tmp_path, capsys):
  def stop(config, state, data, io):
    io.save(4, {"x": jax.numpy.ones(2)})
    raise KeyboardInterrupt

  config = fake_phases.get_config()
  kinds = fake_phases.PHASES | {"train": (fake_phases.Train, stop)}
  with pytest.raises(KeyboardInterrupt):
    launch.run(config, tmp_path, kinds)
  said = "base: stopped; the same command goes on from step 4"
  assert said in capsys.readouterr().out


def test_a_phase_reads_the_parameters_of_its_parents(tmp_path):
  """Of any number of earlier phases, beside the one that it starts from."""
  seen = {}

  def evaluate(config, state, data, io):
    for name in config.parents:
      fields, params = io.parent(name)
      seen[name] = fields["d_model"], np.asarray(params["x"])
    return fake_phases.evaluate(config, state, data, io)

  config = fake_phases.get_config()
  config.eval_student.parents = dict(first="base", last="eval_rl")
  kinds = fake_phases.PHASES | {"evaluate": (fake_phases.Evaluate, evaluate)}
  launch.run(config, tmp_path, kinds)
  assert {name: width for name, (width, _) in seen.items()} == {
    "first": 8, "last": 8
  }  # fmt: skip
  for name, phase in (("first", "base"), ("last", "rl")):
    made = checkpoint.load(tmp_path / phase / "params")
    np.testing.assert_array_equal(seen[name][1], made["x"])


def test_a_parent_is_a_phase_before(tmp_path):
  config = fake_phases.get_config()
  config.rl.parents = dict(helpful="student")
  with pytest.raises(UserError, match="rl.parents.helpful: .student. is not a"):
    launch.run(config, tmp_path / "run", fake_phases.PHASES)
  assert not (tmp_path / "run").exists()
