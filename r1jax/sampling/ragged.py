"""Attention over the decode ring buffer, where each slot reads its own range.

The caller reads the newest chunk. This file joins the older chunks to it: in
plain XLA, where every slot pays for the longest one, or by a kernel for TPU,
where none does. The kernel is flash-decoding (Dao et al. 2023) over a list of
the chunks that the slots need.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from r1jax.model import attention
from r1jax.sampling import cache

# The longest list of chunks that the kernel takes: scalar memory is 1 MiB.
MOST_VISITS = 1 << 16
# What a slot keeps in a chunk is read in tiles of at most this size; two of
# them lie in VMEM.
TILE_BYTES = 1 << 21


def chunks_needed(
  age: jax.Array, column: jax.Array, chunks: int, size: int
) -> jax.Array:
  """How many chunks before the newest hold columns of each slot.

  Columns later than `column` in its own chunk are the oldest of all; they are
  not counted.

  Args:
    age: [S] int32, as in `decode.View`.
    column: [] int32, as in `decode.View`.
    chunks: how many the ring has.
    size: columns of a chunk.

  Returns:
    [S] int32.
  """
  older = jnp.maximum(age - column % size, 0)
  return jnp.minimum(-(-older // size), chunks - 1)


def _own(age, column, size, back):
  """[S, 1, size] bool, which columns of an older chunk are each slot's own."""
  own = column % size + back * size - jnp.arange(size)[None] <= age[:, None]
  return own[:, None]


def join_loop(
  part: attention.Partial,
  q: jax.Array,
  ring: cache.Ring,
  age: jax.Array,
  column: jax.Array,
) -> attention.Partial:
  """`join_kernel` in plain XLA: all slots visit what the longest one needs.

  Args:
    part, q, ring, age, column: as of `join_kernel`; the ring may also be of
      `attention.Int8`.
  """
  chunks, size = ring.extent
  last = column // size

  def older(back, part):
    arrays = jax.tree.map(lambda x: x[(last - back) % chunks], ring.arrays)
    own = _own(age, column, size, back)
    return attention.join(part, attention.read(q, arrays, ring.kept, own))

  used = chunks_needed(age, column, chunks, size).max() + 1
  return jax.lax.fori_loop(1, used, older, part)


def join_apart(
  part: attention.Partial,
  q: jax.Array,
  ring: cache.Apart,
  age: jax.Array,
  column: jax.Array,
) -> attention.Partial:
  """`join_loop` on a ring whose chunks are apart.

  Args:
    part, q, age, column: as of `join_kernel`.
    ring: `cache.Apart`.
  """
  chunks, size = ring.extent
  used = chunks_needed(age, column, chunks, size).max()
  for back in range(1, chunks):
    chunk, own = ring.chunks[back], _own(age, column, size, back)

    def read(part):
      more = attention.read(q, chunk[0], chunk.kept, own)
      return attention.join(part, more)

    part = jax.lax.cond(back <= used, read, lambda part: part, part)
  return part


class Work(NamedTuple):
  """The kernel's visits: slot by slot its chunks, newest first.

  Attributes:
    slot: [S * (chunks - 1)] int32, the slot of each visit; only the first
      `count` are made.
    first: [S] int32, the first visit of each slot.
    count: [] int32.
  """

  slot: jax.Array
  first: jax.Array
  count: jax.Array  # type: ignore[assignment]


def work(age: jax.Array, column: jax.Array, chunks: int, size: int) -> Work:
  """The `Work` for these slots; the arguments of `chunks_needed`."""
  needed = chunks_needed(age, column, chunks, size)
  end = jnp.cumsum(needed, dtype=jnp.int32)
  visits = jnp.arange(len(age) * (chunks - 1), dtype=jnp.int32)
  slot = (visits[:, None] >= end[None]).sum(axis=1, dtype=jnp.int32)
  return Work(jnp.minimum(slot, len(age) - 1), end - needed, end[-1])


def fits(q: jax.Array, ring: cache.Ring) -> bool:
  """Whether `join_kernel` supports these queries and this `cache.Ring`."""
  arrays = [ring.arrays[k.name] for k in ring.kept]
  if any(isinstance(x, attention.Int8) for x in arrays):
    return False
  chunks, size = ring.extent
  slots = arrays[0].shape[1]
  return (
    all(x.dtype == q.dtype for x in arrays)
    and q.dtype in (jnp.bfloat16, jnp.float32)
    and size % 128 == 0
    and all(k.width % 64 == 0 for k in ring.kept)
    and slots * (chunks - 1) <= MOST_VISITS
    and _heads_at_a_time(ring) > 0
  )


def _heads_at_a_time(ring):
  """The most heads that divide K and whose tile is small enough, or 0."""
  arrays = [ring.arrays[k.name] for k in ring.kept]
  heads = arrays[0].shape[2]
  width = sum(k.width for k in ring.kept)
  most = TILE_BYTES // (width * ring.extent[1] * arrays[0].dtype.itemsize)
  return max((n for n in range(1, most + 1) if heads % n == 0), default=0)


class _Tile(NamedTuple):
  """How the kernel sees an array: its `Kept`, and its axes in `jnp.einsum`."""

  kept: attention.Kept
  axes: str


def _for_kernel(x, kept):
  """An array of a ring as the kernel reads it best, and its `_Tile`.

  TPU memory is tiled by 128 numbers, so the compiler stores an array whose
  last dimension is narrower the other way round; asking for that order saves
  a copy.
  """
  if kept.tokens_last:
    return x, _Tile(kept, "kdu")
  if kept.width % 128:
    return x.swapaxes(3, 4), _Tile(kept, "kdu")
  return x, _Tile(kept, "kud")


def join_kernel(
  part: attention.Partial,
  q: jax.Array,
  ring: cache.Ring,
  age: jax.Array,
  column: jax.Array,
  interpret: bool = False,
) -> attention.Partial:
  """Attention of the slots over a ring's older chunks, joined to a part.

  In Pallas, for TPU. It fetches only the chunks that each slot needs.

  Args:
    part: `attention.Partial` [S, K, H / K, ...] over some keys, at least one
      for each slot.
    q: [S, H, 1, D] queries.
    ring: `cache.Ring`; the chunk of `column` is not read.
    age: [S] int32, as in `decode.View`.
    column: [] int32, as in `decode.View`.
    interpret: runs on any platform, slowly; for tests.

  Returns:
    `attention.Partial` of the same shapes.
  """
  chunks, size = ring.extent
  visits = work(age, column, chunks, size)
  arrays, tiles = zip(*(_for_kernel(ring.arrays[k.name], k) for k in ring.kept))
  now = jnp.stack((column // size, column % size)).astype(jnp.int32)
  queries = attention.scaled(q, part.out.shape[1])
  before = part.out, part.total[..., None], part.peak[..., None]
  out, total, peak = pl.pallas_call(
    functools.partial(_kernel, size, tiles),
    grid_spec=_grid(
      _heads_at_a_time(ring), visits.count, queries, arrays, before
    ),
    out_shape=[jax.ShapeDtypeStruct(x.shape, jnp.float32) for x in before],
    # In place: slots without a visit keep the part that they came with.
    input_output_aliases={5 + len(arrays) + i: i for i in range(3)},
    compiler_params=pltpu.CompilerParams(
      dimension_semantics=("parallel", "arbitrary")
    ),
    name="ragged_ring",
    interpret=interpret,
  )(visits.slot, visits.first, age, now, queries, *arrays, *before)
  return attention.Partial(out, total[..., 0], peak[..., 0])


def _grid(heads, visits, queries, arrays, part):
  """The visits of the kernel, and what each of them reads and writes.

  Args:
    heads: of a slot, read at a time.
    visits: [] int32, how many.
    queries: [S, K, H / K, D].
    arrays: of the ring, [chunks, S, K, ., .].
    part: three arrays [S, K, H / K, .].
  """
  chunks, _, kv = arrays[0].shape[:3]

  def of_slot(head, visit, slot, *_):
    return slot[visit], head, 0, 0

  def of_ring(head, visit, slot, first, age, now):
    chunk = now[0] - _back(visit, slot, first)
    chunk = jnp.where(chunk < 0, chunk + chunks, chunk)
    return chunk, slot[visit], head, 0, 0

  def slots(x):
    return pl.BlockSpec((None, heads, *x.shape[2:]), of_slot)

  def ring(x):
    return pl.BlockSpec((None, None, heads, *x.shape[3:]), of_ring)

  return pltpu.PrefetchScalarGridSpec(
    num_scalar_prefetch=4,
    # At least one visit: an empty grid is nothing to rely on.
    grid=(kv // heads, jnp.maximum(visits, 1)),
    in_specs=[slots(queries), *map(ring, arrays), *map(slots, part)],
    out_specs=[slots(x) for x in part],
  )


def _back(visit, slot, first):
  """How many chunks before the newest this visit reads."""
  return visit - first[slot[visit]] + 1


def _kernel(size, tiles, slot, first, age, now, *refs):
  """One visit: reads one chunk of one slot.

  Args:
    size: columns of a chunk.
    tiles: the `_Tile` of each array.
    slot, first, age: as in `Work` and `join_kernel`.
    now: [2], number of the newest chunk and the column in it.
    *refs: the queries; the arrays, one for each tile; the part before; and
      the part after the visit.
  """
  q, *arrays = refs[: 1 + len(tiles)]
  before, (out, total, peak) = refs[1 + len(tiles) : -3], refs[-3:]
  visit = pl.program_id(1)
  back = _back(visit, slot, first)

  @pl.when(back == 1)
  def _():
    for new, old in zip((out, total, peak), before):
      new[...] = old[...]

  mine = age[slot[visit]]
  # Age of the chunk's first column; that of the others is less.
  oldest = now[1] + back * size

  # Always, except in the only visit of an empty list.
  @pl.when(oldest - size < mine)
  def _():
    s = _scores(q, arrays, tiles)
    column = jax.lax.broadcasted_iota(jnp.int32, s.shape, 2)
    s = jnp.where(oldest - column <= mine, s, attention.MASKED)
    top = jnp.maximum(peak[...], s.max(axis=-1, keepdims=True))
    p, kept = jnp.exp(s - top), jnp.exp(peak[...] - top)
    total[...] = total[...] * kept + p.sum(axis=-1, keepdims=True)
    ((v, axes),) = (
      (v, tile.axes) for v, tile in zip(arrays, tiles) if tile.kept.value
    )
    sums = jnp.einsum(
      f"kqu,{axes}->kqd", p.astype(v.dtype), v[...],
      preferred_element_type=jnp.float32,
    )  # fmt: skip
    out[...] = out[...] * kept + sums
    peak[...] = top


def _scores(q, arrays, tiles):
  """Products of the queries [heads, Q, D] with all keys: [heads, Q, U]."""
  at, s = 0, None
  for x, (kept, axes) in zip(arrays, tiles):
    if kept.key:
      part = jnp.einsum(
        f"kqd,{axes}->kqu", q[:, :, at : at + kept.width], x[...],
        preferred_element_type=jnp.float32,
      )  # fmt: skip
      s, at = part if s is None else s + part, at + kept.width
  return s
