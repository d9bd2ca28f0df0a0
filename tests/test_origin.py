"""A name means the same model in configs and in tools."""

import dataclasses
import json
import shutil

import fake_phases
import jax
import numpy as np
import pytest
import tiny_models

from experiments import launch, plan
from r1jax import hf, meshes, origin
from r1jax.errors import UserError
from r1jax.model import ModelConfig
from r1jax.phases import PHASES
from r1jax.run import checkpoint
from r1jax.text import tokenizer as tokenizer_lib
from tools import hf_export, hf_import


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
  return tiny_models.hf_directory(tmp_path_factory.mktemp("hf") / "model")


@pytest.fixture(scope="module")
def run(tmp_path_factory, directory):
  """A finished run whose tokenizer came from its model."""
  return tiny_models.run(tmp_path_factory.mktemp("first"), f"hf:{directory}")


def mesh():
  return meshes.make_mesh(data=-1)


def equal(a, b):
  jax.tree.map(np.testing.assert_array_equal, a, b)


def test_a_phase_of_a_run_is_a_model_of_a_config(run, tmp_path):
  second = tiny_models.experiment(tmp_path, f"run:{run}/first")
  second.first.update(steps=1, lr=1e-9)
  launch.run(second, tmp_path / "run")
  before = checkpoint.load(run / "first/params")
  after = checkpoint.load(tmp_path / "run/first/params")
  # A step that is much too small to see: it began with these parameters.
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6),
               before, after)  # fmt: skip
  _, (phase,) = plan.resolve(second, PHASES)
  assert phase.weights == f"run:{run}/first"
  assert phase.model == tiny_models.CONFIG


def test_a_checkpoint_of_a_phase_is_one_too(run, tmp_path):
  """The newest checkpoint is what the phase ended with; the other is not."""
  load = lambda name: origin.find(name).load(mesh(), None)[1]  # noqa: E731
  end = load(f"run:{run}/first")
  equal(end, load(f"run:{run}/first@3"))
  before = load(f"run:{run}/first@2")
  moved = jax.tree.map(lambda a, b: float(abs(a - b).max()), before, end)
  # One step of AdamW at 0.01.
  assert all(0 < m < 0.02 for m in jax.tree.leaves(moved))
  c = tiny_models.experiment(tmp_path, f"run:{run}/first@2")
  c.first.update(steps=1, lr=1e-9)
  launch.run(c, tmp_path / "run")
  assert origin.find(f"run:{tmp_path}/run/first").model() == tiny_models.CONFIG


def test_a_checkpoint_of_rl_leaves_the_reference_out(tmp_path, directory):
  """RL saves its state beside the reference."""
  params = hf.load(directory)[1]
  state = dict(params=params, opt_state=dict(m=np.zeros(3)), step=np.int32(1))
  path = tmp_path / "run/rl/checkpoints"
  checkpoint.save_step(path, 1, dict(state=state, reference=params))
  (tmp_path / "run/config.json").write_text(json.dumps({"phases": ["rl"]}))
  found = origin.find(f"run:{tmp_path}/run/rl@1")
  found.check(tiny_models.CONFIG)
  equal(found.read(), params)


def test_a_run_that_moved_brings_its_tokenizer(run, directory, tmp_path):
  """Also where the directory that it came from is gone."""
  moved = tmp_path / "moved"
  shutil.copytree(run, moved)
  config = json.loads((moved / "config.json").read_text())
  config["model"] = "hf:gone"
  (moved / "config.json").write_text(json.dumps(config))
  found = origin.find(f"run:{moved}/first").tokenizer()
  assert found.path.startswith(str(moved))
  text = "a word 对"
  there = tokenizer_lib.load(origin.find(f"hf:{directory}").tokenizer())
  assert tokenizer_lib.load(found).encode(text) == there.encode(text)


def test_an_import_is_a_model_of_a_config(directory, tmp_path):
  hf_import.main([f"--model=hf:{directory}", f"--out={tmp_path}/ours"])
  c = tiny_models.experiment(tmp_path, f"run:{tmp_path}/ours")
  _, (phase,) = plan.resolve(c, PHASES)
  assert phase.tokenizer.path == f"{tmp_path}/ours"
  state = origin.initial(phase.weights, phase.model, mesh())
  equal(state.params, hf.load(directory)[1])


def test_all_names_of_a_model(run, directory, monkeypatch):
  phase = f"{run}/first"
  same = [origin.find(n) for n in (f"run:{phase}", phase, f"{phase}/")]
  assert len({(x.directory, x.step) for x in same}) == 1
  assert origin.find(f"{phase}@2") == origin.find(f"run:{phase}@2")
  assert origin.find(f"hf:{directory}").name == str(directory)
  assert origin.find(directory).name == str(directory)
  assert origin.find("owner/model") == origin.find("hf:owner/model")
  monkeypatch.chdir(run.parent)
  equal(origin.find("run:run/first").read(), same[0].read())
  # In a config a hub id needs no prefix; a bare name is one of c.models.
  monkeypatch.setattr(
    "huggingface_hub.snapshot_download", lambda *_, **__: str(directory)
  )
  keys, name = origin.shape("owner/model", {}, "model")
  assert name == "hf:owner/model" and keys.value["d_model"] == 16


def test_a_shape_may_change_what_a_run_says(run):
  models = dict(mine=dict(run=f"{run}/first", max_length=32, lora_rank=2))
  keys, name = origin.shape("mine", models, "model")
  model = ModelConfig(**keys.value)
  assert (model.max_length, model.lora_rank, model.d_ff) == (32, 2, 24)
  found = origin.find(name)
  found.check(model)
  half = origin.find(name).load(mesh(), "bfloat16")
  assert {x.dtype.name for x in jax.tree.leaves(half[1])} == {"bfloat16"}
  wider = dict(keys.value, d_ff=32)
  with pytest.raises(UserError, match=r"down.*\[2, 24, 16\].*\[2, 32, 16\]"):
    found.check(ModelConfig(**wider))
  with pytest.raises(UserError, match="models.mine.hf and models.mine.run"):
    origin.shape("mine", dict(mine=dict(hf="a", run="b")), "model")


def test_an_export_of_a_run_that_moved(run, tmp_path):
  moved = tmp_path / "moved"
  shutil.copytree(run, moved)
  hf_export.main([f"--checkpoint=run:{moved}/first", f"--out={tmp_path}/out"])
  equal(hf.load(tmp_path / "out")[1], origin.find(f"{run}/first").read())
  assert (tmp_path / "out/tokenizer.json").exists()


def test_an_export_of_a_model_that_began_at_random(directory, tmp_path):
  """With a tokenizer of Hugging Face that came without a model."""
  words = tmp_path / "words"
  shutil.copytree(directory, words)
  (words / "config.json").unlink()
  (words / "model.safetensors").unlink()
  c = tiny_models.experiment(tmp_path, "mine")
  c.models = dict(mine=dataclasses.asdict(tiny_models.CONFIG))
  c.tokenizer = dict(kind="hf", path=str(words))
  launch.run(c, tmp_path / "run")
  hf_export.main([f"--checkpoint=run:{tmp_path}/run/first",
                  f"--out={tmp_path}/out"])  # fmt: skip
  found = origin.find(f"hf:{tmp_path}/out")
  equal(
    found.load(mesh(), None)[1], origin.find(f"{tmp_path}/run/first").read()
  )
  assert tokenizer_lib.load(found.tokenizer()).vocab_size == 601


@pytest.fixture(scope="module")
def fake(tmp_path_factory):
  path = tmp_path_factory.mktemp("fake") / "run"
  launch.run(fake_phases.get_config(), path, fake_phases.PHASES)
  return path


@pytest.mark.parametrize(
  "name, message",
  [
    ("run:{}", "is a run; name a phase of it; .* base, rl, student"),
    ("run:{}/r1", "no such phase; with parameters there are: base, rl, st"),
    ("run:{}/kept", "has made no parameters; .* base, rl, student"),
    ("run:{}/rl@7", "no such step; known: 2, 3"),
    ("run:{}/rl@last", "no such step; known: 2, 3"),
    ("run:{}/kept@1", "no such step; known: none"),
    ("run:{}x/rl", "there is no run at"),
    ("{}/r1", "no such phase"),
  ],
)
def test_what_is_not_there(fake, name, message):
  with pytest.raises(UserError, match=message) as error:
    origin.find(name.format(fake))
  assert "\n" not in str(error.value)


def test_a_phase_that_is_not_finished(run, tmp_path):
  copy = tmp_path / "run"
  shutil.copytree(run, copy)
  shutil.rmtree(copy / "first/params")
  with pytest.raises(UserError, match="not finished; .*run:.*/first@3"):
    origin.find(f"run:{copy}/first")
  assert origin.find(f"run:{copy}/first@3").model() == tiny_models.CONFIG


def test_a_wrong_name_in_a_config_is_said_first(run, tmp_path):
  c = tiny_models.experiment(tmp_path, f"run:{run}/frist")
  with pytest.raises(UserError, match="^model: run:.*frist: .*: first"):
    launch.run(c, tmp_path / "run")
  assert not (tmp_path / "run").exists()


def test_a_damaged_description(run, tmp_path):
  copy = tmp_path / "run"
  shutil.copytree(run, copy)
  for text, message in (
    ("{", "model.json cannot be read"),
    ('{"vocab_size": 640, "d_modle": 3}', "d_modle is no key; did you mean"),
  ):
    (copy / "first/model.json").write_text(text)
    with pytest.raises(UserError, match=message):
      origin.find(f"{copy}/first").model()
