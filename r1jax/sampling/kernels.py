"""The choice of the kernel of a decoding step, by platform.

TPU reads the decoded tokens by the kernel of `ragged`. Other platforms, and
all platforms for prompts, use plain XLA.
"""

from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import PartitionSpec

from r1jax import meshes, sharding
from r1jax.model import attention
from r1jax.sampling import cache, ragged


def arranged(ring: cache.Ring) -> cache.Ring | cache.Apart:
  """An empty `cache.Ring` as this platform writes and reads it best.

  Returns:
    on one CPU device `cache.Apart`, else the same ring.
  """
  mesh = meshes.current()
  if meshes.platform() != "cpu" or (mesh is not None and mesh.size > 1):
    return ring
  return cache.Apart.of(ring)


def join_ring(
  part: attention.Partial,
  q: jax.Array,
  ring: cache.Ring | cache.Apart,
  age: jax.Array,
  column: jax.Array,
  interpret: bool = False,
) -> attention.Partial:
  """Attention of decoding slots over a ring's older chunks, joined to a part.

  Args:
    part: the `attention.Partial` so far, as of `ragged.join_kernel`.
    q, age, column: as of `ragged.join_kernel`.
    ring: `cache.Ring` or `cache.Apart`.
    interpret: runs the kernel on any platform, slowly; for tests.

  Returns:
    `attention.Partial` of the same shapes as `part`.
  """
  if isinstance(ring, cache.Apart):
    return ragged.join_apart(part, q, ring, age, column)

  def join_local(ring, of_slots, marks):
    part, q = of_slots
    on_tpu = interpret or meshes.platform() == "tpu"
    if not on_tpu or not ragged.fits(q, ring):
      return ragged.join_loop(part, q, ring, *marks)
    return ragged.join_kernel(part, q, ring, *marks, interpret)

  # Also in XLA: a device need not wait for the longest slot of another.
  return by_slots_and_heads(
    join_local, ring, (part, q), (age, column), (0, None)
  )


def by_slots_and_heads(
  step: Callable, cached: Any, of_slots: Any, marks: tuple, axes: tuple
) -> Any:
  """Runs a step of decoding slots on what is cached, each device its share.

  Slots and places are split over the rows of the mesh, heads over its tensor
  axis, so no device needs what another one holds.

  Args:
    step: function of the next three arguments as one device has them.
    cached: tree of arrays [., S or places, K, ...].
    of_slots: tree of arrays [S, K or H, ...].
    marks: tuple of arrays.
    axes: for each of `marks`, the dimension that is split by slots or places;
      None if there is none.

  Returns:
    what `step` returns: a tree of arrays [S, K, ...].
  """
  mesh = meshes.current()
  if mesh is not None and mesh.size > 1:
    shape = jax.tree.leaves(cached)[0].shape
    where = sharding.fit(cache.PLACES, shape, mesh)
    _, rows, tensor = where
    heads = PartitionSpec(rows, tensor)
    marked = tuple(
      PartitionSpec(*() if axis is None else (*(None,) * axis, rows))
      for axis in axes
    )
    step = jax.shard_map(
      step, mesh=mesh.grid, in_specs=(where, heads, marked), out_specs=heads,
      check_vma=False,
    )  # fmt: skip
  return step(cached, of_slots, marks)
