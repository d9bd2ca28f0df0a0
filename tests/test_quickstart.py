"""The quickstart as a newcomer runs it: from the shell, all phases."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from r1jax.run import checkpoint

ROOT = Path(__file__).parent.parent
LABELS = (
  "base", "r1_zero", "dev1", "dev2", "dev3", "r1", "distill", "small_rl"
)  # fmt: skip

# Text of a config that begins with the quickstart's.
QUICKSTART = f"""
import importlib.util
spec = importlib.util.spec_from_file_location(
  "quickstart", {str(ROOT / "configs" / "quickstart.py")!r})
quickstart = importlib.util.module_from_spec(spec)
spec.loader.exec_module(quickstart)
"""

# Two phases that save after every step; the language reward differs within
# a group even for an untrained model, so the gradients are not zero.
SHORT = f"""{QUICKSTART}
def get_config():
  c = quickstart.get_config("smoke")
  c.phases = ("base", "r1_zero")
  c.r1_zero.update(steps=8, save_every=1, ref_every=3)
  c.r1_zero.rewards = dict(accuracy=1.0, language=1.0)
  return c
"""


@pytest.fixture(scope="module")
def environment():
  """The tests', but with one device; the last of two flags counts."""
  flags = os.environ["XLA_FLAGS"]
  one = "--xla_force_host_platform_device_count=1"
  return os.environ | {"XLA_FLAGS": f"{flags} {one}"}


def command(config, workdir):
  launch = [sys.executable, "-m", "experiments.launch"]
  return [*launch, f"--config={config}", f"--workdir={workdir}"]


def test_smoke(tmp_path, environment):
  subprocess.run(
    command("configs/quickstart.py:smoke", tmp_path),
    cwd=ROOT,
    env=environment,
    check=True,
    timeout=400,
  )
  rows = json.loads((tmp_path / "results.json").read_text())
  assert [row["checkpoint"] for row in rows] == list(LABELS)
  for row in rows:
    assert set(row) == {
      "checkpoint", "pass@1", "cons@16", "format", "language", "tokens"
    }  # fmt: skip
  assert (tmp_path / "report.png").stat().st_size > 1000


def test_a_killed_run_ends_with_the_same_bits(tmp_path, environment):
  config = tmp_path / "short.py"
  config.write_text(SHORT)
  alone, killed = tmp_path / "alone", tmp_path / "killed"

  def run(workdir, **kwargs):
    return subprocess.Popen(
      command(config, workdir), cwd=ROOT, env=environment, **kwargs
    )

  assert run(alone).wait(300) == 0
  process = run(killed)
  metrics = killed / "r1_zero" / "metrics.jsonl"
  deadline = time.time() + 300
  while not metrics.exists() or len(metrics.read_text().splitlines()) < 4:
    assert process.poll() is None, "it ended before it could be killed"
    assert time.time() < deadline
    time.sleep(0.01)
  process.send_signal(signal.SIGKILL)
  process.wait()
  assert not (killed / "r1_zero" / "done.json").exists()
  assert run(killed).wait(300) == 0

  first, second = (
    checkpoint.load(d / "r1_zero" / "params") for d in (alone, killed)
  )
  base = checkpoint.load(alone / "base" / "params")
  equal = lambda a, b: np.array_equal(np.asarray(a), np.asarray(b))  # noqa: E731
  flat = [_leaves(tree) for tree in (first, second, base)]
  assert flat[0].keys() == flat[1].keys()
  assert all(equal(flat[0][k], flat[1][k]) for k in flat[0])
  assert not all(equal(flat[0][k], flat[2][k]) for k in flat[0])
  clocks = ("time", "seconds_", "tokens_per_s")
  steps = [
    [
      {k: v for k, v in json.loads(line).items() if not _is_clock(k, clocks)}
      for line in (d / "r1_zero" / "metrics.jsonl").read_text().splitlines()
    ]
    for d in (alone, killed)
  ]
  assert steps[0] == steps[1]
  assert len(steps[0]) == 8


def _is_clock(key, clocks):
  return any(key.startswith(c) or key.endswith(c) for c in clocks)


def _leaves(tree, prefix=""):
  if not isinstance(tree, dict):
    return {prefix: tree}
  out = {}
  for key, value in tree.items():
    out |= _leaves(value, f"{prefix}/{key}")
  return out
