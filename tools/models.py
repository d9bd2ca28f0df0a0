"""Models that the tools take: directories of ours or of Hugging Face.

A directory of ours holds `params/` (Orbax) and `model.json`, the fields of its
`ModelConfig`. Every phase of a run that trains makes one, and so does
`tools.hf_import`.
"""

import dataclasses
import json
from pathlib import Path

from r1jax import config as config_lib
from r1jax import hf
from r1jax.errors import UserError
from r1jax.files import write_atomically
from r1jax.hf import hub
from r1jax.model import Decoder, ModelConfig
from r1jax.run import checkpoint, layout
from r1jax.text import tokenizer as tokenizer_lib
from r1jax.text.tokenizer import HFTokenizer, check_fits


def is_ours(directory):
  """Whether a directory holds a checkpoint of ours."""
  return (Path(directory) / layout.PARAMS).is_dir()


def load(name, dtype=None):
  """Loads a model, its parameters and its tokenizer.

  Args:
    name: a directory of ours, a Hugging Face directory, or a hub id.
    dtype: of the parameters of a Hugging Face directory; None for the dtype in
      which they are stored.

  Returns:
    `Decoder`, parameters, tokenizer.

  Raises:
    UserError: there is no model of this name, or it is damaged.
  """
  if not is_ours(name):
    if "phases" in _json(Path(name) / layout.CONFIG):
      raise UserError(f"{name} is a run; name one of its phases, {name}/PHASE")
    directory = hub.directory(name)
    tokenizer = HFTokenizer(directory)
    size = hf.read_config(directory)["vocab_size"]
    check_fits(tokenizer, size, f"{directory}: ")
    model, params = hf.load(directory, dtype=dtype)
    return model, params, tokenizer
  directory = Path(name)
  model_config, tokenizer = config(directory), _tokenizer(directory)
  check_fits(tokenizer, model_config.vocab_size, f"{directory}: ")
  params = checkpoint.load(directory / layout.PARAMS)
  return Decoder(model_config), params, tokenizer


def config(directory):
  """The `ModelConfig` of a directory of ours.

  Args:
    directory: with `model.json`.

  Raises:
    UserError: `model.json` is absent or damaged.
  """
  path = Path(directory) / layout.MODEL
  try:
    fields = json.loads(path.read_text())
  except (OSError, ValueError) as e:
    raise UserError(f"{path} cannot be read ({e})") from None
  if "vocab_size" not in fields:
    # Runs of 0.1.0 left the vocabulary to the tokenizer.
    fields["vocab_size"] = _tokenizer(Path(directory)).vocab_size
  return ModelConfig(**fields)


def save(directory, model, params):
  """Writes a directory of ours.

  Args:
    directory: to be made.
    model: the `Decoder`.
    params: its parameters.
  """
  directory = Path(directory)
  checkpoint.save(directory / layout.PARAMS, params)
  fields = dataclasses.asdict(model.config)
  write_atomically(
    directory / layout.MODEL, json.dumps(fields, indent=1) + "\n"
  )


def source(directory):
  """The Hugging Face directory that has the tokenizer of a directory of ours.

  An import has copied the tokenizer beside the parameters. The config of a run
  names the directory.

  Args:
    directory: of ours.

  Returns:
    Path, or None if the tokenizer is not one of Hugging Face.
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
      f"{directory} has no tokenizer.json, and it is not in a run whose config"
      " names a tokenizer"
    )
  keys = config_lib.convert(tokenizer_lib.Tokenizers, tokenizer, "tokenizer")
  return tokenizer_lib.load(keys)


def _run_config(directory):
  """The config of the phase whose directory this is; else empty."""
  run = _json(directory.absolute().parent / layout.CONFIG)
  phase = run.get(directory.name)
  return {**run, **phase} if isinstance(phase, dict) else run


def _json(path):
  """The object in a file, or an empty one."""
  try:
    return dict(json.loads(path.read_text()))
  except (OSError, ValueError, TypeError):
    return {}
