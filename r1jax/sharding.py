"""Where every array lives: a mesh and one table of rules.

The mesh has three axes. `data` and `fsdp` both split rows; `fsdp` also splits
every large parameter, and with it the optimiser's moments; `tensor` splits
heads and hidden units. One device is the mesh (1, 1, 1): the same code.
"""

import contextlib
import contextvars
import math
import re

import jax
import numpy as np
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from r1jax.errors import UserError

AXES = ("data", "fsdp", "tensor")
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


def make_mesh(data=1, fsdp=1, tensor=1, devices=None):
  """A mesh over all devices; one axis may be -1, "what is left".

  Raises:
    UserError: the sizes do not multiply to the number of devices.
  """
  devices = jax.devices() if devices is None else devices
  sizes = [data, fsdp, tensor]
  if sizes.count(-1) == 1:
    rest = max(1, math.prod(s for s in sizes if s != -1))
    sizes[sizes.index(-1)] = max(1, len(devices) // rest)
  if math.prod(sizes) != len(devices) or min(sizes) < 1:
    raise UserError(
      f"mesh: data={data}, fsdp={fsdp}, tensor={tensor} does not cover"
      f" {len(devices)} devices; set one axis to -1"
    )
  # Explicit axes, the default of newer JAX, would want every op annotated.
  return jax.make_mesh(
    sizes, AXES, axis_types=(AxisType.Auto,) * 3, devices=devices
  )


_MESH = contextvars.ContextVar("mesh", default=None)


@contextlib.contextmanager
def on(mesh):
  """What is traced inside runs on this mesh: see `current`, `platform`."""
  token = _MESH.set(mesh)
  try:
    yield
  finally:
    _MESH.reset(token)


def current():
  """The mesh that is traced for, or None."""
  return _MESH.get()


def device():
  """The first of the devices on which what is traced will run."""
  mesh = current()
  return jax.devices()[0] if mesh is None else mesh.devices.flat[0]


def platform():
  """ "cpu", "gpu" or "tpu": where what is traced will run."""
  return device().platform


def platform_of(mesh):
  """As `platform`, of a given mesh."""
  return mesh.devices.flat[0].platform


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
      f"offload: {platform_of(mesh)} has no {HOST} memory"
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
