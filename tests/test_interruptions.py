"""Real runs that are stopped by signals, full and read-only disks."""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from test_quickstart import QUICKSTART, _leaves

from r1jax.run import checkpoint

ROOT = Path(__file__).parents[1]
PHASES = ("base", "r1_zero", "eval_r1_zero")
CONFIG = f"""{QUICKSTART}
def get_config():
  c = quickstart.get_config("smoke")
  c.phases = {PHASES}
  c.base.update(steps=6, save_every=4)
  c.r1_zero.update(steps=12, save_every=5, ref_every=3)
  c.r1_zero.rewards = dict(accuracy=1.0, language=1.0)
  return c
"""
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("unignored")]


@pytest.fixture(scope="module")
def launch(tmp_path_factory):
  """Starts a run with one device; the last of two flags counts."""
  config = tmp_path_factory.mktemp("config") / "short.py"
  config.write_text(CONFIG)
  flags = os.environ["XLA_FLAGS"]
  one = "--xla_force_host_platform_device_count=1"
  environment = os.environ | {"XLA_FLAGS": f"{flags} {one}"}

  def start(workdir, **kwargs):
    return subprocess.Popen(
      [
        *(sys.executable, "-m", "experiments.launch"),
        *(f"--config={config}", f"--workdir={workdir}"),
      ],
      cwd=ROOT, env=environment, text=True, start_new_session=True,
      stdout=subprocess.PIPE, stderr=subprocess.PIPE, **kwargs,
    )  # fmt: skip

  return start


def finish(process):
  """What a run that ends well has printed; nothing is left of its processes."""
  said, error = process.communicate(timeout=600)
  assert process.returncode == 0, error
  return said


@pytest.fixture(scope="module")
def alone(launch, tmp_path_factory):
  """The seconds of a run with compiled programs, and what it leaves."""
  finish(launch(tmp_path_factory.mktemp("first")))
  workdir = tmp_path_factory.mktemp("alone")
  begin = time.monotonic()
  finish(launch(workdir))
  return time.monotonic() - begin, contents(workdir)


def contents(workdir):
  """Parameters, metrics without clocks, and the table of a run."""
  found = {}
  for phase in ("base", "r1_zero"):
    for key, leaf in _leaves(
      checkpoint.load(workdir / phase / "params")
    ).items():
      found[phase + key] = np.asarray(leaf).tobytes()
  for phase in PHASES:
    lines = (workdir / phase / "metrics.jsonl").read_text().splitlines()
    found[phase] = [
      {k: v for k, v in json.loads(line).items() if not _is_clock(k)}
      for line in lines
    ]
  found["rows"] = json.loads((workdir / "results.json").read_text())
  return found


def _is_clock(key):
  words = ("time", "seconds", "tokens_per_s", "memory")
  return any(word in key for word in words)


def same(workdir, alone):
  found = contents(workdir)
  assert found.keys() == alone.keys()
  for key in found:
    assert found[key] == alone[key], key


def stop(process, number, after, again=None):
  """Sends a signal after some seconds, and maybe again; checks the end.

  Returns:
    what was printed, and whether the run was stopped, not finished before.
  """
  with contextlib.suppress(subprocess.TimeoutExpired):
    process.wait(after)
  if process.poll() is None:
    process.send_signal(number)
  if again is not None and process.poll() is None:
    time.sleep(again)
    process.send_signal(number)
  said, error = process.communicate(timeout=300)
  assert "Traceback" not in said + error, said + error
  # Before Python answers signals, the system's own answer is as good.
  assert process.returncode in (0, 128 + number, -number), error
  with pytest.raises(ProcessLookupError):
    os.killpg(process.pid, 0)
  return said, process.returncode != 0


def nothing_is_lost(workdir, said):
  """The newest checkpoint of a phase that was stopped has all its steps."""
  for phase in ("base", "r1_zero"):
    if f"{phase}: stopped by" in said:
      metrics = workdir / phase / "metrics.jsonl"
      step = metrics.read_text().count("\n") if metrics.exists() else 0
      assert f"the same command goes on from step {step}\n" in said
      saved = checkpoint.steps(workdir / phase / "checkpoints")
      assert max(saved, default=0) == step


def stopped_again_and_again(start, root, whole, count, stop_once):
  """Stops runs `count` times in all; each ends as one that was left alone.

  Args:
    start: function of a directory that starts a run.
    root: of the directories.
    whole: what a run leaves.
    count: of stops.
    stop_once: function of a run and its directory; whether it was stopped.
  """
  number = 0
  while count > 0:
    workdir, number = root / str(number), number + 1
    for _ in range(min(count, 5)):
      if not stop_once(start(workdir), workdir):
        break
      count -= 1
    finish(start(workdir))
    same(workdir, whole)


@pytest.mark.parametrize(
  "number, count", [(signal.SIGTERM, 20), (signal.SIGHUP, 5)]
)
def test_signals_at_random_moments(number, count, launch, alone, tmp_path):
  draws = random.Random(int(number))
  seconds, whole = alone

  def stop_once(process, workdir):
    after = draws.uniform(0, 0.6 * seconds)
    said, stopped = stop(process, number, after)
    nothing_is_lost(workdir, said)
    print(f"{workdir.name}: {after:.1f} s", *said.splitlines()[-1:])
    return stopped

  stopped_again_and_again(launch, tmp_path, whole, count, stop_once)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_at_once(number, launch, alone, tmp_path):
  draws = random.Random(int(number))
  seconds, whole = alone
  for again in (0.0, 0.05, 0.6, 0.8):
    after = draws.uniform(0.2, 0.6) * seconds
    stop(launch(tmp_path), number, after, again)
  finish(launch(tmp_path))
  same(tmp_path, whole)


@contextlib.contextmanager
def small_disk(place, kilobytes):
  """A file system of its own of some size; skips where none can be made."""
  place.mkdir()
  command = ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "t", place]
  try:
    subprocess.run(command, check=True, capture_output=True)
  except (OSError, subprocess.CalledProcessError):
    pytest.skip("only root may mount")
  try:
    yield
  finally:
    subprocess.run(["umount", "-l", place], check=True)


def resize(place, options):
  command = ["mount", "-o", f"remount,{options}", place]
  subprocess.run(command, check=True)


@pytest.mark.parametrize("kilobytes", [8, 64, 1000, 6000, 20_000, 40_000])
def test_a_full_disk(kilobytes, launch, alone, tmp_path):
  with small_disk(tmp_path / "disk", kilobytes):
    workdir = tmp_path / "disk/run"
    process = launch(workdir)
    said, error = process.communicate(timeout=600)
    assert process.returncode == 2, said + error
    assert "Traceback" not in error
    (line,) = [x for x in error.splitlines() if x.startswith("error: ")]
    assert str(workdir) in line and "no space left on device" in line
    assert not list(workdir.rglob("*.tmp*"))
    resize(tmp_path / "disk", "size=500m")
    finish(launch(workdir))
    same(workdir, alone[1])


def test_a_read_only_disk(launch, alone, tmp_path):
  with small_disk(tmp_path / "disk", 500_000):
    workdir = tmp_path / "disk/run"
    resize(tmp_path / "disk", "ro")
    process = launch(workdir)
    said, error = process.communicate(timeout=600)
    assert process.returncode == 2
    assert said == "" and error.count("\n") == 1
    assert f"error: workdir {workdir} cannot be written (Read-only" in error
    resize(tmp_path / "disk", "rw")
    finish(launch(workdir))
    same(workdir, alone[1])


def test_two_launches_at_once(launch, alone, tmp_path):
  both = [launch(tmp_path), launch(tmp_path)]
  ended = [(*process.communicate(timeout=600), process) for process in both]
  (refused,) = [(s, e) for s, e, process in ended if process.returncode]
  assert refused[0] == ""
  (line,) = refused[1].splitlines()
  assert f"error: workdir {tmp_path} is in use by another process (" in line
  same(tmp_path, alone[1])
