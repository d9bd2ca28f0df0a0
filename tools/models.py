"""Models as the tools take them: ours, or of Hugging Face, by directory.

A directory of ours holds `params/` (Orbax) and `model.json`, the fields of its
`ModelConfig`: a phase of a run is one, and `tools.hf_import` makes one.
"""

import dataclasses
import json
from pathlib import Path

from ml_collections import ConfigDict

from r1jax import hf
from r1jax.errors import UserError
from r1jax.files import write_atomically
from r1jax.hf import hub
from r1jax.model import Decoder, ModelConfig
from r1jax.run import checkpoint
from r1jax.text.tokenizer import HFTokenizer, from_config

MODEL = "model.json"
PARAMS = "params"


def is_ours(directory):
  """Whether a directory holds parameters of ours."""
  return (Path(directory) / PARAMS).is_dir()


def load(name, dtype=None):
  """A model, its parameters and its tokenizer.

  Args:
    name: a directory of ours, one of Hugging Face, or a hub id.
    dtype: of the parameters of Hugging Face; None is as stored.

  Returns:
    `Decoder`, parameters, tokenizer.

  Raises:
    UserError: it is none of these, or damaged.
  """
  if not is_ours(name):
    if "phases" in _json(Path(name) / "config.json"):
      raise UserError(f"{name} is a run; name one of its phases, {name}/PHASE")
    directory = hub.directory(name)
    model, params = hf.load(directory, dtype=dtype)
    return model, params, HFTokenizer(directory)
  directory = Path(name)
  params = checkpoint.load(directory / PARAMS)
  return Decoder(config(directory, params)), params, _tokenizer(directory)


def config(directory, params):
  """The `ModelConfig` of a directory of ours."""
  path = Path(directory) / MODEL
  try:
    fields = json.loads(path.read_text())
  except (OSError, ValueError) as e:
    raise UserError(f"{path} cannot be read ({e})") from None
  # A run's config leaves the vocabulary to its tokenizer.
  fields.setdefault("vocab_size", params["embed"]["embedding"].shape[0])
  return ModelConfig(**fields)


def save(directory, model, params):
  """Writes a directory of ours."""
  directory = Path(directory)
  checkpoint.save(directory / PARAMS, params)
  fields = dataclasses.asdict(model.config)
  write_atomically(directory / MODEL, json.dumps(fields, indent=1) + "\n")


def source(directory):
  """The Hugging Face directory that a directory of ours came from, or None.

  An import keeps its tokenizer beside the parameters; a run's config names
  it.
  """
  directory = Path(directory)
  if (directory / "config.json").exists():
    return directory
  tokenizer = _run_config(directory).get("tokenizer", {})
  if tokenizer.get("kind") == "hf":
    return hub.directory(tokenizer["path"])
  return None


def _tokenizer(directory):
  if (directory / "tokenizer.json").exists():
    return HFTokenizer(directory)
  tokenizer = _run_config(directory).get("tokenizer")
  if tokenizer is None:
    raise UserError(
      f"{directory} has no tokenizer.json, and stands in no run whose config"
      " names a tokenizer"
    )
  return from_config(ConfigDict(tokenizer))


def _run_config(directory):
  run = _json(directory.absolute().parent / "config.json")
  block = run.get(directory.name)
  return {**run, **block} if isinstance(block, dict) else run


def _json(path):
  """The object of a file, empty where there is none."""
  try:
    return dict(json.loads(path.read_text()))
  except (OSError, ValueError, TypeError):
    return {}
