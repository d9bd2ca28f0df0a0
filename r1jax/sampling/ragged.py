"""Attention on a ring of decoded tokens, of which each slot needs another part.

The newest chunk is the caller's; what the older ones add is joined to it here,
in plain XLA, in which every slot pays for the longest, or by a kernel for TPU,
in which none does: flash-decoding (Dao et al. 2023) over a list of the chunks
that the slots need, one after the other.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from r1jax.model import attention

# What the kernel's list of chunks may hold, in the scalar memory of 1 MiB.
MOST_TURNS = 1 << 16
# Of a slot's keys, read at a time; twice that and the values lie in VMEM.
BLOCK_BYTES = 1 << 20


def chunks_needed(age, column, chunks, size):
  """How many chunks before the newest hold columns of each slot, [S] int32.

  Args:
    age: [S] int32, column: [] int32, as in `decode.View`.
    chunks, size: C and R of the ring. Columns later than `column` in its own
      chunk are the oldest of all, and not counted.
  """
  older = jnp.maximum(age - column % size, 0)
  return jnp.minimum(-(-older // size), chunks - 1)


def join_loop(part, q, k, v, age, column):
  """`join_kernel` in plain XLA, as many chunks as the longest slot needs.

  Args:
    k, v: also `attention.Int8`. The others: as of `join_kernel`.
  """
  shape = jax.tree.leaves(k)[0].shape
  chunks, size = shape[0], shape[-1]
  last, at = column // size, column % size

  def older(back, part):
    own = at + back * size - jnp.arange(size)[None] <= age[:, None]
    keys, values = jax.tree.map(lambda x: x[(last - back) % chunks], (k, v))
    return attention.join(
      part, attention.partial(q, keys, values, own[:, None])
    )

  used = chunks_needed(age, column, chunks, size).max() + 1
  return jax.lax.fori_loop(1, used, older, part)


def join_apart(part, q, ring, age, column):
  """`join_loop` on a ring whose chunks are apart.

  Args:
    ring: `cache.Apart`. The others: as of `join_kernel`.
  """
  chunks, size = ring.extent
  used = chunks_needed(age, column, chunks, size).max()
  for back in range(1, chunks):
    own = column % size + back * size - jnp.arange(size)[None] <= age[:, None]

    def read(part):
      keys, values = jax.tree.map(lambda x: x[0], ring.chunks[back])
      return attention.join(
        part, attention.partial(q, keys, values, own[:, None])
      )

    part = jax.lax.cond(back <= used, read, lambda part: part, part)
  return part


class Work(NamedTuple):
  """The turns of the kernel: a slot's chunks, the newest first, slot by slot.

  Attributes:
    slot: [S (C - 1)] int32, whose turn it is; of these the first `count` are
      meant. first: [S] int32, the turn at which each slot begins.
    count: [] int32.
  """

  slot: jax.Array
  first: jax.Array
  count: jax.Array


def work(age, column, chunks, size):
  """The `Work` for these slots; the arguments of `chunks_needed`."""
  needed = chunks_needed(age, column, chunks, size)
  end = jnp.cumsum(needed, dtype=jnp.int32)
  turns = jnp.arange(len(age) * (chunks - 1), dtype=jnp.int32)
  slot = (turns[:, None] >= end[None]).sum(axis=1, dtype=jnp.int32)
  return Work(jnp.minimum(slot, len(age) - 1), end - needed, end[-1])


def fits(q, k):
  """Whether `join_kernel` takes such queries and keys."""
  if isinstance(k, attention.Int8):
    return False
  chunks, slots, _, dim, size = k.shape
  return (
    q.dtype == k.dtype
    and k.dtype in (jnp.bfloat16, jnp.float32)
    and size % 128 == 0
    and dim % 64 == 0
    and slots * (chunks - 1) <= MOST_TURNS
    and _heads_at_a_time(k) > 0
  )


def _heads_at_a_time(k):
  """The most key heads that divide K and stay in `BLOCK_BYTES`, or 0."""
  _, _, kv, dim, size = k.shape
  most = BLOCK_BYTES // (dim * size * k.dtype.itemsize)
  return max((n for n in range(1, most + 1) if kv % n == 0), default=0)


def join_kernel(part, q, k, v, age, column, interpret=False):
  """What the slots read in a ring's older chunks, joined to a part.

  Pallas, for TPU: no chunk is fetched that its slot does not need.

  Args:
    part: `attention.Partial`, [S, K, H / K, .], of no empty set of keys.
    q: [S, H, 1, D].
    k, v: [C, S, K, D, R] and [C, S, K, R, D], see `cache.Ring`; the chunk
      of `column` is not read.
    age: [S] int32, column: [] int32, as in `decode.View`.
    interpret: on any platform, slowly; for tests.

  Returns:
    `attention.Partial` of the same shapes.
  """
  chunks, slots, kv, dim, size = k.shape
  group = q.shape[1] // kv
  heads = _heads_at_a_time(k)
  turns = work(age, column, chunks, size)
  # Values of 64 numbers lie turned in memory, as it is tiled by 128: the other
  # way they would be copied.
  turned = dim % 128 != 0
  if turned:
    v = v.swapaxes(3, 4)
  now = jnp.stack((column // size, column % size)).astype(jnp.int32)

  def of_slot(head, turn, slot, *_):
    return slot[turn], head, 0, 0

  def of_ring(head, turn, slot, first, age, now):
    chunk = now[0] - _back(turn, slot, first)
    chunk = jnp.where(chunk < 0, chunk + chunks, chunk)
    return chunk, slot[turn], head, 0, 0

  def rows(width):
    return pl.BlockSpec((None, heads, group, width), of_slot)

  partial = [rows(dim), rows(1), rows(1)]
  out, total, peak = pl.pallas_call(
    functools.partial(_kernel, size, "kdr" if turned else "krd"),
    grid_spec=pltpu.PrefetchScalarGridSpec(
      num_scalar_prefetch=4,
      # One turn at least: an empty grid is nothing to rely on.
      grid=(kv // heads, jnp.maximum(turns.count, 1)),
      in_specs=[
        rows(dim),
        pl.BlockSpec((None, None, heads, *k.shape[3:]), of_ring),
        pl.BlockSpec((None, None, heads, *v.shape[3:]), of_ring),
        *partial,
      ],
      out_specs=partial,
    ),
    out_shape=[
      jax.ShapeDtypeStruct((slots, kv, group, width), jnp.float32)
      for width in (dim, 1, 1)
    ],
    # In place: slots that have no turn keep the part that they came with.
    input_output_aliases={7: 0, 8: 1, 9: 2},
    compiler_params=pltpu.CompilerParams(
      dimension_semantics=("parallel", "arbitrary")
    ),
    name="ragged_ring",
    interpret=interpret,
  )(
    turns.slot, turns.first, age, now,
    (q * jnp.asarray(dim**-0.5, q.dtype)).reshape(part.out.shape), k, v,
    part.out, part.total[..., None], part.peak[..., None],
  )  # fmt: skip
  return attention.Partial(out, total[..., 0], peak[..., 0])


def _back(turn, slot, first):
  """How many chunks before the newest this turn reads."""
  return turn - first[slot[turn]] + 1


def _kernel(
  size, axes, slot, first, age, now, q, k, v, out0, total0, peak0, out, total,
  peak,
):  # fmt: skip
  """One chunk of one slot: keys [K', D, R], values with these axes."""
  turn = pl.program_id(1)
  back = _back(turn, slot, first)

  @pl.when(back == 1)
  def _():
    out[...], total[...], peak[...] = out0[...], total0[...], peak0[...]

  mine = age[slot[turn]]
  # Age of the chunk's first column; that of the others is less.
  oldest = now[1] + back * size

  # Always, but in the one turn of a list without any.
  @pl.when(oldest - size < mine)
  def _():
    product = functools.partial(jnp.einsum, preferred_element_type=jnp.float32)
    s = product("kgd,kdr->kgr", q[...], k[...])
    column = jax.lax.broadcasted_iota(jnp.int32, s.shape, 2)
    s = jnp.where(oldest - column <= mine, s, attention.MASKED)
    top = jnp.maximum(peak[...], s.max(axis=-1, keepdims=True))
    p, kept = jnp.exp(s - top), jnp.exp(peak[...] - top)
    total[...] = total[...] * kept + p.sum(axis=-1, keepdims=True)
    p = p.astype(v.dtype)
    out[...] = out[...] * kept + product(f"kgr,{axes}->kgd", p, v[...])
    peak[...] = top
