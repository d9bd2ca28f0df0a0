"""Weights, tensor by tensor, between safetensors and sharded arrays."""

import dataclasses
import functools
import json
import math
import os
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import safetensors
import safetensors.numpy
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from r1jax import meshes, sharding
from r1jax import model as model_lib
from r1jax.errors import UserError
from r1jax.hf import families
from r1jax.model import Decoder, ModelConfig, lora

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
# What belongs to a model besides its weights, and is handed on as it is.
COMPANIONS = (
  "tokenizer.json",
  "tokenizer_config.json",
  "generation_config.json",
  "special_tokens_map.json",
  "chat_template.jinja",
)
DTYPES = {
  "F64": np.dtype("float64"),
  "F32": np.dtype("float32"),
  "F16": np.dtype("float16"),
  "BF16": np.dtype(ml_dtypes.bfloat16),
}


def read_config(directory):
  """The fields of the `ModelConfig` of a Hugging Face directory.

  Args:
    directory: with a `config.json`.

  Returns:
    dict of keyword arguments.

  Raises:
    UserError: the file is absent, damaged, or of an unknown architecture.
  """
  path = Path(directory) / "config.json"
  return families.from_hf(_read_json(path), where=str(path))


def load(directory, dtype=None, mesh=None, **fields):
  """A model of Hugging Face, on the devices of a mesh.

  Tensor by tensor: each is read by the processes whose devices need a part
  of it, and is on its devices before the next is read.

  Args:
    directory: with `config.json` and safetensors, one file or several with
      their index.
    dtype: of the parameters; None is that of the first tensor.
    mesh: where the rules of `r1jax.sharding` place them; None is one device.
    **fields: of `ModelConfig`, in place of what the checkpoint says.

  Returns:
    a `Decoder` and its parameters: `model.apply({"params": params}, tokens)`
    gives logits [B, T, V]. They have no adapters, whatever `lora_rank` is: a
    phase that trains adds them.

  Raises:
    UserError: a file is absent or truncated; a tensor is missing, left over
      or of another shape. Everything is checked before a tensor is read.
  """
  directory = Path(directory)
  config = {**read_config(directory), **fields}
  files = _tensors(directory)
  if dtype is None:
    dtype = DTYPES[next(iter(files.values())).dtype].name
  try:
    dtype = jnp.dtype(dtype).name
  except TypeError as e:
    raise UserError(f"dtype: {e}") from None
  config = {"compute_dtype": dtype, **config, "param_dtype": dtype}
  model = ModelConfig(**config)
  if mesh is None:
    mesh = meshes.make_mesh(devices=jax.devices()[:1])
  base = dataclasses.replace(model, lora_rank=0)
  init = functools.partial(model_lib.init, base)
  shapes = jax.eval_shape(init, jax.random.key(0))
  leaves, tree = jax.tree_util.tree_flatten_with_path(shapes)
  leaves = [(sharding.path_name(path), x) for path, x in leaves]
  _check(directory, dict(leaves), files)
  where = jax.tree.leaves(sharding.tree_shardings(mesh, shapes))
  return Decoder(model), jax.tree.unflatten(
    tree, [_load_leaf(n, x, s, files) for (n, x), s in zip(leaves, where)]
  )


def _load_leaf(name, leaf, where, files):
  tensor = families.TABLE[name]
  if not families.is_stacked(name):
    return _place(files[tensor.name], tensor, leaf, where)
  zeros = jax.jit(
    functools.partial(jnp.zeros, leaf.shape, leaf.dtype), out_shardings=where
  )
  out = zeros()
  one = jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype)
  # Rules leave the axis of the layers whole.
  slice_where = NamedSharding(where.mesh, P(*where.spec[1:]))
  put = _put_layer(where)
  for i in range(leaf.shape[0]):
    out = put(out, _place(files[tensor.of(i)], tensor, one, slice_where), i)
  # Transfers are asynchronous: without waiting, the host would hold them all.
  return jax.block_until_ready(out)


@functools.lru_cache
def _put_layer(where):
  def put(stack, layer, i):
    return jax.lax.dynamic_update_index_in_dim(stack, layer, i, 0)

  return jax.jit(put, donate_argnums=0, out_shardings=where)


def _place(file, tensor, leaf, where):
  """One tensor, each device reading its part."""

  def read(index):
    if tensor.transposed:
      return np.ascontiguousarray(file.read(index[::-1]).T).astype(leaf.dtype)
    return file.read(index).astype(leaf.dtype)

  out = jax.make_array_from_callback(leaf.shape, where, read)
  return jax.block_until_ready(out)


class _File:
  """A tensor in a file: its shape and dtype, read when asked."""

  def __init__(self, path, name, shape, dtype):
    self.path, self.name, self.shape, self.dtype = path, name, shape, dtype

  def read(self, index):
    """The part that a tuple of slices names, as numpy array."""
    # Opened anew each time: pages of a mapped file count as memory held.
    with safetensors.safe_open(self.path, "numpy") as f:
      return f.get_slice(self.name)[index]


def _tensors(directory):
  """Name -> `_File` of every tensor of a checkpoint, from the headers."""
  index = directory / INDEX
  if index.exists():
    weights = _read_json(index).get("weight_map")
    if not isinstance(weights, dict):
      raise UserError(f'{index}: the key "weight_map" is missing')
    names = sorted(set(weights.values()))
  elif (directory / SINGLE).exists():
    names = [SINGLE]
  else:
    raise UserError(
      f"{directory} has neither {SINGLE} nor {INDEX}; a checkpoint in"
      " PyTorch's own format has to be converted to safetensors first"
    )
  found = {}
  for name in names:
    path = directory / name
    if not path.exists():
      raise UserError(f"{index} names the file {name}, which is absent")
    found |= _header(path)
  return found


def _header(path):
  """Name -> `_File` of one file; raises where it is truncated."""
  try:
    with safetensors.safe_open(path, "numpy") as f:
      slices = {name: f.get_slice(name) for name in f.keys()}  # noqa: SIM118
      found = {
        name: _File(path, name, tuple(s.get_shape()), s.get_dtype())
        for name, s in slices.items()
      }
  except (safetensors.SafetensorError, OSError) as e:
    raise UserError(
      f"{path} cannot be read ({e}); it is truncated or damaged, fetch it again"
    ) from None
  for name, file in found.items():
    if file.dtype not in DTYPES:
      raise UserError(
        f"{path}: {name} has the dtype {file.dtype}; known: {', '.join(DTYPES)}"
      )
  return found


def _check(directory, leaves, files):
  """Compares what is there with what the model needs, shapes included."""
  wanted = {}
  for name, leaf in leaves.items():
    tensor = families.TABLE[name]
    stacked = families.is_stacked(name)
    shape = leaf.shape[1:] if stacked else leaf.shape
    shape = shape[::-1] if tensor.transposed else shape
    for i in range(leaf.shape[0] if stacked else 1):
      wanted[tensor.of(i)] = shape
  # A tied checkpoint may carry its head twice; so may old ones their tables
  # of frequencies.
  extra = {
    name
    for name in files.keys() - wanted.keys()
    if not name.endswith("rotary_emb.inv_freq")
    and not ("head/kernel" not in leaves and name == "lm_head.weight")
  }
  for problem, names in (
    ("is missing", wanted.keys() - files.keys()),
    ("is left over: no parameter of the model", extra),
  ):
    if names:
      first, *others = sorted(names)
      more = f" (and {len(others)} more)" if others else ""
      raise UserError(f"{directory}: the weight {first}{more} {problem}")
  for name, shape in wanted.items():
    if files[name].shape != shape:
      raise UserError(
        f"{directory}: the weight {name} has the shape"
        f" {list(files[name].shape)}; config.json asks for {list(shape)}"
      )


def save(directory, model, params, source=None, shard_bytes=5 * 10**9):
  """Writes what `transformers` loads, whole or not at all.

  Args:
    directory: to be made; it must not exist, or be empty.
    model: the `Decoder` or its `ModelConfig`.
    params: its parameters, sharded or not. Adapters are merged into their
      kernels, in float32 and rounded once.
    source: a Hugging Face directory whose tokenizer and generation config,
      and whose entries of `config.json` besides the architecture, are handed
      on; None for none.
    shard_bytes: of a file at most, unless one tensor is larger.

  Raises:
    UserError: the directory holds something, or no architecture fits.
  """
  directory = Path(directory).absolute()
  config = model.config if isinstance(model, Decoder) else model
  if directory.exists() and any(directory.iterdir()):
    raise UserError(f"{directory} is not empty; name another directory")
  raw = families.to_hf(config)
  if source is not None:
    theirs = _read_json(Path(source) / "config.json")
    # Its rope entries and dtype are in `raw`, by one of their names.
    for key in ("rope_scaling", "rope_parameters", "dtype"):
      theirs.pop(key, None)
    raw = {**theirs, **raw}
  unfinished = directory.with_name(f".{directory.name}.{os.getpid()}")
  first = jax.process_index() == 0
  try:
    if first:
      unfinished.mkdir(parents=True)
    _write_weights(unfinished, config, params, shard_bytes, first)
    if first:
      text = json.dumps(raw, indent=2) + "\n"
      (unfinished / "config.json").write_text(text)
      for name in COMPANIONS if source is not None else ():
        if (Path(source) / name).exists():
          shutil.copyfile(Path(source) / name, unfinished / name)
      if directory.exists():
        directory.rmdir()
      unfinished.rename(directory)
  finally:
    if first:
      shutil.rmtree(unfinished, ignore_errors=True)


def _write_weights(directory, config, params, shard_bytes, first):
  plan = []  # (name, leaf and its adapters, layer or None, transposed, bytes)
  leaves = jax.tree_util.tree_leaves_with_path(params)
  leaves = {sharding.path_name(path): leaf for path, leaf in leaves}
  for name, leaf in leaves.items():
    if name.endswith(lora.NAMES):
      continue
    beside = name.removesuffix("kernel")
    adapters = {
      k: leaves[beside + k] for k in lora.NAMES if beside + k in leaves
    }
    x, tensor = (leaf, adapters), families.TABLE[name]
    if families.is_stacked(name):
      size = math.prod(leaf.shape[1:]) * leaf.dtype.itemsize
      for i in range(leaf.shape[0]):
        plan.append((tensor.of(i), x, i, tensor.transposed, size))
    else:
      plan.append((tensor.name, x, None, tensor.transposed, leaf.nbytes))
  shards, filled = [[]], 0
  for entry in plan:
    if filled and filled + entry[-1] > shard_bytes:
      shards.append([])
      filled = 0
    shards[-1].append(entry)
    filled += entry[-1]
  index = {}
  for number, shard in enumerate(shards, 1):
    name = SINGLE
    if len(shards) > 1:
      name = f"model-{number:05}-of-{len(shards):05}.safetensors"
    arrays = {
      key: _gather(config, *x, layer, transposed)
      for key, x, layer, transposed, _ in shard
    }
    if first:
      write_tensors(directory / name, arrays)
    index |= dict.fromkeys(arrays, name)
  if first and len(shards) > 1:
    total = sum(entry[-1] for entry in plan)
    (directory / INDEX).write_text(
      json.dumps(
        {"metadata": {"total_size": total}, "weight_map": index}, indent=2
      )
    )


def write_tensors(path, arrays):
  """Writes one safetensors file, readable to whom other files are."""
  safetensors.numpy.save_file(arrays, path, metadata={"format": "pt"})
  # The library makes it readable to its owner only.
  path.chmod(0o644)


def _gather(config, leaf, adapters, layer, transposed):
  """One tensor, whole, on the host of every process."""
  x = leaf if layer is None else leaf[layer]
  if adapters:
    module = {"kernel": x, **{k: a[layer] for k, a in adapters.items()}}
    x = lora.merge(config, module)["kernel"].astype(leaf.dtype)
  if not getattr(x, "is_fully_addressable", True):
    from jax.experimental import multihost_utils

    x = multihost_utils.process_allgather(x, tiled=True)
  x = np.asarray(x)
  return np.ascontiguousarray(x.T if transposed else x)


def _read_json(path):
  try:
    value = json.loads(path.read_text(encoding="utf-8"))
  except OSError as e:
    raise UserError(f"{path}: cannot be read: {e.strerror}") from None
  except ValueError as e:
    raise UserError(f"{path}: is damaged, not JSON: {e}") from None
  if not isinstance(value, dict):
    raise UserError(f"{path}: a JSON object was expected")
  return value
