"""A model from Hugging Face through the launcher, and out again."""

import importlib.util
import json
import shutil

import hf_files
import huggingface_hub
import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from experiments import launch, plan
from r1jax import files, hf, language_model, meshes, origin
from r1jax import model as model_lib
from r1jax.errors import UserError
from r1jax.model import ModelConfig
from r1jax.phases import PHASES
from r1jax.phases.grpo import GRPO
from r1jax.text.tokenizer import HFTokenizer
from tools import hf_export, hf_import


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
  path = tmp_path_factory.mktemp("hf") / "model"
  config = ModelConfig(
    vocab_size=640, d_model=16, n_layers=2, n_heads=4, n_kv_heads=2,
    head_dim=4, d_ff=24, max_length=64, qk_norm=True, rms_eps=1e-5,
    rope_scaling=dict(kind="yarn", factor=4.0, original_max_length=16),
  )  # fmt: skip
  hf.save(path, config, model_lib.init(config, jax.random.key(0)))
  hf_files.write_tokenizer(path)
  return path


def experiment(directory, tmp_path, **model):
  examples = tmp_path / "examples.jsonl"
  examples.write_text(json.dumps({"prompt": "a b", "completion": "c d"}) + "\n")
  c = ConfigDict()
  c.model = f"hf:{directory}"
  if model:
    c.models = dict(mine=dict(model, hf=str(directory)))
    c.model = "mine"
  c.tokenizer = dict(kind="hf", path=str(directory))
  c.task = dict(kind="files")
  sft = dict(
    phase="sft", data=str(examples), steps=1, batch=2, lr=1e-2, warmup=0,
    schedule="constant", row_length=16, rows=2, save_every=1, log_every=1,
  )  # fmt: skip
  c.first = sft
  c.second = dict(sft, init="first", steps=2)
  c.phases = ("first", "second")
  return c


def test_train_and_export(directory, tmp_path):
  config = experiment(directory, tmp_path)
  launch.run(config, tmp_path / "run")
  out = tmp_path / "out"
  hf_export.main([f"--checkpoint={tmp_path}/run/second", f"--out={out}"])
  model, params = hf.load(out)
  start, before = hf.load(directory)
  assert model.config == start.config
  moved = jax.tree.map(lambda a, b: float(abs(a - b).max()), before, params)
  # Three steps of AdamW at 0.01 move every weight, and none by more.
  assert all(0 < m < 0.04 for m in jax.tree.leaves(moved))
  assert HFTokenizer(out).template().render([]).endswith("assistant\n")
  # The tools take a phase of the run as it is.
  found = language_model.load(tmp_path / "run" / "second")
  assert found.config.vocab_size == 640 and found.tokenizer.eos_id is not None
  jax.tree.map(np.testing.assert_array_equal, found.params, params)


def test_a_phase_may_start_from_an_evaluation_of_the_model(directory, tmp_path):
  """It gets the weights that were evaluated, not random ones."""
  c = experiment(directory, tmp_path)
  problem = dict(kind="exact", prompt="a", answer="1", language="en", data={})
  files.write_rows(tmp_path / "test.jsonl", [problem])
  c.task = dict(kind="files", test=str(tmp_path / "test.jsonl"))
  c.look = dict(
    phase="evaluate", label="start", problems=1, samples=1, temperature=0.0,
    sampler=dict(slots=1, max_new_tokens=2),
  )  # fmt: skip
  c.first.update(init="look", lr=1e-9)
  c.phases = ("look", "first")
  (row,) = launch.run(c, tmp_path / "run")
  assert row["checkpoint"] == "start" and row["tokens"] <= 2
  after = language_model.load(f"run:{tmp_path}/run/first").params
  _, before = hf.load(directory)
  # A step that is much too small to see.
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), before, after
  )


def test_weights_go_to_the_devices_of_the_learner(directory, tmp_path):
  c = experiment(directory, tmp_path)
  problem = dict(kind="exact", prompt="a", answer="1", language="en", data={})
  files.write_rows(tmp_path / "problems.jsonl", [problem])
  path = str(tmp_path / "problems.jsonl")
  c.task = dict(kind="files", train=path, test=path)
  c.mesh = dict(fsdp=4)
  c.rl = dict(
    phase="grpo", steps=1, prompts=1, group=2, rewards=dict(accuracy=1.0),
    temperature=1.0, sampler=dict(slots=2, max_new_tokens=4), lr=1e-2,
    row_length=16, rows=2, save_every=1, sampler_mesh=dict(data=4),
  )  # fmt: skip
  c.phases = ("rl",)
  found = []

  def rl(config, state, data, io):
    found.extend(jax.tree.leaves(state.params))
    return state, None

  launch.run(c, tmp_path / "run", {"grpo": (GRPO, rl)})
  devices = {device for x in found for device in x.devices()}
  assert devices == set(jax.devices()[:4])


def test_a_shape_may_change_what_the_checkpoint_says(directory, tmp_path):
  config = experiment(directory, tmp_path, max_length=32, remat="layer")
  _, (first, second) = plan.resolve(config, PHASES)
  assert first.model.max_length == 32 and first.model.remat == "layer"
  assert first.weights == f"hf:{directory}" and second.weights is None
  assert first.model.n_layers == 2 and second.model == first.model


def test_a_directory_that_is_not_there(tmp_path):
  config = experiment(tmp_path / "absent", tmp_path)
  with pytest.raises(UserError, match="absent: there is no such directory"):
    plan.resolve(config, PHASES)


def test_damaged_weights_are_named_before_the_run(directory, tmp_path):
  """Of a later phase, too."""
  broken = tmp_path / "broken"
  shutil.copytree(directory, broken)
  weights = broken / "model.safetensors"
  weights.write_bytes(weights.read_bytes()[:-4])
  config = experiment(directory, tmp_path)
  config.second.update(init="", model=f"hf:{broken}")
  with pytest.raises(UserError, match="second.model: .*model.safetensors"):
    launch.run(config, tmp_path / "run")
  assert not (tmp_path / "run").exists()


def test_the_hubs_weights_come_after_the_checks(
  directory, tmp_path, monkeypatch
):
  asked = []

  def fetch(name, allow_patterns):
    asked.append((name, "*.safetensors" in allow_patterns))
    return str(directory)

  monkeypatch.setattr(huggingface_hub, "snapshot_download", fetch)
  config = experiment(directory, tmp_path)
  config.model = "hf:some/model"
  config.second.lr = -1.0
  with pytest.raises(UserError, match="second.lr=-1.0"):
    launch.run(config, tmp_path / "run")
  assert set(asked) == {("some/model", False)}
  config.second.lr = 1e-2
  _, (first, second) = plan.resolve(config, PHASES)
  assert first.weights == "hf:some/model" and second.weights is None
  origin.initial(first.weights, first.model, meshes.make_mesh())
  assert asked[-1] == ("some/model", True)


def test_import_and_export_keep_every_bit(directory, tmp_path, capsys):
  hf_import.main([f"--model={directory}", f"--out={tmp_path}/ours"])
  hf_export.main([f"--checkpoint={tmp_path}/ours", f"--out={tmp_path}/theirs"])
  _, before = hf.load(directory)
  _, after = hf.load(tmp_path / "theirs")
  jax.tree.map(np.testing.assert_array_equal, before, after)
  name = "tokenizer.json"
  there = (tmp_path / "theirs" / name).read_bytes()
  assert there == (directory / name).read_bytes()


def fails(capsys, main, *argv):
  with pytest.raises(SystemExit) as e:
    main(list(argv))
  assert e.value.code == 2
  (line,) = capsys.readouterr().err.splitlines()
  assert line.startswith("error: ")
  return line


def test_one_line_for_what_is_wrong(directory, tmp_path, capsys, monkeypatch):
  full = tmp_path / "full"
  full.mkdir()
  (full / "mine.txt").write_text("kept")
  line = fails(capsys, hf_import.main, f"--model={directory}", f"--out={full}")
  assert "not empty" in line
  line = fails(
    capsys, hf_export.main, f"--checkpoint={full}", f"--out={tmp_path}/o"
  )
  assert "is no checkpoint of a run" in line
  assert [p.name for p in full.iterdir()] == ["mine.txt"]
  monkeypatch.setenv("HF_HUB_OFFLINE", "1")
  line = fails(
    capsys, hf_import.main, "--model=nobody/nothing", f"--out={tmp_path}/o"
  )
  assert "nobody/nothing" in line and "hub" in line
  assert not (tmp_path / "o").exists()


@pytest.mark.slow
def test_the_config_of_the_real_model_on_a_small_one(tmp_path):
  """configs/smollm2.py:smoke, with a random model in SmolLM2's place."""
  config = ModelConfig(
    vocab_size=640, d_model=16, n_layers=2, n_heads=4, n_kv_heads=2,
    head_dim=4, d_ff=24, max_length=2048,
  )  # fmt: skip
  hf.save(tmp_path / "m", config, model_lib.init(config, jax.random.key(0)))
  hf_files.write_tokenizer(tmp_path / "m")
  spec = importlib.util.spec_from_file_location("c", "configs/smollm2.py")
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  c = module.get_config("smoke")
  c.model = f"hf:{tmp_path}/m"
  c.tokenizer.path = f"{tmp_path}/m"
  c.r1_zero.row_length = 1024  # this tokenizer has no words
  # Which a random model meets by chance, so that there is a signal.
  c.r1_zero.rewards = dict(language=1.0)
  rows = launch.run(c, tmp_path / "run")
  assert [r["checkpoint"] for r in rows] == ["SmolLM2", "R1-Zero"]
  metrics = (tmp_path / "run/r1_zero/metrics.jsonl").read_text().splitlines()
  assert len(metrics) == 2
  first = json.loads(metrics[0])
  assert first["no_signal"] < 1 and first["grad_norm"] > 0
  assert first["kl"] == 0 and first["sampler_learner_kl"] < 1e-6
  assert first["sampler_learner_ratio"] == pytest.approx(1, abs=1e-4)


def test_all_settings_of_that_config(directory):
  spec = importlib.util.spec_from_file_location("c", "configs/smollm2.py")
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  gpu, survey = module.get_config("gpu"), module.get_config("survey")
  survey.model = f"hf:{directory}"
  gpu.models.smollm2.hf = str(directory)
  assert plan.resolve(gpu, PHASES)[1][1].model.compute_dtype == "bfloat16"
  assert len(plan.resolve(survey, PHASES)[1]) == len(module.CANDIDATES)
  assert gpu.r1_zero.sampler.slots == gpu.r1_zero.prompts * gpu.r1_zero.group
  with pytest.raises(ValueError, match="huge is unknown; known:.*gpu"):
    module.get_config("huge")
