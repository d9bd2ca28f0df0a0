"""Hugging Face directories: what is wrong with one is said in one line."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from r1jax import hf, meshes
from r1jax import model as model_lib
from r1jax.errors import UserError
from r1jax.hf import families
from r1jax.hf.families.llama import Llama
from r1jax.hf.families.qwen import Qwen2
from r1jax.hf.family import Form, Part
from r1jax.model import ModelConfig, RopeScaling

CONFIG = ModelConfig(
  vocab_size=31, d_model=16, n_layers=2, n_heads=4, n_kv_heads=2, head_dim=4,
  d_ff=24, max_length=64, qkv_bias=True,
)  # fmt: skip


@pytest.fixture
def made(tmp_path):
  """A directory with several files, and the parameters in it."""
  params = model_lib.init(CONFIG, jax.random.key(0))
  directory = tmp_path / "model"
  hf.save(directory, CONFIG, params, shard_bytes=2000)
  return directory, params


def edit(path, change):
  value = json.loads(path.read_text())
  change(value)
  path.write_text(json.dumps(value))


def test_round_trip(made):
  directory, params = made
  assert len(list(directory.glob("*.safetensors"))) > 2
  model, again = hf.load(directory)
  assert model.config == CONFIG
  jax.tree.map(np.testing.assert_array_equal, params, again)


def test_a_single_file_and_another_dtype(tmp_path):
  params = model_lib.init(CONFIG, jax.random.key(0))
  hf.save(tmp_path / "m", CONFIG, params)
  assert [p.name for p in tmp_path.glob("m/*.safetensors")] == [
    "model.safetensors"
  ]
  model, again = hf.load(tmp_path / "m", dtype="bfloat16", max_length=32)
  assert model.config.param_dtype == model.config.compute_dtype == "bfloat16"
  assert model.config.max_length == 32
  want = params["embed"]["embedding"].astype(jnp.bfloat16)
  np.testing.assert_array_equal(again["embed"]["embedding"], want)


def test_names_and_orientation(made):
  directory, params = made
  found = {}
  for path in directory.glob("*.safetensors"):
    found |= safetensors.numpy.load_file(path)
  up = found["model.layers.1.mlp.up_proj.weight"]
  np.testing.assert_array_equal(up, params["layers"]["up"]["kernel"][1].T)
  assert "lm_head.weight" not in found  # tied
  assert len(found) == 2 + 2 * (2 + 4 + 3 + 3)


@pytest.mark.parametrize(
  "scaling",
  [
    None,
    RopeScaling("linear", 2.0),
    RopeScaling("llama3", 8.0, 32, 1.0, 4.0),
    RopeScaling("yarn", 4.0, 32, attention_factor=1.25, truncate=False),
  ],
)
@pytest.mark.parametrize("flags", [{}, {"qkv_bias": True}, {"qk_norm": True}])
def test_configs_there_and_back(scaling, flags):
  config = ModelConfig(
    vocab_size=31, d_model=16, n_layers=2, n_heads=4, n_kv_heads=2,
    head_dim=6, d_ff=24, max_length=64, rope_theta=5e5, tied=False,
    rope_scaling=scaling, **flags,
  )  # fmt: skip
  raw = json.loads(json.dumps(hf.to_hf(config)))
  assert ModelConfig(**hf.from_hf(raw)) == config


def refuses(directory, *words):
  with pytest.raises(UserError) as e:
    hf.load(directory)
  assert "\n" not in str(e.value)
  for word in words:
    assert word in str(e.value)


def test_an_unknown_architecture(made):
  directory, _ = made
  edit(
    directory / "config.json",
    lambda c: c.update(architectures=["GPT2LMHeadModel"]),
  )
  refuses(directory, "GPT2LMHeadModel", "LlamaForCausalLM", "Qwen3ForCausalLM")


@pytest.mark.parametrize(
  "key, value", [("hidden_act", "gelu"), ("use_sliding_window", True)]
)
def test_what_the_decoder_does_not_compute(made, key, value):
  directory, _ = made
  edit(directory / "config.json", lambda c: c.update({key: value}))
  refuses(directory, key)


def test_a_missing_key(made):
  directory, _ = made
  edit(directory / "config.json", lambda c: c.pop("hidden_size"))
  refuses(directory, "hidden_size")


def test_a_truncated_file(made):
  directory, _ = made
  path = sorted(directory.glob("*.safetensors"))[1]
  path.write_bytes(path.read_bytes()[:-10])
  refuses(directory, path.name, "truncated")


def test_an_absent_shard(made):
  directory, _ = made
  path = sorted(directory.glob("*.safetensors"))[1]
  path.unlink()
  refuses(directory, path.name, "absent", "index")


def test_no_weights_at_all(made):
  directory, _ = made
  for path in [*directory.glob("*.safetensors*")]:
    path.unlink()
  refuses(directory, "model.safetensors")


def rewrite(directory, change):
  """The weights in one file, after `change`."""
  found = {}
  for path in [*directory.glob("*.safetensors")]:
    found |= safetensors.numpy.load_file(path)
    path.unlink()
  (directory / "model.safetensors.index.json").unlink()
  change(found)
  safetensors.numpy.save_file(found, directory / "model.safetensors")


def test_a_missing_weight(made):
  directory, _ = made
  name = "model.layers.1.self_attn.k_proj.bias"
  rewrite(directory, lambda w: w.pop(name))
  refuses(directory, name, "missing")


def test_a_leftover_weight(made):
  directory, _ = made
  rewrite(directory, lambda w: w.update(surplus=np.zeros(3, np.float32)))
  refuses(directory, "surplus", "left over")


def test_a_weight_of_another_shape(made):
  directory, _ = made
  name = "model.norm.weight"
  rewrite(directory, lambda w: w.update({name: np.zeros(3, np.float32)}))
  refuses(directory, name, "[3]", "[16]")


def test_a_dtype_that_is_none(made):
  directory, _ = made
  with pytest.raises(UserError, match="float99"):
    hf.load(directory, dtype="float99")


def test_saving_leaves_what_is_there(made):
  directory, params = made
  before = {p: p.read_bytes() for p in directory.iterdir()}
  with pytest.raises(UserError, match="not empty"):
    hf.save(directory, CONFIG, params)
  assert {p: p.read_bytes() for p in directory.iterdir()} == before


def test_a_failed_save_leaves_nothing(tmp_path):
  params = model_lib.init(CONFIG, jax.random.key(0))
  with pytest.raises(UserError, match="absent: there is no such directory"):
    hf.save(tmp_path / "out", CONFIG, params, source=tmp_path / "absent")
  assert not list(tmp_path.iterdir())


class Rows(Form):
  """Our kernel is some rows of a tensor that other kernels share."""

  def __init__(self, first, count, total):
    self.first, self.count, self.total = first, count, total

  def shapes(self, shape):
    return [(self.total, shape[0])]

  def read(self, tensors, index):
    start, stop, _ = index[1].indices(self.count)
    rows = slice(self.first + start, self.first + stop)
    return np.ascontiguousarray(tensors[0].read((rows, index[0])).T)

  def write(self, part, tensors):
    tensors[0][self.first : self.first + self.count] = part.T


class Scaled(Form):
  """Our kernel is a tensor times a scale for each row of it."""

  def shapes(self, shape):
    return [shape[::-1], (shape[1], 1)]

  def read(self, tensors, index):
    weight = tensors[0].read(index[::-1])
    return (weight * tensors[1].read((index[1], slice(None)))).T

  def write(self, part, tensors):
    tensors[0][...], tensors[1][...] = part.T / 2, 2


class Halves(Form):
  """Our kernel is two tensors, one after the other, as experts are."""

  def shapes(self, shape):
    return [(shape[1] // 2, shape[0])] * 2

  def read(self, tensors, index):
    whole = [t.read((slice(None), slice(None))) for t in tensors]
    return np.concatenate(whole).T[index]

  def write(self, part, tensors):
    tensors[0][...], tensors[1][...] = np.split(part.T, 2)


class Odd(Llama):
  """A family whose tensors are not our parameters one by one."""

  architecture = "OddForCausalLM"
  model_type = "odd"
  features = {"qkv_bias": True}
  tensors = Qwen2.tensors

  def parts(self, leaf, shape):
    name, form = {
      # 4, 2 and 2 heads of 4 numbers.
      "layers/q/kernel": (("{}.qkv",), Rows(0, 16, 32)),
      "layers/k/kernel": (("{}.qkv",), Rows(16, 8, 32)),
      "layers/v/kernel": (("{}.qkv",), Rows(24, 8, 32)),
      "layers/o/kernel": (("{}.o", "{}.o_scale"), Scaled()),
      "layers/up/kernel": (("{}.up.0", "{}.up.1"), Halves()),
    }.get(leaf, (None, None))
    if name is None:
      return super().parts(leaf, shape)
    return [
      Part(leaf, (i,), tuple(n.format(i) for n in name), form)
      for i in range(shape[0])
    ]


def test_a_family_with_fused_split_and_scaled_tensors(tmp_path, monkeypatch):
  monkeypatch.setattr(families, "FAMILIES", (Llama(), Odd()))
  params = model_lib.init(CONFIG, jax.random.key(0))
  hf.save(tmp_path / "m", CONFIG, params, shard_bytes=4000)
  found = {}
  for path in tmp_path.glob("m/*.safetensors"):
    found |= safetensors.numpy.load_file(path)
  layers = params["layers"]
  fused = np.concatenate([layers[x]["kernel"][1].T for x in "qkv"])
  np.testing.assert_array_equal(found["1.qkv"], fused)
  np.testing.assert_array_equal(
    found["0.up.1"], layers["up"]["kernel"][0].T[12:]
  )
  np.testing.assert_array_equal(found["0.o_scale"], np.full((16, 1), 2))
  # Over a mesh, so that devices read slices.
  # 31 tokens cannot be halved.
  mesh = meshes.make_mesh(fsdp=4, tensor=2, axes=dict(vocab=None))
  _, again = hf.load(tmp_path / "m", mesh=mesh)
  jax.tree.map(np.testing.assert_array_equal, params, again)


MISTRAL = """
from r1jax.hf.families.llama import Llama


class Mistral(Llama):
  architecture = "MistralForCausalLM"
  model_type = "mistral"


FAMILIES = (Mistral(),)
"""


def test_a_new_family_is_one_file(tmp_path, monkeypatch):
  config = dataclasses.replace(CONFIG, qkv_bias=False)
  raw = hf.to_hf(config) | {"architectures": ["MistralForCausalLM"]}
  with pytest.raises(UserError, match="MistralForCausalLM is unknown"):
    hf.from_hf(raw)
  (tmp_path / "mistral.py").write_text(MISTRAL)
  path = [*families.__path__, str(tmp_path)]
  monkeypatch.setattr(families, "__path__", path)
  monkeypatch.setattr(families, "FAMILIES", families.find())
  assert ModelConfig(**hf.from_hf(raw)) == config


def test_a_parameter_that_the_family_does_not_have(tmp_path):
  config = dataclasses.replace(CONFIG, qkv_bias=False)
  hf.save(tmp_path / "m", config, model_lib.init(config, jax.random.key(0)))
  with pytest.raises(
    UserError, match="LlamaForCausalLM has no .*layers/k/bias"
  ):
    hf.load(tmp_path / "m", qkv_bias=True)


def test_no_architecture_has_both():
  config = ModelConfig(**{**CONFIG.__dict__, "qkv_bias": True, "qk_norm": True})
  with pytest.raises(UserError, match="qk_norm"):
    hf.to_hf(config)
