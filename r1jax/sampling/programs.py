"""The compiled programs of a rollout, from shapes alone.

Tests and tools compile them for any sizes and devices, without parameters.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec

from r1jax import model, sharding
from r1jax.meshes import Mesh
from r1jax.sampling import cache, pool, step, weights
from r1jax.sampling.config import Static


class Programs(NamedTuple):
  """One value for each of the compiled programs of a rollout.

  Attributes:
    load: of `weights.lay_out`.
    prefill: of `pool.prefill`.
    advance: of `step.advance`.
  """

  load: Any
  prefill: Any
  advance: Any


def shapes(static: Static, prompts: int, width: int) -> Programs:
  """What each program takes besides its static arguments.

  Args:
    static: the `Static`.
    prompts: N.
    width: tokens of the longest prompt.

  Returns:
    `Programs` of tuples of `jax.ShapeDtypeStruct`s.
  """
  mesh, total = static.mesh, prompts * static.group
  size = pool.pool_size(static, prompts, width)
  if mesh is None:
    params = model.shapes(static.model)
  else:
    params = model.placed_shapes(static.model, mesh)
  prefilled = jax.eval_shape(
    lambda: pool.empty(static.model, None, size, static.config.int8)
  )
  prefilled = _placed(mesh, prefilled)._replace(
    layers=_placed(mesh, prefilled.layers, cache.PLACES)
  )
  state = jax.eval_shape(lambda: step.begin(static, total))
  state = _placed(mesh, state)._replace(
    rings=_placed(mesh, state.rings, cache.PLACES)
  )
  batch = pool.Batch(
    _ints(size.rows, size.width), _ints(size.rows), _ints(size.rows)
  )
  shards = sharding.row_shards(mesh)
  book = pool.Book(
    _ints(prompts), _ints(shards, prompts), _ints(shards), _ints()
  )
  key = jax.eval_shape(lambda: jax.random.key(0))
  fixed = _ints(total), _ints(total), key, jax.ShapeDtypeStruct((), jnp.float32)
  inputs = step.Inputs(
    weights.shapes(static.model, mesh), *_placed(mesh, fixed)
  )
  return Programs(
    (params,),
    (params, prefilled, _placed(mesh, batch)),
    (inputs, prefilled, state, _placed(mesh, book)),
  )


def lower(static: Static, prompts: int, width: int) -> Programs:
  """`Programs` of `jax.stages.Lowered`; arguments as of `shapes`."""
  inputs = shapes(static, prompts, width)
  return Programs(
    weights.lay_out.lower(static.model, *inputs.load),
    pool.prefill.lower(static.model, static.mesh, *inputs.prefill),
    step.advance.lower(static, *inputs.advance),
  )


def _ints(*shape) -> Any:
  return jax.ShapeDtypeStruct(shape, jnp.int32)


def _placed(mesh: Mesh | None, tree: Any, spec: Any = None) -> Any:
  """Shapes of arrays on a mesh, whole on every device without a spec."""
  if mesh is None:
    return tree

  def placed(x):
    where = sharding.fit(spec or PartitionSpec(), x.shape, mesh)
    where = NamedSharding(mesh.grid, where)
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=where)

  return jax.tree.map(placed, tree)
