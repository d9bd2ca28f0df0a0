"""Where every array lives: axes of parameters, through `meshes.TABLE`.

A parameter names its axes where the model makes it (`model.facts`). The axis
table maps each of them to an axis of the mesh. What does not fit is an error
that names the parameter; nothing is replicated in silence.
"""

import math
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from r1jax import meshes
from r1jax.errors import UserError

ROWS = ("data", "fsdp")
HOST = "pinned_host"


def path_name(path: Any) -> str:
  """A pytree key path as text, "opt_state/1/mu/layers/q/kernel"."""
  return "/".join(
    str(getattr(k, "key", getattr(k, "name", getattr(k, "idx", k))))
    for k in path
  )


def parameter(
  name: str,
  axes: Sequence[str],
  shape: Sequence[int],
  mesh: meshes.Mesh,
  units: Sequence[int] | None = None,
) -> NamedSharding:
  """The sharding of a parameter, or of an array that is kept along with it.

  Args:
    name: of the parameter, for messages.
    axes: names of its axes, keys of the axis table.
    shape: its shape. Of an axis with a single entry nothing is split.
    mesh: the `meshes.Mesh`.
    units: for each axis, how many neighbouring entries stay together, such as
      the dimensions of a head; None is 1 for all.

  Returns:
    a `NamedSharding`.

  Raises:
    UserError: the table maps an axis nowhere, or two to the same axis of the
      mesh, or the mesh does not divide an axis.
  """
  if len(axes) != len(shape):
    raise UserError(
      f"model: the parameter {name} has {len(shape)} dimensions and names"
      f" {len(axes)} axes ({', '.join(axes)})"
    )
  table, spec = mesh.table, []
  for axis, n, unit in zip(axes, shape, units or (1,) * len(axes)):
    if axis not in table:
      raise UserError(
        f'mesh: the axis table has no row for "{axis}" of the parameter'
        f" {name}; known: {', '.join(table)}; add it to meshes.TABLE"
      )
    target = table[axis] if n > 1 else None
    if target is not None and target in spec:
      raise UserError(
        f"mesh: {target} would split two axes of the parameter {name}"
        f" ({', '.join(axes)}); set mesh.axes.{axis}=None"
      )
    if target is not None and (n // unit) % mesh.shape[target]:
      raise UserError(
        f"mesh: {target}={mesh.shape[target]} does not divide {n // unit}, the"
        f' size of the axis "{axis}" of the parameter {name}; choose another'
        f" {target}, or set mesh.axes.{axis}=None to keep the axis whole on"
        " every device"
      )
    spec.append(target)
  return NamedSharding(mesh.grid, P(*spec))


def placed_shapes(tree: Any, shardings: Any) -> Any:
  """Shapes that say where their arrays live, to compile programs without them.

  Args:
    tree: pytree of arrays or shapes.
    shardings: the same of `NamedSharding`s.

  Returns:
    the same of `jax.ShapeDtypeStruct`s.
  """
  return jax.tree.map(
    lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s),
    tree,
    shardings,
  )


def fit(spec: P, shape: Sequence[int], mesh: meshes.Mesh) -> P:
  """The spec of an activation, without the axes that do not divide it.

  The dimension is then whole on every device. For activations only: of
  parameters that would be an error, see `parameter`.
  """
  if len(spec) > len(shape):
    return P()

  def size(axis):
    names = axis if isinstance(axis, tuple) else (axis,)
    return math.prod(mesh.shape[name] for name in names)

  return P(
    *(a if a and n % size(a) == 0 else None for n, a in zip(shape, spec))
  )


def in_host_memory(tree: Any) -> Any:
  """Shardings like these, in the memory of the hosts.

  Args:
    tree: pytree of `NamedSharding`s.

  Raises:
    UserError: the platform has no memory of that kind.
  """
  try:
    return jax.tree.map(lambda s: s.with_memory_kind(HOST), tree)
  except ValueError as e:
    device = jax.tree.leaves(tree)[0].mesh.devices.flat[0]
    raise UserError(
      f"offload: {device.platform} has no {HOST} memory"
      f" ({str(e).splitlines()[0]:.80}); leave offload out"
    ) from None


def to_host(tree: Any) -> Any:
  """Moves arrays from the devices to the memory of the hosts.

  Each host keeps the parts that its devices had.

  Raises:
    UserError: as `in_host_memory`.
  """
  where = in_host_memory(jax.tree.map(lambda x: x.sharding, tree))
  return jax.device_put(tree, where)


def to_device(tree: Any, shardings: Any) -> Any:
  """Inside jit: moves arrays to the memory of the devices.

  Args:
    tree: pytree of arrays.
    shardings: the same of `NamedSharding`s, in whatever memory.
  """
  return jax.tree.map(
    lambda x, s: jax.device_put(x, s.with_memory_kind("device")),
    tree, shardings,
  )  # fmt: skip


def replicated(mesh: meshes.Mesh) -> NamedSharding:
  """The sharding of an array that every device holds whole."""
  return NamedSharding(mesh.grid, P())


def rows(mesh: meshes.Mesh, axis: int = 0) -> NamedSharding:
  """The sharding of an array whose dimension `axis` is the batch."""
  return NamedSharding(mesh.grid, P(*(None,) * axis, ROWS))


def row_shards(mesh: Any) -> int:
  """How many shards of rows the mesh makes; 1 without a mesh."""
  return 1 if mesh is None else mesh.shape["data"] * mesh.shape["fsdp"]


def whole_rows(count: int, mesh: Any) -> int:
  """The least number of rows, `count` or more, that the mesh can split."""
  split = row_shards(mesh)
  return -(-count // split) * split


def put(tree: Any, sharding: Any) -> Any:
  """Places host arrays, equal in all processes, under one sharding."""

  def place(x):
    x = np.asarray(x)
    s = sharding if x.ndim else NamedSharding(sharding.mesh, P())
    return jax.make_array_from_callback(x.shape, s, lambda i: x[i])

  return jax.tree.map(place, tree)


def constrain(tree: Any, mesh: Any, spec: P) -> Any:
  """Inside jit: places arrays as `spec` says; without a mesh, does nothing."""
  if mesh is None or mesh.size == 1:
    return tree
  return jax.tree.map(
    lambda x: jax.lax.with_sharding_constraint(
      x, NamedSharding(mesh.grid, fit(spec, x.shape, mesh))
    ),
    tree,
  )
