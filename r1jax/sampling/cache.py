"""The key-value cache of the sampler: `Columns` of tokens, and a `Ring`.

What the model's attention keeps of a token (`attention.Kept`) is a column.
Decoded tokens go into a ring in time, one for each layer, which is divided
into chunks. At decoding step g every slot writes column g modulo the ring's
length, wherever the slot is in its own completion. So a step is one update of
a slice and never a scatter, and a step reads only the chunks that some slot
needs. The chunk that is written is out of the ring meanwhile: every step reads
it, and a slice of the ring would be copied before it is read.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from r1jax import sharding
from r1jax.model import ModelConfig, attention

# Of kept arrays: dimension 1 is a bank's places or a ring's slots, dimension 2
# the heads.
PLACES = PartitionSpec(None, sharding.ROWS, "tensor")

_node = functools.partial(
  jax.tree_util.register_dataclass,
  data_fields=["arrays"],
  meta_fields=["kept"],
)


@_node
@dataclasses.dataclass(frozen=True)
class Columns:
  """What a layer's attention keeps of some tokens.

  Of prompts: [banks, places, ...], a prompt in each place. Of a chunk of the
  ring: [1, S, ...], the same columns of all slots.

  Attributes:
    arrays: name -> [., ., *`Kept.shape`(columns)], an array or
      `attention.Int8`.
    kept: tuple of `attention.Kept`, what the arrays are.
  """

  arrays: dict
  kept: tuple

  @property
  def shape(self) -> tuple[int, int, int, int]:
    """The two leading dimensions, heads, and the number of columns."""
    k = self.kept[0]
    shape = _values(self.arrays[k.name]).shape
    return *shape[:3], shape[k.token_axis]

  @property
  def int8(self) -> bool:
    """Whether the arrays are stored in eight bits."""
    return isinstance(self.arrays[self.kept[0].name], attention.Int8)

  def __getitem__(self, i):
    """The arrays at an index of the first dimension: name -> [., ...]."""
    return jax.tree.map(lambda x: x[i], self.arrays)

  def written(
    self, arrays: dict, at: tuple, column: jax.Array | int = 0
  ) -> "Columns":
    """The same with other columns in place of some.

    Args:
      arrays: name -> [., *`Kept.shape`(.)], as of `stored`; fewer than these
        in the second dimension or in the columns.
      at: index of the first dimension, and of the second where they begin.
      column: the column where they begin.
    """
    return dataclasses.replace(
      self,
      arrays={
        k.name: _write(self.arrays[k.name], arrays[k.name], at, column, k)
        for k in self.kept
      },
    )


@_node
@dataclasses.dataclass(frozen=True)
class Ring:
  """A layer's chunks in one array each of what is kept.

  Attributes:
    arrays: name -> [chunks, S, *`Kept.shape`(columns of a chunk)], an array or
      `attention.Int8`.
    kept: tuple of `attention.Kept`.
  """

  arrays: dict
  kept: tuple

  @property
  def extent(self) -> tuple[int, int]:
    """How many chunks there are, and how many columns each has."""
    shape = Columns(self.arrays, self.kept).shape
    return shape[0], shape[3]

  def take(self, column: jax.Array | int) -> Columns:
    """The `Columns` of the chunk that holds this column of the ring."""
    at = column // self.extent[1]
    arrays = jax.tree.map(
      lambda x: jax.lax.dynamic_slice_in_dim(x, at, 1), self.arrays
    )
    return Columns(arrays, self.kept)

  def give_back(self, chunk: Columns, column: jax.Array | int) -> "Ring":
    """The ring with the chunk that `take` took from it."""
    at = column // self.extent[1]
    arrays = jax.tree.map(
      lambda x, y: jax.lax.dynamic_update_slice_in_dim(x, y, at, 0),
      self.arrays,
      chunk.arrays,
    )
    return Ring(arrays, self.kept)

  def next_chunk(self) -> "Ring":
    """The ring after the chunk that was written is full."""
    return self


@functools.partial(
  jax.tree_util.register_dataclass, data_fields=["chunks"], meta_fields=[]
)
@dataclasses.dataclass(frozen=True)
class Apart:
  """A layer's chunks as arrays of their own; the methods are those of `Ring`.

  On CPU a chunk of a larger array is copied before a product reads it.

  Attributes:
    chunks: tuple of `Columns`: the chunk that is being written, then the
      others from new to old.
  """

  chunks: tuple

  @classmethod
  def of(cls, ring: Ring) -> "Apart":
    """From a `Ring` in which nothing has been written yet."""
    chunks, size = ring.extent
    return cls(tuple(ring.take(chunk * size) for chunk in range(chunks)))

  @property
  def extent(self) -> tuple[int, int]:
    """How many chunks there are, and how many columns each has."""
    return len(self.chunks), self.chunks[0].shape[3]

  def take(self, column: jax.Array | int) -> Columns:
    """The chunk that is being written."""
    del column  # The first chunk holds it.
    return self.chunks[0]

  def give_back(self, chunk: Columns, column: jax.Array | int) -> "Apart":
    """The ring with the chunk that `take` took from it."""
    del column
    return Apart((chunk, *self.chunks[1:]))

  def next_chunk(self) -> "Apart":
    """The ring after the chunk that was written is full.

    Call this outside of `jax.jit`, where it moves no data.
    """
    return Apart(self.chunks[-1:] + self.chunks[:-1])


def stored(arrays: Any, kept: tuple, int8: bool) -> dict:
  """Kept arrays as a cache stores them.

  Args:
    arrays: name -> [..., *`Kept.shape`(.)].
    kept: tuple of `attention.Kept`.
    int8: whether in eight bits.

  Returns:
    name -> array or `attention.Int8`.
  """
  if not int8:
    return arrays
  return {
    k.name: attention.quantize(arrays[k.name], k.width_axis) for k in kept
  }


def _values(x):
  return x.values if isinstance(x, attention.Int8) else x


def _write(cache, x, at, column, kept):
  """Puts [., *`Kept.shape`(.)] into a cache [., ., *`Kept.shape`(.)]."""
  if isinstance(cache, attention.Int8):
    return attention.Int8(
      _update(cache.values, x.values, at, column, kept.token_axis),
      _update(cache.scale, x.scale, at, column, -1),
    )
  return _update(cache, x, at, column, kept.token_axis)


def _update(cache, x, at, column, axis):
  start = [*at, *[0] * (cache.ndim - 2)]
  start[axis] = column
  x = x[None].astype(cache.dtype)
  return jax.lax.dynamic_update_slice(cache, x, tuple(start))


def empty_prompts(
  config: ModelConfig, size: Any, int8: bool = False
) -> Columns:
  """Zero `Columns` of one layer for a pool of prompts.

  Args:
    config: the `ModelConfig`.
    size: a `pool.Size`.
    int8: whether in eight bits; else in the compute dtype.
  """
  return _zeros(config, (size.banks, size.places), size.width, int8)


def empty_ring(
  config: ModelConfig, slots: int, length: int, chunk: int, int8: bool = False
) -> Ring:
  """The zero `Ring` of one layer.

  Args:
    config: the `ModelConfig`.
    slots: S.
    length: columns that a slot may need; the ring has at least as many.
    chunk: columns that are read together.
    int8: whether in eight bits; else in the compute dtype.
  """
  size = min(chunk, length)
  columns = _zeros(config, (-(-length // size), slots), size, int8)
  return Ring(columns.arrays, columns.kept)


def _zeros(config, leading, columns, int8):
  kept = attention.kept(config)
  arrays = {
    k.name: jnp.zeros((*leading, *k.shape(columns)), config.compute_dtype)
    for k in kept
  }
  return Columns(stored(arrays, kept, int8), kept)
