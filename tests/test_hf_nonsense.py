"""Nonsense in the files of a Hugging Face directory: one line, at once."""

import json
import shutil
import time
import tracemalloc
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from r1jax import hf
from r1jax import model as model_lib
from r1jax.errors import UserError
from r1jax.hf import reader
from r1jax.model import ModelConfig

DATA = Path(__file__).parent / "data" / "models"
CONFIG = ModelConfig(
  vocab_size=31, d_model=16, n_layers=2, n_heads=4, n_kv_heads=2, head_dim=4,
  d_ff=24, max_length=64, qkv_bias=True,
)  # fmt: skip


@pytest.fixture(scope="module")
def good(tmp_path_factory):
  directory = tmp_path_factory.mktemp("nonsense") / "good"
  hf.save(directory, CONFIG, model_lib.init(CONFIG, jax.random.key(0)))
  return directory


@pytest.fixture
def directory(good, tmp_path):
  shutil.copytree(good, tmp_path / "m")
  return tmp_path / "m"


def change(directory, **entries):
  path = directory / "config.json"
  path.write_text(json.dumps(json.loads(path.read_text()) | entries))


def configs():
  lines = (DATA / "configs.jsonl").read_text().splitlines()
  return [pytest.param(json.loads(x), id=str(i)) for i, x in enumerate(lines)]


@pytest.mark.parametrize("case", configs())
def test_a_config(directory, case):
  if "text" in case:
    (directory / "config.json").write_text(case["text"])
  else:
    change(directory, **case["change"])
  for act in (hf.load, hf.read_config, reader.check):
    tracemalloc.start()
    begin = time.process_time()
    with pytest.raises(UserError) as e:
      act(directory)
    seconds = time.process_time() - begin
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert case["words"] in str(e.value)
    assert "config.json" in str(e.value)
    assert "\n" not in str(e.value) and len(str(e.value)) < 500
    assert seconds < 1 and peak < 32 << 20


def test_a_config_in_bytes_that_are_no_text(directory):
  (directory / "config.json").write_bytes(b"\xff\xfe{}\x00")
  with pytest.raises(UserError, match="not JSON"):
    hf.read_config(directory)


def test_a_file_that_is_too_large(directory):
  with open(directory / "config.json", "r+b") as file:
    file.truncate(1 << 32)
  with pytest.raises(UserError, match="more than 32 MiB"):
    hf.read_config(directory)


def rewrite(directory, **arrays):
  path = directory / "model.safetensors"
  found = safetensors.numpy.load_file(path)
  safetensors.numpy.save_file(found | arrays, path)
  return found


def test_a_tied_config_with_another_head(directory):
  table = rewrite(directory)["model.embed_tokens.weight"]
  head = {"lm_head.weight": table}
  rewrite(directory, **head)
  hf.load(directory)  # the same values twice: a copy
  other = table.copy()
  other[30, 15] += 1
  rewrite(directory, **{"lm_head.weight": other})
  for act in (hf.load, reader.check):
    with pytest.raises(UserError, match="lm_head.weight is not .*tied=False"):
      act(directory)
  # As the message says: then the head is used.
  model, params = hf.load(directory, tied=False)
  np.testing.assert_array_equal(params["head"]["kernel"], other.T)
  tied, plain = hf.load(directory, tied=False)
  x = jnp.arange(5)[None]
  a = model.apply({"params": params}, x)
  plain["head"]["kernel"] = jnp.asarray(table.T)
  b = tied.apply({"params": plain}, x)
  assert float(jnp.abs(a - b)[..., 30].max()) > 0
  np.testing.assert_array_equal(a[..., :30], b[..., :30])


def test_a_tied_config_with_a_head_of_another_shape(directory):
  rewrite(directory, **{"lm_head.weight": np.zeros((30, 16), np.float32)})
  with pytest.raises(UserError, match="lm_head.weight is not"):
    hf.load(directory)


@pytest.mark.parametrize(
  "index", [{}, {"weight_map": {}}, {"weight_map": {"a": 3}},
            {"weight_map": {"a": "../model.safetensors"}},
            {"weight_map": {"a": "/etc/passwd"}}],
)  # fmt: skip
def test_an_index(directory, index):
  path = directory / "model.safetensors.index.json"
  path.write_text(json.dumps(index))
  with pytest.raises(UserError, match="index.json"):
    hf.load(directory)


def test_a_file_without_tensors(directory):
  safetensors.numpy.save_file({}, directory / "model.safetensors")
  with pytest.raises(UserError, match="no tensor"):
    hf.load(directory)
