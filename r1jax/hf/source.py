"""Where a phase's model comes from: its shape and its first parameters."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from r1jax.config import Written, convert
from r1jax.errors import UserError
from r1jax.hf import hub, reader
from r1jax.hf.reader import read_config
from r1jax.meshes import Mesh
from r1jax.model import ModelConfig
from r1jax.types import TrainState

# Before the name of a model of Hugging Face: a directory or a hub id.
PREFIX = "hf:"


@dataclasses.dataclass(frozen=True)
class Shape(ModelConfig):
  """The keys of a model in `c.models`.

  A model with the key `hf` takes every key that it does not set from Hugging
  Face. `vocab_size` is otherwise the tokenizer's where it is not set.
  """

  # Hugging Face directory or hub id of the first parameters; "": random.
  hf: str = ""


def shape(
  named: Any, models: Mapping[str, Any], where: str
) -> tuple[Written, str | None]:
  """The keys of a model and the source of its weights.

  Args:
    named: name in `models`, "hf:" and a directory or hub id, or a mapping of
      keys of `Shape`.
    models: mapping from names to the same, the key `models` of a config.
    where: the dotted key of `named`.

  Returns:
    `config.Written` keys of `ModelConfig`; a directory or hub id of Hugging
    Face, or None. Weights are not fetched yet.

  Raises:
    UserError: there is no such model.
  """
  if isinstance(named, str) and not named.startswith(PREFIX):
    if named not in models:
      raise UserError(
        f'{where}="{named}" is unknown; known:'
        f" {', '.join(sorted(models)) or 'none, set c.models'}"
      )
    where, named = f"models.{named}", models[named]
  if isinstance(named, str):
    named = {"hf": named}
  if not isinstance(named, Mapping):
    raise UserError(f"{where} must be the name of a model, or its keys")
  fields = dict(named)
  name = convert(str, fields.pop("hf", ""), f"{where}.hf").removeprefix(PREFIX)
  if not name:
    return Written(where, fields), None
  try:
    known = read_config(hub.directory(name, weights=False))
  except UserError as e:
    raise UserError(f"{where}: {e}") from None
  return Written(where, {**known, **fields}), name


def check_weights(name: str, model: ModelConfig) -> None:
  """Checks the weights of a directory; those of the hub are not fetched yet.

  Args:
    name: directory or hub id.
    model: `ModelConfig` that the weights must have the shapes of.

  Raises:
    UserError: a file or tensor is absent, or has another shape.
  """
  if Path(name).expanduser().is_dir():
    reader.check(hub.directory(name), **dataclasses.asdict(model))


def initial(name: str, model: ModelConfig, mesh: Mesh) -> TrainState:
  """A `TrainState` with the parameters of Hugging Face and nothing else.

  Args:
    name: directory or hub id of Hugging Face.
    model: `ModelConfig`, which may differ from what the directory says.
    mesh: where the parameters go.
  """
  fields = dataclasses.asdict(model)
  dtype = fields.pop("param_dtype")
  _, params = reader.load(hub.directory(name), dtype=dtype, mesh=mesh, **fields)
  return TrainState(step=None, params=params, opt_state=None)
