"""Checks of a checkpoint before its weights are loaded."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from r1jax.errors import UserError
from r1jax.hf.config import FIELDS
from r1jax.hf.family import Family
from r1jax.hf.tensors import Stored
from r1jax.model import ModelConfig

# Numbers that are read at a time where two tensors are compared.
_SLICE = 1 << 24


def sizes(
  path: Path, config: Mapping[str, Any], stored: Mapping[str, Stored]
) -> None:
  """Checks that a config asks for no more than the files hold.

  This comes first: what a nonsensical size asks for would fill the memory.

  Args:
    path: of config.json.
    config: keyword arguments of `ModelConfig`.
    stored: name -> `Stored`.

  Raises:
    UserError: the files hold fewer tensors or numbers; names the key.
  """
  held = sum(math.prod(tensor.shape) for tensor in stored.values())
  width = config["d_model"]
  for name, asked, there in (
    ("n_layers", config["n_layers"], len(stored)),
    ("vocab_size", config["vocab_size"] * width, held),
    ("d_ff", config["d_ff"] * width, held),
    ("n_heads", config["n_heads"] * config["head_dim"] * width, held),
  ):
    if asked > there:
      raise UserError(
        f"{path}: {FIELDS[name][0]}={config[name]} with hidden_size={width}"
        " asks for more than the weights beside it hold:"
        f" {len(stored)} tensors of {held} numbers"
      )


def copies(
  directory: Path, pairs: Mapping[str, str], stored: Mapping[str, Stored]
) -> None:
  """Checks that tensors that must be copies of others are.

  Args:
    directory: of the checkpoint.
    pairs: name of a tensor, which may be absent -> the one that it must equal.
    stored: name -> `Stored`.

  Raises:
    UserError: a tensor has other values.
  """
  for name, other in pairs.items():
    if name in stored and not _equal(stored[name], stored[other]):
      raise UserError(
        f"{directory}: config.json has tie_word_embeddings=true, but {name} is"
        f" not {other}; to use it, set tied=False in the model:"
        f' models=dict(mine=dict(hf="{directory}", tied=False))'
      )


def _equal(a, b):
  if a.shape != b.shape:
    return False
  rows = max(1, _SLICE // max(1, math.prod(a.shape[1:])))
  rest = (slice(None),) * (len(a.shape) - 1)
  for first in range(0, a.shape[0], rows):
    part = (slice(first, min(first + rows, a.shape[0])), *rest)
    if not np.array_equal(a.read(part), b.read(part)):
      return False
  return True


def fit(
  directory: Path,
  family: Family,
  model: ModelConfig,
  needed: tuple,
  stored: Mapping[str, Stored],
) -> None:
  """Checks that a checkpoint has what the model needs, and nothing else.

  Args:
    directory: of the checkpoint.
    family: the `Family`.
    model: the `ModelConfig`.
    needed: name -> shape of each parameter; name -> list of its `Part`.
    stored: name -> `Stored`.

  Raises:
    UserError: a tensor is missing, left over, or of another shape.
  """
  leaves, parts = needed
  wanted = {}
  for name, leaf in leaves.items():
    first = len(parts[name][0].at) if parts[name] else 0
    if len(parts[name]) != np.prod(leaf.shape[:first], dtype=int):
      raise UserError(
        f"{directory}: {family.architecture} has no tensor for the parameter"
        f" {name} {list(leaf.shape)}; leave the field of the model out that"
        " asks for it"
      )
    for part in parts[name]:
      shapes = part.form.shapes(leaf.shape[first:])
      wanted |= dict(zip(part.tensors, shapes))
  extra = {
    name
    for name in stored.keys() - wanted.keys()
    if not family.ignores(name, model) and name not in family.copies(model)
  }
  for problem, names in (
    ("is missing", wanted.keys() - stored.keys()),
    ("is left over: no parameter of the model", extra),
  ):
    if names:
      first, *others = sorted(names)
      more = f" (and {len(others)} more)" if others else ""
      raise UserError(f"{directory}: the weight {first}{more} {problem}")
  for name, shape in wanted.items():
    if stored[name].shape != tuple(shape):
      raise UserError(
        f"{directory}: the weight {name} has the shape"
        f" {list(stored[name].shape)}; config.json asks for {list(shape)}"
      )
