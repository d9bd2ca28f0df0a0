"""Small models for the tests of the tools: of Hugging Face, and of a run."""

import json

import hf_files
import jax
from ml_collections import ConfigDict

from experiments import launch
from r1jax import hf
from r1jax import model as model_lib
from r1jax.model import ModelConfig

CONFIG = ModelConfig(
  vocab_size=640, d_model=16, n_layers=2, n_heads=4, n_kv_heads=2, head_dim=4,
  d_ff=24, max_length=96,
)  # fmt: skip


def hf_directory(path, chat=True):
  """A Hugging Face directory with random weights."""
  hf.save(path, CONFIG, model_lib.init(CONFIG, jax.random.key(0)))
  hf_files.write_tokenizer(path, chat)
  return path


def experiment(path, model):
  """A config of one phase of SFT, `first`, on a file that this writes."""
  examples = path / "examples.jsonl"
  examples.parent.mkdir(parents=True, exist_ok=True)
  examples.write_text(json.dumps({"prompt": "a b", "completion": "c d"}) + "\n")
  c = ConfigDict()
  c.model = model
  c.task = dict(kind="files")
  c.first = dict(
    phase="sft", data=str(examples), steps=3, batch=2, lr=1e-2, warmup=0,
    schedule="constant", row_length=16, rows=2, save_every=1, log_every=1,
  )  # fmt: skip
  c.phases = ("first",)
  return c


def run(path, model):
  """Runs `experiment` in path/run and returns that directory."""
  launch.run(experiment(path, model), path / "run")
  return path / "run"
