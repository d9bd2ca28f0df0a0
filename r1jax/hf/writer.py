"""A model with sharded parameters -> a Hugging Face directory."""

import json
import math
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from r1jax import files, hosts, objects, sharding
from r1jax.errors import UserError
from r1jax.hf import families, tensors
from r1jax.model import Decoder, ModelConfig, lora

# Files that belong to a model besides its weights. They are copied.
COMPANIONS = (
  "tokenizer.json",
  "tokenizer_config.json",
  "generation_config.json",
  "special_tokens_map.json",
  "chat_template.jinja",
  "chat_template.json",
)


def to_hf(model: ModelConfig) -> dict[str, Any]:
  """The dict of config.json for a `ModelConfig`.

  Args:
    model: the `ModelConfig`.

  Raises:
    UserError: no known architecture has its features.
  """
  return families.of_model(model).raw(model)


def save(
  directory: str | Path,
  model: Decoder | ModelConfig,
  params: Any,
  source: str | Path | None = None,
  shard_bytes: int = 5 * 10**9,
) -> None:
  """Writes a directory that `transformers` loads, whole or not at all.

  Args:
    directory: to be made; it must be absent or empty.
    model: the `Decoder` or its `ModelConfig`.
    params: its parameters, sharded or not. Adapters are merged into their
      kernels in float32, which are then rounded once.
    source: a Hugging Face directory. Its tokenizer and generation config are
      copied, and those entries of its `config.json`, if it has one, that do not
      describe the architecture. None for none.
    shard_bytes: size of a file at most, unless one tensor is larger.

  Raises:
    UserError: the directory is not empty, or no known architecture fits.
  """
  config = model.config if isinstance(model, Decoder) else model
  raw = to_hf(config)
  if source is not None and not Path(source).is_dir():
    raise UserError(f"{source}: there is no such directory")
  if source is not None and (Path(source) / "config.json").exists():
    theirs = objects.read(Path(source) / "config.json")
    # `raw` has the RoPE entries and the dtype, perhaps by another name.
    for key in ("rope_scaling", "rope_parameters", "dtype"):
      theirs.pop(key, None)
    raw = {**theirs, **raw}
  place = files.whole_directory(directory)
  with hosts.entered_on_first(place) as unfinished:
    if hosts.is_first():
      unfinished.mkdir()
    _write_weights(unfinished, config, params, shard_bytes)
    if hosts.is_first():
      text = json.dumps(raw, indent=2) + "\n"
      (unfinished / "config.json").write_text(text)
      copy_companions(source, unfinished)


def copy_companions(source: str | Path | None, directory: str | Path) -> None:
  """Copies the files that belong to a model besides its weights.

  Args:
    source: a Hugging Face directory, or None, which has none.
    directory: where to copy them.
  """
  if source is None:
    return
  for name in COMPANIONS:
    if (Path(source) / name).exists():
      shutil.copyfile(Path(source) / name, Path(directory) / name)


class _Unit(NamedTuple):
  """Tensors that are written together, since parts of them overlap.

  Attributes:
    parts: list of `Part`.
    shapes: name of each tensor -> its shape.
    dtype: of the tensors.
  """

  parts: list
  shapes: dict
  dtype: np.dtype

  @property
  def size(self):
    """Bytes of all tensors."""
    numbers = sum(math.prod(shape) for shape in self.shapes.values())
    return numbers * self.dtype.itemsize


def _write_weights(directory, config, params, shard_bytes):
  """Writes the files of the weights and their index."""
  flat = jax.tree_util.tree_leaves_with_path(params)
  leaves = {sharding.path_name(path): leaf for path, leaf in flat}
  units = _units(families.of_model(config), leaves)
  shards, filled = [[]], 0
  for unit in units:
    if filled and filled + unit.size > shard_bytes:
      shards.append([])
      filled = 0
    shards[-1].append(unit)
    filled += unit.size
  index = {}
  for number, shard in enumerate(shards, 1):
    name = tensors.SINGLE
    if len(shards) > 1:
      name = f"model-{number:05}-of-{len(shards):05}.safetensors"
    arrays = {}
    for unit in shard:
      arrays |= _combined(unit, config, leaves)
    if hosts.is_first():
      tensors.write(directory / name, arrays)
    index |= dict.fromkeys(arrays, name)
  if hosts.is_first() and len(shards) > 1:
    total = {"total_size": sum(unit.size for unit in units)}
    text = json.dumps({"metadata": total, "weight_map": index}, indent=2)
    (directory / tensors.INDEX).write_text(text)


def _units(family, leaves):
  """The units of all parameters, in the order of the parameters."""
  unit_of = {}
  for name, leaf in leaves.items():
    if name.endswith(lora.NAMES):
      continue
    for part in family.parts(name, leaf.shape):
      shapes = part.form.shapes(leaf.shape[len(part.at) :])
      unit = _Unit([part], dict(zip(part.tensors, shapes)), leaf.dtype)
      # Usually none: most tensors belong to one part only.
      others = {id(u): u for t in part.tensors if (u := unit_of.get(t))}
      for u in others.values():
        unit = _Unit(u.parts + unit.parts, u.shapes | unit.shapes, unit.dtype)
      unit_of |= dict.fromkeys(unit.shapes, unit)
  return list({id(unit): unit for unit in unit_of.values()}.values())


def _combined(unit, config, leaves):
  """The tensors of a unit, whole, in every process.

  Args:
    unit: a `_Unit`.
    config: the `ModelConfig`.
    leaves: path -> parameter or adapter.

  Returns:
    name -> numpy array.
  """
  arrays = {
    name: np.empty(shape, unit.dtype) for name, shape in unit.shapes.items()
  }
  for part in unit.parts:
    x = hosts.whole(_merged(part, config, leaves))
    part.form.write(x, [arrays[name] for name in part.tensors])
  return arrays


def _merged(part, config, leaves):
  """A part of a parameter, with its adapters merged into it."""
  leaf = leaves[part.leaf]
  beside = part.leaf.removesuffix("kernel")
  found = [k for k in lora.NAMES if beside + k in leaves]
  x = leaf[part.at] if part.at else leaf
  if part.leaf.endswith("kernel") and found:
    module = {"kernel": x, **{k: leaves[beside + k][part.at] for k in found}}
    x = lora.merge(config, module)["kernel"].astype(leaf.dtype)
  return x
