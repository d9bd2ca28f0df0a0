"""Where a model comes from: the names that configs and tools share.

  hf:DIR or hf:ID      a directory of Hugging Face, or a model of its hub
  run:DIR/PHASE        the parameters that a phase of a run made
  run:DIR/PHASE@STEP   those of the phase's checkpoint after so many steps
  run:DIR              what `tools.hf_import` made

A name without "hf:" and "run:" is a directory, which shows what it is, or a
model of the hub.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from r1jax.config import Written, convert
from r1jax.errors import UserError
from r1jax.hf import hub, reader
from r1jax.meshes import Mesh
from r1jax.model import ModelConfig
from r1jax.run import stored
from r1jax.run.stored import Stored
from r1jax.text.tokenizer import HFDirectory
from r1jax.types import TrainState

HF, RUN = "hf:", "run:"


@dataclasses.dataclass(frozen=True)
class Shape(ModelConfig):
  """The keys of a model in `c.models`.

  A model with the key `hf` or `run` takes every key that it does not set from
  there. `vocab_size` is otherwise the tokenizer's where it is not set.
  """

  # Hugging Face directory or hub id of the first parameters; "": random.
  hf: str = ""
  # DIR/PHASE or DIR/PHASE@STEP of a run with the first parameters.
  run: str = ""


@dataclasses.dataclass(frozen=True)
class HuggingFace:
  """A model of Hugging Face.

  Attributes:
    name: a directory or a hub id.
  """

  name: str

  def __str__(self) -> str:
    return HF + self.name

  def fields(self) -> dict[str, Any]:
    """The fields of its `ModelConfig`; the weights are not fetched yet."""
    return reader.read_config(hub.directory(self.name, weights=False))

  def tokenizer(self) -> HFDirectory:
    """The keys of its tokenizer."""
    return HFDirectory(path=str(hub.directory(self.name, weights=False)))

  def check(self, model: ModelConfig) -> None:
    """As `Stored.check`; weights of the hub are not fetched for it."""
    if Path(self.name).expanduser().is_dir():
      reader.check(hub.directory(self.name), **dataclasses.asdict(model))

  def params(self, model: ModelConfig, mesh: Mesh) -> Any:
    """As `Stored.params`."""
    fields = dataclasses.asdict(model)
    dtype = fields.pop("param_dtype")
    directory = hub.directory(self.name)
    return reader.load(directory, dtype=dtype, mesh=mesh, **fields)[1]

  def load(self, mesh: Mesh, dtype: str | None) -> tuple[ModelConfig, Any]:
    """As `Stored.load`."""
    directory = hub.directory(self.name)
    model, params = reader.load(directory, dtype=dtype, mesh=mesh)
    return model.config, params

  def companions(self) -> Path:
    """As `Stored.companions`."""
    return hub.directory(self.name, weights=False)


Origin = HuggingFace | Stored


def find(name: str | Path) -> Origin:
  """The model of a name.

  Args:
    name: as the head of this file lists them.

  Raises:
    UserError: it names a run, a phase or a step that is not there; the message
      has those that are.
  """
  name = str(name)
  if name.startswith(HF):
    return HuggingFace(name.removeprefix(HF))
  if name.startswith(RUN):
    return stored.find(name.removeprefix(RUN))
  return stored.find(name) if stored.is_ours(name) else HuggingFace(name)


def shape(
  named: Any, models: Mapping[str, Any], where: str
) -> tuple[Written, str | None]:
  """The keys of a model and the source of its weights.

  Args:
    named: name in `models`, a name that `find` takes, or a mapping of keys of
      `Shape`.
    models: mapping from names to the same, the key `models` of a config.
    where: the dotted key of `named`.

  Returns:
    `config.Written` keys of `ModelConfig`; a name for `find`, or None if the
    model has no weights yet. Weights are not fetched.

  Raises:
    UserError: there is no such model.
  """
  if isinstance(named, str) and named in models:
    where, named = f"models.{named}", models[named]
  elif isinstance(named, str) and not (
    named.startswith((HF, RUN)) or "/" in named
  ):
    raise UserError(
      f'{where}="{named}" is unknown; known:'
      f" {', '.join(sorted(models)) or 'none, set c.models'}"
    )
  if not isinstance(named, str | Mapping):
    raise UserError(f"{where} must be the name of a model, or its keys")
  fields = {} if isinstance(named, str) else dict(named)
  name = named if isinstance(named, str) else _of_keys(fields, where)
  if not name:
    return Written(where, fields), None
  try:
    origin = find(name)
    return Written(where, {**origin.fields(), **fields}), str(origin)
  except UserError as e:
    raise UserError(f"{where}: {e}") from None


def _of_keys(fields, where):
  """Takes the name of the weights out of the keys of a `Shape`."""
  found = []
  for key, prefix in (("hf", HF), ("run", RUN)):
    name = convert(str, fields.pop(key, ""), f"{where}.{key}")
    found += [prefix + name.removeprefix(prefix)] if name else []
  if len(found) > 1:
    raise UserError(f"{where}.hf and {where}.run are both set; remove one")
  return found[0] if found else ""


def initial(name: str, model: ModelConfig, mesh: Mesh) -> TrainState:
  """A `TrainState` with the parameters of an origin and nothing else.

  Args:
    name: as `find` takes it.
    model: `ModelConfig`, which may differ from what is stored there.
    mesh: where the parameters go.
  """
  params = find(name).params(model, mesh)
  return TrainState(step=None, params=params, opt_state=None)
