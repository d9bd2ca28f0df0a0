"""Lines are written once, whole, and survive being killed."""

import json
import math

import jax.numpy as jnp
import numpy as np
import pytest

from r1jax import files
from r1jax.errors import UserError
from r1jax.run.logs import Progress, StepLog
from r1jax.run.phase_io import PhaseIO


def test_encode_is_valid_json_whatever_the_numbers():
  row = {
    "a": np.float32(0.5),
    "b": np.int64(3),
    "c": math.nan,
    "d": [1, math.inf],
    "e": jnp.float32(2.0),
    "zh": "对",
  }
  line = files.encode(row)
  assert line.endswith("\n") and line.count("\n") == 1 and "对" in line
  assert json.loads(line) == {
    "a": 0.5,
    "b": 3,
    "c": None,
    "d": [1, None],
    "e": 2.0,
    "zh": "对",
  }


def test_a_torn_last_line_is_left_out_and_cut_off(tmp_path):
  path = tmp_path / "m.jsonl"
  path.write_text('{"step": 0}\n{"step": 1}\n{"step": 2, "x"')
  assert [r["step"] for r in files.read(path)] == [0, 1]
  StepLog(path).rewind(5)
  assert path.read_text() == '{"step": 0}\n{"step": 1}\n'


def test_only_a_torn_line(tmp_path):
  path = tmp_path / "m.jsonl"
  path.write_text('{"st')
  StepLog(path).rewind(0)
  assert path.read_text() == ""


def test_a_broken_line_is_named(tmp_path):
  path = tmp_path / "m.jsonl"
  path.write_text('{"step": 0}\noops\n{"step": 2}\n')
  with pytest.raises(UserError, match=r"m\.jsonl:2"):
    files.read(path)


def test_rewind_drops_what_comes_again(tmp_path):
  log = StepLog(tmp_path / "m.jsonl")
  for step in range(4):
    log.append([{"step": step, "x": 0.1 * step}])
  before = (tmp_path / "m.jsonl").read_text().splitlines()
  log.rewind(2)
  assert (tmp_path / "m.jsonl").read_text().splitlines() == before[:2]
  assert [p.name for p in tmp_path.iterdir()] == ["m.jsonl"]


def test_report_sorts_its_keys_after_step_and_time(tmp_path):
  io = PhaseIO(tmp_path, "rl")
  io.report(0, {"b": 1.0, "a": 2.0})
  assert list(files.read(io.dir / "metrics.jsonl")[0]) == [
    "step",
    "time",
    "a",
    "b",
  ]


def test_files_end_up_as_if_nothing_had_happened(tmp_path):
  def steps(io, first, last, save):
    for step in range(first, last):
      io.report(step, {"x": step})
      io.samples(step, [{"text": f"{step}a"}, {"text": f"{step}b"}])
      if step + 1 == save:
        io.save(save, {"x": jnp.ones(2)})

  steps(PhaseIO(tmp_path, "rl"), 0, 5, save=3)
  io = PhaseIO(tmp_path, "rl")
  assert io.restore({"x": jnp.zeros(2)})[0] == 3
  steps(io, 3, 6, save=6)
  rows = files.read(io.dir / "metrics.jsonl")
  assert [r["step"] for r in rows] == list(range(6))
  samples = files.read(io.dir / "samples.jsonl")
  assert [r["text"] for r in samples] == [
    f"{s}{x}" for s in range(6) for x in "ab"
  ]


def test_a_phase_without_checkpoints_begins_its_files_anew(tmp_path):
  for _ in range(2):
    io = PhaseIO(tmp_path, "eval")
    io.report(0, {"x": 1})
    io.write("rows.jsonl", [{"y": 1}])
  assert len(files.read(io.dir / "metrics.jsonl")) == 1
  assert files.read(io.dir / "rows.jsonl") == [{"y": 1}]


def test_saving_before_reporting_is_refused(tmp_path):
  io = PhaseIO(tmp_path, "rl")
  io.save(1, {"x": jnp.ones(2)})
  with pytest.raises(RuntimeError, match="save comes last"):
    io.report(0, {"x": 1})


def test_a_damaged_checkpoint_leaves_the_metrics_alone(tmp_path):
  io = PhaseIO(tmp_path, "rl")
  io.report(0, {"x": 1})
  io.save(1, {"x": jnp.ones(2)})
  io.report(1, {"x": 1})
  before = (io.dir / "metrics.jsonl").read_bytes()
  (io.dir / "checkpoints/1/_METADATA").write_text("{")
  with pytest.raises(UserError, match="checkpoints/1"):
    PhaseIO(tmp_path, "rl").restore({"x": jnp.zeros(2)})
  assert (io.dir / "metrics.jsonl").read_bytes() == before


def test_progress_without_a_terminal_is_ten_lines(capsys):
  bar = Progress("rl", 200, first=0, show=("reward", "absent"))
  for done in range(1, 201):
    bar.update(done, {"reward": 0.25})
  bar.close()
  lines = capsys.readouterr().out.splitlines()
  assert len(lines) == 10
  assert lines[0].startswith("rl  20/200  reward 0.250")
