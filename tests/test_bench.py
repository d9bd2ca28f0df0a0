"""The benchmark's line, on a model small enough for a test."""

import json

import jax
import pytest
from hf_files import write_tokenizer

from r1jax import hf
from r1jax import model as model_lib
from r1jax.model import ModelConfig
from r1jax.sampling.sampler import SamplerConfig
from tools.bench import iteration, learner, verifiers
from tools.bench import sampler as bench
from tools.bench.__main__ import main

MODEL = ModelConfig(
  vocab_size=640, d_model=16, n_layers=2, n_heads=4, n_kv_heads=2, head_dim=4,
  d_ff=24, max_length=64,
)  # fmt: skip


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
  path = tmp_path_factory.mktemp("bench") / "model"
  hf.save(path, MODEL, model_lib.init(MODEL, jax.random.key(0)))
  write_tokenizer(path)
  return path


@pytest.mark.parametrize("workload", bench.WORKLOADS)
def test_a_line(workload, directory, capsys):
  # Other programs may hold the cores while the floor is measured, but not
  # three times.
  for _ in range(3):
    main(
      ["sampler", f"--model=hf:{directory}", f"--workload={workload}",
       "--prompts=4", "--group=2", "--slots=4", "--prompt-tokens=5",
       "--new-tokens=24", "--repeats=1"]
    )  # fmt: skip
    row = json.loads(capsys.readouterr().out)
    if row["floor_share"] < 1:
      break
  assert row["workload"] == workload and row["dtype"] == "float32"
  assert row["tokens"] == 8 * 24 or workload == "heavy_tail"
  assert row["tokens_per_s"] == pytest.approx(
    row["tokens"] / row["seconds"][0], rel=0.01
  )
  # No slot waits while there is something in the queue.
  assert row["occupancy"] == 1.0
  assert 0 < row["floor_share"] < 1
  if workload == "long":
    assert row["ms_per_step"].keys() == row["reading_ms_per_step"].keys()


def test_bytes_of_a_token():
  """By hand: 2 layers, 2 heads of 4 numbers, keys and values."""
  config = {"slots": 1, "max_new_tokens": 1, "eos_id": 1}
  plain = SamplerConfig(**config)
  assert bench.kv_bytes(MODEL, plain) == 2 * 2 * 4 * 2 * 4
  int8 = SamplerConfig(**config, kv_dtype="int8")
  assert bench.kv_bytes(MODEL, int8) == 2 * 2 * (4 + 4) * 2


@pytest.mark.parametrize(
  "kv_dtype, least, most", [("compute", 0, 1e-5), ("int8", 1e-6, 0.05)]
)
def test_the_learner_agrees(kv_dtype, least, most, directory, capsys):
  main(
    ["sampler", f"--model=hf:{directory}", "--prompts=3", "--group=3",
     "--slots=4", "--prompt-tokens=5", "--new-tokens=9", "--repeats=1",
     "--check", f"--kv-dtype={kv_dtype}"]
  )  # fmt: skip
  row = json.loads(capsys.readouterr().out)
  assert least <= row["learner_gap"] <= most
  assert abs(row["learner_ratio"] - 1) <= most


def test_what_cannot_be_is_said(directory, capsys):
  model = f"--model=hf:{directory}"
  for arguments in (["--new-tokens=100"], ["--prompts=0"], ["--repeats=0"]):
    with pytest.raises(SystemExit):
      main(["sampler", model, *arguments])
    assert "--" + arguments[0][2:].split("=")[0] in capsys.readouterr().err


def test_no_model(capsys):
  with pytest.raises(SystemExit):
    main(["sampler"])
  assert "--model" in capsys.readouterr().err


@pytest.mark.parametrize("workload", learner.WORKLOADS)
@pytest.mark.parametrize("plain", [False, True])
def test_a_line_of_the_learner(workload, plain, directory, capsys):
  main(
    ["learner", f"--model=hf:{directory}", f"--workload={workload}",
     "--prompts=2", "--group=3", "--prompt-tokens=6", "--new-tokens=10",
     "--row-length=40", "--repeats=1"] + ["--plain"] * plain
  )  # fmt: skip
  row = json.loads(capsys.readouterr().out)
  if workload != "heavy_tail":
    assert row["tokens"] == 6 * 16
    # Less each last token, and with a shared prompt 2 of 3 times its 5.
    assert row["computed_tokens"] == 6 * 15 - (0 if plain else 2 * 2 * 5)
  assert 0 <= row["padding"] < 1
  assert row["tokens_per_s"] == pytest.approx(
    row["tokens"] / row["seconds"][0], rel=0.05
  )


def test_a_larger_vocabulary(directory, capsys):
  main(
    ["learner", f"--model=hf:{directory}", "--workload=long", "--prompts=2",
     "--new-tokens=10", "--row-length=40", "--repeats=1", "--vocab-size=900"]
  )  # fmt: skip
  assert json.loads(capsys.readouterr().out)["tokens"] == 2 * 11


def test_the_learner_refuses_what_does_not_fit(directory, capsys):
  with pytest.raises(SystemExit):
    main(["learner", f"--model=hf:{directory}", "--new-tokens=500"])
  assert "exceed the row (1088) or the model (max_length=64)" in (
    capsys.readouterr().err
  )


@pytest.mark.parametrize("workload", iteration.WORKLOADS)
def test_a_line_of_the_iteration(workload, directory, capsys):
  main(
    ["iteration", f"--model=hf:{directory}", f"--workload={workload}",
     "--prompts=2", "--group=3", "--prompt-tokens=6", "--new-tokens=10",
     "--row-length=40", "--repeats=2"]
  )  # fmt: skip
  row = json.loads(capsys.readouterr().out)
  assert len(row["seconds"]) == 2
  parts = sum(row[f"{part}_s"] for part in iteration.PARTS)
  # The median of sums and the sum of medians: of two, they are the same.
  assert parts == pytest.approx(sum(row["seconds"]) / 2, abs=0.01)
  assert row["tokens"] == 6 * 16 or workload == "heavy_tail"


@pytest.mark.parametrize("workload", verifiers.WORKLOADS)
def test_verifiers(workload, capsys):
  main(
    ["verifiers", f"--workload={workload}", "--samples=8", "--workers=1",
     "--repeats=1"]
  )  # fmt: skip
  row = json.loads(capsys.readouterr().out)
  assert row["workload"] == workload and row["workers"] == 1
  assert row["verdicts_per_s"] == pytest.approx(
    8 / row["seconds"][0],
    rel=0.4,  # seconds are rounded
  )
  # Every second symbolic one and program is wrong by one.
  assert row["correct"] == 0.5 or workload == "numeric"
