"""Sweeps: their points, their table, and the one that the project has."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from configs import learning_rates
from experiments import plan, sweep
from r1jax import files
from r1jax.errors import UserError
from r1jax.phases import PHASES

ROOT = Path(__file__).parents[1]


def test_a_sweep_has_a_directory_a_point(tmp_path):
  path = tmp_path / "config.py"
  path.write_text(
    "def sweep(add):\n"
    "  for s in (0, 1):\n"
    "    add(**{'seed': s, 'rl.lr': 1e-3})\n"
  )
  assert sweep.points(str(path)) == [
    ("seed=0,rl.lr=0.001", {"seed": 0, "rl.lr": 0.001}),
    ("seed=1,rl.lr=0.001", {"seed": 1, "rl.lr": 0.001}),
  ]
  path.write_text("def sweep(add):\n  add(seed=1)\n  add(seed=1)\n")
  with pytest.raises(UserError, match="adds the point seed=1 twice"):
    sweep.points(str(path))
  path.write_text("")
  with pytest.raises(UserError, match="defines no sweep"):
    sweep.points(str(path))


def results(root, name, *rows):
  (root / name).mkdir()
  (root / name / "results.json").write_text(json.dumps(rows))


def test_the_table_names_the_best_point(tmp_path, capsys):
  """By the last evaluation of each; the second failed."""
  row = {"checkpoint": "end", "tokens": 9.0}
  first = {"checkpoint": "base", "pass@1": 0.9, "tokens": 1.0}
  results(tmp_path, "a=1", first, row | {"pass@1": 0.25})
  results(tmp_path, "a=3", first, row | {"pass@1": 0.5})
  results(tmp_path, "a=4", first, row | {"pass@1": 0.375})
  points = [(f"a={i}", {"a": str(i)}) for i in (1, 2, 3, 4)]
  assert sweep.finish(tmp_path, points, "pass@1") == "a=3"
  out = capsys.readouterr().out
  assert "best: pass@1 0.500 with --config.a=3" in out
  assert [line.split()[0] for line in out.splitlines()[2:6]] == [
    "a=1", "a=2", "a=3", "a=4"
  ]  # fmt: skip
  written = json.loads((tmp_path / "sweep.json").read_text())
  assert written["best"] == "a=3" and len(written["points"]) == 4
  assert written["points"][2]["pass@1"] == 0.5


def test_a_metric_that_no_point_has(tmp_path, capsys):
  results(tmp_path, "a=1", {"checkpoint": "end", "tokens": 9.0})
  assert sweep.finish(tmp_path, [("a=1", {})], "pass@9") is None
  assert "no point has pass@9; --metric names one of: tokens" in (
    capsys.readouterr().out
  )


def test_the_points_of_the_shipped_sweep_are_right():
  path = str(ROOT / "configs/learning_rates.py")
  found = sweep.points(path)
  assert len(found) == 2
  for size in ("full", "smoke"):
    assert plan.resolve(learning_rates.get_config(size), PHASES)


@pytest.mark.slow
def test_the_shipped_sweep(tmp_path):
  command = [
    *(sys.executable, "-m", "experiments.sweep"),
    "--config=configs/learning_rates.py:smoke", f"--workdir={tmp_path}",
  ]  # fmt: skip
  done = subprocess.run(
    command, cwd=ROOT, check=True, timeout=600, capture_output=True, text=True
  )
  points = sorted(p.name for p in tmp_path.iterdir() if p.is_dir())
  assert points == ["r1_zero.lr=0.0001", "r1_zero.lr=0.0004"]
  for point in points:
    rows = files.read(tmp_path / point / "r1_zero/metrics.jsonl")
    assert len(rows) == 2
  written = json.loads((tmp_path / "sweep.json").read_text())
  assert [p["point"] for p in written["points"]] == points
  assert f"best: {written['metric']}" in done.stdout
