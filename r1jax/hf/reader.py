"""A Hugging Face directory -> a model with sharded parameters.

Weights are read tensor by tensor. Each process reads the slices that its
devices need, and they are on the devices before the next tensor is read.
"""

import dataclasses
import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from r1jax import meshes, objects, sharding
from r1jax import model as model_lib
from r1jax.errors import UserError
from r1jax.hf import checks, families, tensors
from r1jax.model import Decoder, ModelConfig


def from_hf(
  raw: Mapping[str, Any], where: str = "config.json"
) -> dict[str, Any]:
  """The fields of the `ModelConfig` for a config.json.

  Args:
    raw: the dict of config.json.
    where: name of the file, for messages.

  Returns:
    dict of keyword arguments.

  Raises:
    UserError: the architecture is unknown, a key is missing, or a value asks
      for something that the decoder does not compute.
  """
  return families.of_config(raw, where).fields(raw, where)


def read_config(directory: str | Path) -> dict[str, Any]:
  """The fields of the `ModelConfig` of a Hugging Face directory.

  Args:
    directory: with a `config.json`; and with weights, unless these are not
      fetched yet.

  Returns:
    dict of keyword arguments.

  Raises:
    UserError: the file is absent or damaged, or as for `from_hf`; or it asks
      for more than the weights beside it hold.
  """
  path = Path(directory) / "config.json"
  fields = from_hf(objects.read(path), where=str(path))
  if any(Path(directory).glob("*.safetensors")):
    checks.sizes(path, fields, tensors.find(Path(directory)))
  return fields


def load(
  directory: str | Path,
  dtype: str | None = None,
  mesh: meshes.Mesh | None = None,
  **fields: Any,
) -> tuple[Decoder, Any]:
  """Loads a model of Hugging Face onto the devices of a mesh.

  Args:
    directory: with `config.json` and safetensors, one file or several with
      their index.
    dtype: of the parameters; None for the dtype of the first tensor.
    mesh: the mesh over which `r1jax.sharding` spreads them; None for one
      device.
    **fields: of `ModelConfig`, which replace those of the checkpoint.

  Returns:
    a `Decoder` and its parameters: `model.apply({"params": params}, tokens)`
    gives logits [B, T, V]. They have no adapters, whatever `lora_rank` is: a
    phase that trains adds them.

  Raises:
    UserError: a file is absent or truncated; a tensor is missing, has another
      shape, or belongs to no parameter. All of this is checked before the
      first tensor is read. Or the config ties the head to the embedding, and
      the checkpoint has another head.
  """
  model, leaves, tree, parts, stored = _plan(directory, dtype, fields)
  if mesh is None:
    mesh = meshes.make_mesh(devices=jax.devices()[:1])
  base = dataclasses.replace(model, lora_rank=0)
  where = jax.tree.leaves(model_lib.shardings(base, mesh))
  loaded = [
    _load_leaf(leaf, s, parts[name], stored)
    for (name, leaf), s in zip(leaves.items(), where)
  ]
  return Decoder(model), jax.tree.unflatten(tree, loaded)


def check(directory: str | Path, **fields: Any) -> None:
  """Raises the `UserError` that `load` would raise; loads nothing.

  Args:
    directory, **fields: as for `load`.
  """
  _plan(directory, None, fields)


def _plan(directory, dtype, fields):
  """What `load` reads, checked against what is stored.

  Args:
    directory, dtype, fields: as for `load`.

  Returns:
    the `ModelConfig`; name -> `jax.ShapeDtypeStruct` of each parameter; their
    tree; name -> list of `Part`; name -> `Stored` of each tensor.
  """
  directory = Path(directory)
  path = directory / "config.json"
  raw = objects.read(path)
  family = families.of_config(raw, str(path))
  config = {**family.fields(raw, str(path)), **fields}
  stored = tensors.find(directory)
  checks.sizes(path, config, stored)
  if dtype is None:
    dtype = tensors.DTYPES[next(iter(stored.values())).dtype].name
  try:
    dtype = jnp.dtype(dtype).name
  except TypeError as e:
    raise UserError(f"dtype: {e}") from None
  model = ModelConfig(
    **{"compute_dtype": dtype, **config, "param_dtype": dtype}
  )
  base = dataclasses.replace(model, lora_rank=0)
  flat, tree = jax.tree_util.tree_flatten_with_path(model_lib.shapes(base))
  leaves = {sharding.path_name(path): leaf for path, leaf in flat}
  parts = {
    name: family.parts(name, leaf.shape) for name, leaf in leaves.items()
  }
  checks.fit(directory, family, model, (leaves, parts), stored)
  checks.copies(directory, family.copies(model), stored)
  return model, leaves, tree, parts, stored


def _load_leaf(leaf, where, parts, stored):
  """One parameter on its devices.

  Args:
    leaf: `jax.ShapeDtypeStruct` of the parameter.
    where: its sharding.
    parts: list of `Part` of the parameter.
    stored: name -> `Stored`.
  """
  if not parts[0].at:
    return _place(parts[0], leaf, where, stored)
  zeros = jax.jit(
    functools.partial(jnp.zeros, leaf.shape, leaf.dtype), out_shardings=where
  )
  out = zeros()
  first = len(parts[0].at)
  one = jax.ShapeDtypeStruct(leaf.shape[first:], leaf.dtype)
  one_where = NamedSharding(where.mesh, P(*where.spec[first:]))
  put = _put_part(where)
  for part in parts:
    out = put(out, _place(part, one, one_where, stored), part.at)
  # Transfers are asynchronous. Without this the host would hold all of them.
  return jax.block_until_ready(out)


@functools.lru_cache
def _put_part(where):
  """Compiles (parameter, part, its index) -> the parameter with the part."""

  def put(out, part, at):
    part = part.reshape((1,) * len(at) + part.shape)
    first = [jnp.int32(i) for i in (*at, *(0,) * (out.ndim - len(at)))]
    return jax.lax.dynamic_update_slice(out, part, first)

  return jax.jit(put, donate_argnums=0, out_shardings=where)


def _place(part, leaf, where, stored):
  """One part on its devices; each process reads what its devices need."""
  found = [stored[name] for name in part.tensors]

  def read(index):
    return part.form.read(found, index).astype(leaf.dtype)

  out = jax.make_array_from_callback(leaf.shape, where, read)
  return jax.block_until_ready(out)
