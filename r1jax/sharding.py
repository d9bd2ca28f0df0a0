"""Where every array lives: one table of rules, from a leaf's path to the mesh.

The axes of the mesh are those of `meshes`.
"""

import math
import re

import jax
import numpy as np
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from r1jax.errors import UserError

ROWS = ("data", "fsdp")

# Path of a leaf -> its spec; the first match wins. An optimiser's moments
# carry their parameter's path as a suffix, so they follow it. The leading
# axis of a layer's weights is the layer.
RULES = (
  (r"embed/embedding", P("tensor", "fsdp")),
  (r"layers/(q|k|v|gate|up)/kernel", P(None, "fsdp", "tensor")),
  (r"layers/(q|k|v)/bias", P(None, "tensor")),
  (r"layers/(o|down)/kernel", P(None, "tensor", "fsdp")),
  # Adapters, whose rank is whole everywhere, split as their kernels.
  (r"layers/(q|k|v|gate|up)/lora_a", P(None, "fsdp", None)),
  (r"layers/(q|k|v|gate|up)/lora_b", P(None, None, "tensor")),
  (r"layers/(o|down)/lora_a", P(None, "tensor", None)),
  (r"layers/(o|down)/lora_b", P(None, None, "fsdp")),
  (r"head/kernel", P("fsdp", "tensor")),
  (r".*", P()),
)


def path_name(path):
  """A pytree key path as text, "opt_state/1/mu/layers/q/kernel"."""
  return "/".join(
    str(getattr(k, "key", getattr(k, "name", getattr(k, "idx", k))))
    for k in path
  )


def spec_of(name, shape, mesh, rules=RULES):
  """The spec of the leaf called `name`: the first rule that matches."""
  return fit(next(s for r, s in rules if re.search(r, name)), shape, mesh)


def fit(spec, shape, mesh):
  """A spec without the axes that do not divide their dimension.

  That dimension is then whole on every device: a model with 3 key heads runs
  on a tensor axis of 2, with those heads repeated.
  """
  if len(spec) > len(shape):
    return P()

  def size(axis):
    names = axis if isinstance(axis, tuple) else (axis,)
    return math.prod(mesh.shape[name] for name in names)

  return P(
    *(a if a and n % size(a) == 0 else None for n, a in zip(shape, spec))
  )


def tree_shardings(mesh, tree, rules=RULES):
  """A `NamedSharding` for each leaf of a tree of arrays or shapes."""
  return jax.tree_util.tree_map_with_path(
    lambda path, x: NamedSharding(
      mesh, spec_of(path_name(path), x.shape, mesh, rules)
    ),
    tree,
  )


HOST = "pinned_host"


def in_host_memory(mesh, tree):
  """As `tree_shardings`, in the hosts' memory; numbers stay on the devices.

  Raises:
    UserError: the platform has no memory of that kind.
  """
  try:
    return jax.tree.map(
      lambda s, x: s.with_memory_kind(HOST) if x.ndim else s,
      tree_shardings(mesh, tree),
      tree,
    )
  except ValueError as e:
    raise UserError(
      f"offload: {mesh.devices.flat[0].platform} has no {HOST} memory"
      f" ({str(e).splitlines()[0]:.80}); leave offload out"
    ) from None


def to_host(mesh, tree):
  """A tree of arrays on the devices, to the hosts' memory.

  Raises:
    UserError: as `in_host_memory`.
  """
  return jax.device_put(tree, in_host_memory(mesh, tree))


def to_device(mesh, tree):
  """Inside jit: a tree by the rules, in the devices' memory."""
  return jax.tree.map(
    lambda x, s: jax.device_put(x, s.with_memory_kind("device")),
    tree,
    tree_shardings(mesh, tree),
  )


def replicated(mesh):
  """The sharding of what every device holds whole."""
  return NamedSharding(mesh, P())


def rows(mesh, axis=0):
  """The sharding of an array whose dimension `axis` is the batch."""
  return NamedSharding(mesh, P(*(None,) * axis, ROWS))


def row_shards(mesh):
  """How many shards of rows the mesh makes; 1 without a mesh."""
  return 1 if mesh is None else mesh.shape["data"] * mesh.shape["fsdp"]


def whole_rows(count, mesh):
  """The least number of rows, `count` or more, that the mesh can split."""
  split = row_shards(mesh)
  return -(-count // split) * split


def put(tree, sharding):
  """Places host arrays, equal in all processes, under one sharding."""

  def place(x):
    x = np.asarray(x)
    s = sharding if x.ndim else NamedSharding(sharding.mesh, P())
    return jax.make_array_from_callback(x.shape, s, lambda i: x[i])

  return jax.tree.map(place, tree)


def constrain(tree, mesh, spec):
  """Inside jit: arrays live as `spec` says; without a mesh, as they are."""
  if mesh is None or mesh.size == 1:
    return tree
  return jax.tree.map(
    lambda x: jax.lax.with_sharding_constraint(
      x, NamedSharding(mesh, fit(spec, x.shape, mesh))
    ),
    tree,
  )
