"""Keys and values as the sampler keeps them: `Prompts` and a `Ring`.

What is decoded goes into a ring in time, a layer its own, of C chunks of R
columns. At decoding step g every slot writes column g mod C R, wherever it is
in its own completion, so a step is one update of a slice and never a scatter;
and only the chunks that some slot still needs are read. The chunk that is
written is out of the ring meanwhile: a slice of the ring that a step must read
is a copy, and this one every step reads.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from r1jax import sharding
from r1jax.model import attention

# Of kept arrays: dimension 1 is a bank's places or a ring's slots, dimension 2
# the heads.
PLACES = PartitionSpec(None, sharding.ROWS, "tensor")


class Prompts(NamedTuple):
  """One layer's keys and values of prompts, each stored once.

  Attributes:
    k [N, B, K, D, P], v [N, B, K, P, D]: N blocks of B places, a prompt each;
      arrays or `attention.Int8`. Blocks that no slot reads are skipped; a
      block's places are split over the mesh.
  """

  k: Any
  v: Any


class Chunk(NamedTuple):
  """R columns of a layer's ring.

  Attributes:
    k [1, S, K, D, R], v [1, S, K, R, D]: arrays or `attention.Int8`.
  """

  k: Any
  v: Any

  @property
  def size(self):
    """R."""
    return jax.tree.leaves(self.k)[0].shape[-1]

  def written(self, k, v, column):
    """The same with keys [S, K, D, 1] and values [S, K, 1, D] of a column.

    Args:
      column: [] int32, the ring's.
    """
    at = column % self.size
    k, v = stored(k, v, isinstance(self.k, attention.Int8))
    return Chunk(
      write(self.k, k, (0, 0, 0, 0, at)), write(self.v, v, (0, 0, 0, at, 0))
    )


class Ring(NamedTuple):
  """A layer's chunks in one array.

  Attributes:
    k [C, S, K, D, R], v [C, S, K, R, D]: arrays or `attention.Int8`.
  """

  k: Any
  v: Any

  @property
  def extent(self):
    """C and R."""
    shape = jax.tree.leaves(self.k)[0].shape
    return shape[0], shape[-1]

  def take(self, column):
    """The `Chunk` that holds this column of the ring."""
    at = column // self.extent[1]
    return Chunk(
      *jax.tree.map(
        lambda x: jax.lax.dynamic_slice_in_dim(x, at, 1), tuple(self)
      )
    )

  def give_back(self, chunk, column):
    """The ring with what `take` took from it."""
    at = column // self.extent[1]
    return Ring(
      *jax.tree.map(
        lambda x, y: jax.lax.dynamic_update_slice_in_dim(x, y, at, 0),
        tuple(self), tuple(chunk),
      )
    )  # fmt: skip

  def next_chunk(self):
    """The ring after the chunk that was written is full."""
    return self


class Apart(NamedTuple):
  """A layer's chunks as arrays of their own; the methods are those of `Ring`.

  On CPU a chunk of a larger array is copied before a product reads it.

  Attributes:
    chunks: C of `Chunk`, the one that is being written first, and the others
      from new to old.
  """

  chunks: tuple

  @classmethod
  def of(cls, ring):
    """From a `Ring` in which nothing has been written yet."""
    size = ring.extent[1]
    return cls(
      tuple(ring.take(chunk * size) for chunk in range(ring.extent[0]))
    )

  @property
  def extent(self):
    return len(self.chunks), self.chunks[0].size

  def take(self, column):
    del column  # is in the first
    return self.chunks[0]

  def give_back(self, chunk, column):
    del column
    return Apart((chunk, *self.chunks[1:]))

  def next_chunk(self):
    """Moves no data; outside of `jax.jit`, or it would be copied."""
    return Apart(self.chunks[-1:] + self.chunks[:-1])


def stored(k, v, int8):
  """Keys [..., D, U] and values [..., U, D] as a cache holds them."""
  if int8:
    return attention.quantize(k, -2), attention.quantize(v, -1)
  return k, v


def write(cache, x, at):
  """Puts x [S, K, ., .] into keys or values [C, S, K, ., .].

  Args:
    cache: array or `attention.Int8`. x: the same, as of `stored`.
    at: indices of where it begins, one a dimension.
  """
  if not isinstance(cache, attention.Int8):
    return jax.lax.dynamic_update_slice(cache, x[None].astype(cache.dtype), at)
  # The scales lack the dimension D, whose index is 0: x is whole there.
  return attention.Int8(
    write(cache.values, x.values, at),
    write(cache.scale, x.scale, (*at[:3], at[3] + at[4])),
  )


def empty_prompts(config, size, int8=False):
  """Zero `Prompts` of one layer.

  Args:
    config: the `ModelConfig`.
    size: a `pool.Size`.
    int8: whether they are stored in eight bits; else in the compute dtype.
  """
  return Prompts(*_zeros(config, size.banks, size.places, size.width, int8))


def empty_ring(config, slots, length, chunk, int8=False):
  """The `Ring` of one layer, for `length` columns or more.

  Args:
    slots: S. length: columns that a slot may need. chunk: columns that are
      read together. int8: else in the compute dtype.
  """
  size = min(chunk, length)
  return Ring(*_zeros(config, -(-length // size), slots, size, int8))


def _zeros(config, chunks, slots, columns, int8):
  shape, c = (chunks, slots, config.n_kv_heads), config
  k = jnp.zeros((*shape, c.head_dim, columns), c.compute_dtype)
  return stored(k, k.swapaxes(-1, -2), int8)
