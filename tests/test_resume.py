"""A run forgives: signals, full disks, damage, two launches, other keys."""

import contextlib
import fcntl
import fnmatch
import itertools
import json
import os
import random
import resource
import signal
import sys
import threading
import time
import tomllib
from pathlib import Path

import fake_phases
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_launch import contents, run
from test_launch_errors import changed, snapshot

from experiments import commandline, launch, sweep
from r1jax import cli, stopping
from r1jax.errors import UserError
from r1jax.run import checkpoint, checksums
from r1jax.run.logs import StepLog
from r1jax.types import Example, TrainState

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.usefixtures("unignored")


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
  """What a run leaves that nothing happens to."""
  workdir = tmp_path_factory.mktemp("alone") / "run"
  run(workdir)
  return workdir, left(workdir)


def left(workdir):
  """As `contents`; which checkpoints stay depends on where a run stopped."""
  found = contents(workdir)
  return {k: v for k, v in found.items() if not k.endswith("steps")}


def flip(path, bit):
  """Flips one bit of a file; the same call flips it back."""
  data = bytearray(path.read_bytes())
  data[bit // 8] ^= 1 << bit % 8
  path.write_bytes(data)


def signalled(number, step):
  """The fake phases, whose RL sends its own process a signal in a step."""

  def train(config, state, data, io):
    report = io.report

    def send(at, metrics):
      report(at, metrics)
      if config.name == "rl" and at == step:
        os.kill(os.getpid(), number)
        late = time.monotonic() + 60
        while not stopping.asked():  # a thread hears it
          assert time.monotonic() < late
          time.sleep(0.001)

    io.report = send
    return fake_phases.train(config, state, data, io)

  return fake_phases.PHASES | {"train": (fake_phases.Train, train)}


@pytest.mark.parametrize("number", stopping.SIGNALS)
def test_a_signal_saves_the_step_and_ends(number, alone, tmp_path, capfd):
  config = fake_phases.get_config()
  with stopping.listening(), pytest.raises(stopping.Stopped) as stopped:
    # The phase saves after two steps; this is the first one.
    launch.run(config, tmp_path, signalled(number, 0))
  assert stopped.value.code == 128 + number
  assert checkpoint.steps(tmp_path / "rl/checkpoints") == [1]
  said, error = capfd.readouterr()
  name = signal.Signals(number).name
  assert f"rl: stopped by {name}; the same command goes on from step 1" in said
  assert error == (
    f"{name}: the run saves at the end of this step and stops; a second signal"
    " stops it at once\n"
  )
  run(tmp_path)
  assert left(tmp_path) == alone[1]


def test_a_signal_in_a_rollout_saves_the_state_before_it(tmp_path):
  def train(config, state, data, io):
    tree = {"x": jnp.ones(2)}
    first, tree = io.restore(tree) or (0, tree)
    for step in range(first, config.steps):
      with io.stoppable(step, tree):
        if step == 1:
          os.kill(os.getpid(), signal.SIGTERM)
        while step == 1:
          stopping.check()
          time.sleep(0.001)
      io.report(step, {})
    raise AssertionError("it was not stopped")

  kinds = fake_phases.PHASES | {"train": (fake_phases.Train, train)}
  with stopping.listening(), pytest.raises(stopping.Stopped):
    launch.run(changed(phases=("base",)), tmp_path, kinds)
  assert checkpoint.steps(tmp_path / "base/checkpoints") == [1]


def test_an_ignored_signal_stays_ignored():
  before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
  try:
    with stopping.listening():
      os.kill(os.getpid(), signal.SIGHUP)
      time.sleep(0.05)
      assert not stopping.asked()
  finally:
    signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("size", (0, 20, 100, 300, 500, 800))
def test_a_full_disk_is_one_line_and_the_run_goes_on(
  size, alone, tmp_path, capfd
):
  hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
  resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
  try:
    with pytest.raises(UserError) as error:
      run(tmp_path / "run")
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
  said = str(error.value)
  assert "Traceback" not in capfd.readouterr().err
  assert "\n" not in said and "cannot be written (file too large: " in said
  assert str(tmp_path / "run") in said and "MB are needed, " in said
  for path in (tmp_path / "run").rglob("*"):
    assert ".tmp" not in path.name
    if path.suffix == ".jsonl":
      assert path.read_bytes()[-1:] in (b"\n", b"")
  run(tmp_path / "run")
  assert left(tmp_path / "run") == alone[1]


def test_damage_of_each_file_of_a_checkpoint_is_named(tmp_path):
  """One flipped bit at a time; then each file cut short, then lost."""
  config = changed(phases=("base",))
  launch.run(config, tmp_path, fake_phases.PHASES)
  path = tmp_path / "base/checkpoints/3"
  target = {"x": jnp.zeros(8)}
  target = TrainState(jnp.int32(0), target, (jnp.zeros(8),))
  draws = random.Random(0)
  files = [p for p in path.rglob("*") if p.is_file()]
  assert len(files) > 6
  for file in files:
    whole = file.read_bytes()
    assert whole
    for damage in ("bit", "bit", "bit", "cut", "lost"):
      if damage == "bit":
        flip(file, draws.randrange(8 * len(whole)))
      elif damage == "cut":
        file.write_bytes(whole[:-1])
      else:
        file.unlink()
      with pytest.raises(checkpoint.Damaged) as error:
        checkpoint.restore(path, target)
      assert f"{file.relative_to(path)} is " in str(error.value)
      file.write_bytes(whole)
  checkpoint.restore(path, target)


def test_the_run_goes_on_from_the_checkpoint_before(tmp_path, capsys):
  config = changed(phases=("base",))
  launch.run(config, tmp_path, fake_phases.PHASES)
  want = np.asarray(checkpoint.load(tmp_path / "base/params")["x"])
  metrics = (tmp_path / "base/metrics.jsonl").read_text().splitlines()
  newest = tmp_path / "base/checkpoints/3"
  flip(newest / "_METADATA", 99)
  (tmp_path / "base/done.json").unlink()
  capsys.readouterr()
  launch.run(config, tmp_path, fake_phases.PHASES)
  assert (
    f"base: the checkpoint {newest} is damaged: _METADATA is not what was"
    " written; the run goes on from step 2 before it\n"
  ) in capsys.readouterr().out
  found = checkpoint.load(tmp_path / "base/params")["x"]
  np.testing.assert_array_equal(np.asarray(found), want)
  assert {p.name for p in newest.parent.iterdir()} == {"2", "3"}
  again = (tmp_path / "base/metrics.jsonl").read_text().splitlines()
  assert list(map(_untimed, again)) == list(map(_untimed, metrics))


def _untimed(line):
  return {k: v for k, v in json.loads(line).items() if k != "time"}


def test_without_a_good_checkpoint_nothing_is_changed(tmp_path):
  config = changed(phases=("base",))
  launch.run(config, tmp_path, fake_phases.PHASES)
  (tmp_path / "base/done.json").unlink()
  for step in (2, 3):
    flip(tmp_path / f"base/checkpoints/{step}/_METADATA", 99)
  before = snapshot(tmp_path)
  with pytest.raises(UserError, match="checkpoints/3 is damaged: _METADATA is "
                     "not what was written; there is no good one"):  # fmt: skip
    launch.run(config, tmp_path, fake_phases.PHASES)
  assert snapshot(tmp_path) == before


def test_what_a_finished_phase_made_is_checked(tmp_path):
  config = fake_phases.get_config()
  run(tmp_path)
  for made, user in (
    ("kept/data.jsonl", "student"),
    ("rl/model.json", "eval_rl"),
    ("rl/params/_METADATA", "eval_rl"),
  ):
    (tmp_path / user / "done.json").unlink()
    flip(tmp_path / made, 77)
    phase, name = made.split("/")[0], made.split("/")[-1]
    with pytest.raises(UserError, match=f"{name} is not what was .* remove"):
      run(tmp_path)
    (tmp_path / phase / "done.json").unlink()
    launch.run(config, tmp_path, fake_phases.PHASES)


def test_checksums_are_those_of_sha256sum(tmp_path):
  (tmp_path / "inside").mkdir()
  (tmp_path / "inside" / "abc").write_text("abc")
  checksums.write(tmp_path)
  lines = (tmp_path / checksums.NAME).read_text().splitlines()
  # The example of FIPS 180-4.
  assert lines[0] == (
    "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    "  inside/abc"
  )
  assert lines[1].startswith("# ") and len(lines) == 2
  assert checksums.find_damage(tmp_path) == ""


def test_lost_lines_of_a_log_are_said(tmp_path, capsys):
  log = StepLog(tmp_path / "m.jsonl")
  for step in range(6):
    log.append([{"step": step, "x": step}])
  state = log.state
  log.append([{"step": 6, "x": 6}])
  path = tmp_path / "m.jsonl"
  whole = path.read_bytes()
  assert StepLog(path).rewind(6, state) == ""
  for damaged, message in (
    (whole[: len(whole) // 2], "3 of the 6 lines before step 6 are lost"),
    (whole[:70] + bytes(3), "3 of the 6 lines"),
    (b"", "6 of the 6 lines"),
    (whole.replace(b'"x": 2', b'"x": 3'), "lines before step 6 were changed"),
    (whole.replace(b'{"step": 2', b'["step": 2'), "1 of the 6 lines"),
  ):
    path.write_bytes(damaged)
    assert f"{path}: {message}" in StepLog(path).rewind(6, state)
  path.unlink()
  assert "6 of the 6 lines" in StepLog(path).rewind(6, state)


def test_the_lost_tail_of_the_metrics_is_said(tmp_path, capsys):
  config = changed(phases=("base",))
  launch.run(config, tmp_path, fake_phases.PHASES)
  (tmp_path / "base/done.json").unlink()
  path = tmp_path / "base/metrics.jsonl"
  path.write_bytes(path.read_bytes()[:-40])
  capsys.readouterr()
  launch.run(config, tmp_path, fake_phases.PHASES)
  said = f"base: {path}: 1 of the 3 lines before step 3 are lost"
  assert said in capsys.readouterr().out


def test_the_second_launch_is_refused_by_name(tmp_path):
  ours = None

  def inside(config, state, data, io):
    nonlocal ours
    before = snapshot(tmp_path)
    with pytest.raises(UserError) as error:
      run(tmp_path)
    ours = str(error.value)
    assert snapshot(tmp_path) == before
    raise KeyboardInterrupt

  kinds = fake_phases.PHASES | {"train": (fake_phases.Train, inside)}
  with pytest.raises(KeyboardInterrupt):
    launch.run(fake_phases.get_config(), tmp_path, kinds)
  assert f"{tmp_path} is in use by another process ({os.getpid()} on " in ours
  run(tmp_path)  # The lock went with the launch.


def test_leftovers_of_a_killed_process_go_at_the_next_start(tmp_path):
  run(tmp_path)
  places = [
    tmp_path / "rl/checkpoints/.2.tmp-ab/2",
    tmp_path / "rl/.params.tmp-cd/params",
    tmp_path / "data/.x.tmp-ef/x",
  ]
  for place in places:
    place.mkdir(parents=True)
    (place / "part").write_text("?")
  run(tmp_path)
  assert not list(tmp_path.rglob("*.tmp*"))


def test_a_reader_sees_whole_checkpoints_only(tmp_path, monkeypatch):
  """Also when the removal of an old one stops at any file."""
  from r1jax import files

  for step in (1, 2):
    checkpoint.save_step(tmp_path, step, {"x": jnp.float32(step)})
  seen = []

  def dies(path, **_):
    seen.extend(checkpoint.steps(tmp_path))
    raise KeyboardInterrupt

  with monkeypatch.context() as patch, contextlib.suppress(KeyboardInterrupt):
    patch.setattr(files.shutil, "rmtree", dies)
    files.remove_directory(tmp_path / "1")
  assert seen == [2]
  assert checkpoint.steps(tmp_path) == [2]


def test_a_checkpoint_moves_to_another_mesh(tmp_path):
  devices = np.array(jax.devices())
  axis = jax.sharding.PartitionSpec("d")

  def placed(count):
    mesh = jax.sharding.Mesh(devices[:count], ("d",))
    sharding = jax.sharding.NamedSharding(mesh, axis)
    return {"x": jax.device_put(jnp.arange(16.0), sharding)}

  for there, here in itertools.permutations((1, 2, 8), 2):
    path = tmp_path / f"{there}-{here}"
    checkpoint.save(path, placed(there))
    found = checkpoint.restore(path, placed(here))["x"]
    assert found.sharding.mesh.size == here
    np.testing.assert_array_equal(np.asarray(found), np.arange(16.0))


def test_a_stale_lock_does_not_block(tmp_path):
  (tmp_path / ".lock").write_text("1 on a machine that is gone")
  run(tmp_path)
  with open(tmp_path / ".lock") as lock:
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_rejection_goes_on_from_its_finished_rollouts(tmp_path):
  """Also when the lines of the last step are not all there."""

  def reject(config, state, data, io):
    first, rows = io.resume("kept.jsonl", "examples")
    begun.append(first)
    kept = [Example(row["prompt"], row["completion"]) for row in rows]
    for step in range(first, 4):
      if step == dies_at:
        raise KeyboardInterrupt
      found = [Example(f"q{step}", str(i)) for i in range(step)]
      kept += found
      io.extend("kept.jsonl", step, found)
      if step == dies_at - 0.5:
        raise KeyboardInterrupt
      io.report(step, {"examples": len(kept)})
    return state, kept

  kinds = fake_phases.PHASES | {"reject": (fake_phases.Reject, reject)}
  config = changed(phases=("base", "rl", "eval_rl", "kept"))
  begun = []
  for moment in (2, 2.5, 3, 3.5):
    dies_at = moment
    with pytest.raises(KeyboardInterrupt):
      launch.run(config, tmp_path, kinds)
  log = tmp_path / "kept/kept.jsonl"
  log.write_bytes(log.read_bytes()[:-200])  # The disk lost more than a step.
  with pytest.raises(UserError, match="kept.init is eval_rl there, rl here"):
    other = changed(phases=("base", "rl", "kept"), kept__init="rl")
    launch.run(other, tmp_path, kinds)
  dies_at = 9
  launch.run(config, tmp_path, kinds)
  assert begun == [0, 2, 2, 3, 2]
  rows = (tmp_path / "kept/data.jsonl").read_text().splitlines()
  want = [(f"q{step}", str(i)) for step in range(4) for i in range(step)]
  assert [tuple(json.loads(row).values()) for row in rows] == want
  steps = (tmp_path / "kept/metrics.jsonl").read_text().splitlines()
  assert [json.loads(line)["step"] for line in steps] == [0, 1, 2, 3]
  assert not log.exists()


def test_a_config_is_found_from_any_directory(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  shipped = commandline.find("configs/quickstart.py")
  assert Path(shipped) == ROOT / "configs/quickstart.py"
  own = tmp_path / "configs/quickstart.py"
  own.parent.mkdir()
  own.touch()
  assert Path(commandline.find("configs/quickstart.py")).samefile(own)


def test_every_package_is_installed():
  """So that `python -m experiments.launch` works in any directory."""
  with open(ROOT / "pyproject.toml", "rb") as file:
    found = tomllib.load(file)["tool"]["setuptools"]["packages"]["find"]
  there = {
    str(path.parent.relative_to(ROOT)).replace("/", ".")
    for top in ("configs", "experiments", "r1jax", "tools")
    for path in (ROOT / top).rglob("*.py")
  }
  for package in there:
    assert any(fnmatch.fnmatch(package, one) for one in found["include"])


def test_a_sweep_hands_its_signals_on(tmp_path):
  """It ends when the run that it has started has saved and ended."""
  child = (
    "import pathlib, signal, sys, time\n"
    "def save(*_):\n"
    "  pathlib.Path('saved').touch()\n"
    "  sys.exit(0)\n"
    "signal.signal(15, save)\n"
    "pathlib.Path('ready').touch()\n"
    "time.sleep(60)\n"
  )
  ready, saved = tmp_path / "ready", tmp_path / "saved"

  def send():
    while not ready.exists():
      time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGTERM)

  before = signal.getsignal(signal.SIGTERM)
  with cli.one_line_errors(), pytest.raises(stopping.Stopped):
    threading.Thread(target=send).start()
    sweep.run([sys.executable, "-c", child], cwd=tmp_path)
  signal.signal(signal.SIGTERM, before)
  assert saved.exists()
