"""Prompts that are being completed: prefilled, each in a place of a pool.

However many prompts a rollout has, the pool holds what the slots need and two
batches more; places of prompts that are done with are filled again. A group's
prompt lies in it once, and all of its completions read it there.

A mesh splits slots and places into R shards, and a prompt's completions are
decoded where it lies: no key and no query goes from one shard to another. Each
has a queue of its own; the next prompt goes where the fewest are at work.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec as P

from r1jax import meshes, sharding
from r1jax.model import Decoder, attention
from r1jax.sampling import cache

# Of keys and values: a block's places or a ring's slots, and heads.
PLACES = P(None, sharding.ROWS, "tensor")
# Prompts of a batch of the prefill: more would only take memory.
PREFILL_ROWS = 16


class Pool(NamedTuple):
  """Prompts that are being completed, prefilled, each in one of A places.

  A prompt's last token is the first input of each of its completions, not of
  the prefill: it is their first step, and no special case.

  Attributes:
    layers: L of `cache.Prompts`, whose N B places are A.
    mask: [A, P] bool, what may be read: all but the last token.
    lengths: [A] int32, last tokens included. last: [A] int32, these tokens.
  """

  layers: tuple
  mask: jax.Array
  lengths: jax.Array
  last: jax.Array


class Places:
  """Which prompt lies in which place of the pool: the host's book.

  Attributes:
    pool: the `Pool`.
    of: [N] int32, the place of each prompt that has one.
    queues: [R, N] int32, the prompts of each shard, in the order in which they
      got a place there.
    filled: [R] int32, completions of the prompts in each queue.
  """

  def __init__(self, model, config, group, mesh, params, texts):
    self._static = (model, mesh)
    self._params, self._texts, self._group = params, texts, group
    self._rows = sharding.whole_rows(min(len(texts), PREFILL_ROWS), mesh)
    # What the slots need at one time, and two batches for them to go on with.
    block = min(len(texts), -(-config.slots // group))
    places = min(len(texts), block + 2 * self._rows)
    width = bucket(max(map(len, texts)))
    # One block for all, if to read it whole costs no more than a chunk of the
    # ring: to visit several costs time too.
    if places * group * width <= config.slots * config.chunk:
      block = places
    block = sharding.whole_rows(block, mesh)
    blocks = -(-places // block)
    self.pool = empty(model, mesh, blocks, block, width, config.int8)
    shards = sharding.row_shards(mesh)
    self.of = np.zeros(len(texts), np.int32)
    self.queues = np.zeros((shards, len(texts)), np.int32)
    self.filled = np.zeros(shards, np.int32)
    # The place p of a block lies in the shard p // (B / R).
    shard = np.arange(blocks * block) % block // (block // shards)
    self._free = [np.flatnonzero(shard == r).tolist() for r in range(shards)]
    self._shard = shard
    self._loaded = 0
    self._held = set()

  @property
  def _next(self):
    """How many prompts the next batch has."""
    return min(self._rows, len(self._texts) - self._loaded)

  @property
  def _room(self):
    """Places that are free, in all shards."""
    return sum(map(len, self._free))

  @property
  def wanted(self):
    """Prompts to be done with, of all so far, before the next batch fits."""
    if not self._next:
      return len(self._texts) + 1
    missing = max(0, self._next - self._room)
    return self._loaded - len(self._held) + missing

  def fill(self):
    """Prefills as many of the next prompts as there are places for."""
    while 0 < self._next <= self._room:
      new = np.arange(self._loaded, self._loaded + self._next)
      # Not in place: the device may still read the old ones.
      self.of, self.queues, self.filled = (
        x.copy() for x in (self.of, self.queues, self.filled)
      )
      for n in new.tolist():
        self._seat(n)
      # A batch that is not full has its last prompt again, at the same place.
      rows = np.pad(new, (0, self._rows - len(new)), mode="edge")
      width = bucket(max(len(self._texts[n]) for n in new))
      tokens = np.zeros((self._rows, width), np.int32)
      lengths = np.asarray([len(self._texts[n]) for n in rows], np.int32)
      for row, n in enumerate(rows):
        tokens[row, : lengths[row]] = self._texts[n]
      self.pool = load(
        *self._static, self._params, self.pool, tokens, lengths, self.of[rows]
      )
      self._loaded += len(new)

  def _seat(self, n):
    """Gives prompt n a place, in the shard with the fewest at work."""
    held = np.bincount(self.shards(self._held), minlength=len(self._free))
    shard = min(
      (r for r, free in enumerate(self._free) if free), key=lambda r: held[r]
    )
    self.of[n] = self._free[shard].pop(0)
    self.queues[shard, self.filled[shard] // self._group] = n
    self.filled[shard] += self._group
    self._held.add(n)

  def shards(self, prompts):
    """[.] int: in which shard each of these prompts has its place."""
    return self._shard[self.of[np.asarray(list(prompts), int)]]

  def release(self, finished):
    """Frees the places of prompts whose completions are all finished [C]."""
    whole = finished.reshape(-1, self._group).all(axis=1)
    for n in [n for n in self._held if whole[n]]:
      self._held.remove(n)
      place = int(self.of[n])
      self._free[self._shard[place]].append(place)


def bucket(length):
  """The width that a prompt is padded to: at most 15 tokens or an eighth more.

  Few of them, so that few shapes are compiled.
  """
  step = max(16, 1 << max(0, length.bit_length() - 4))
  return -(-length // step) * step


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3, 4, 5))
def empty(model, mesh, blocks, places, width, int8=False):
  """A `Pool` of `blocks` of `places` for prompts of `width` tokens."""
  layer = cache.empty_prompts(model, blocks, places, width, int8)
  count = jnp.zeros(blocks * places, jnp.int32)
  return Pool(
    (sharding.constrain(layer, mesh, PLACES),) * model.n_layers,
    jnp.zeros((blocks * places, width), bool),
    count,
    count,
  )


@functools.partial(jax.jit, static_argnums=(0, 1), donate_argnums=3)
def load(model, mesh, params, pool, tokens, lengths, places):
  """Prefills a batch of prompts.

  Args:
    model, mesh, params: as of `sample`.
    pool: the `Pool`; donated.
    tokens: [R, W] int32, padded on the right. lengths: [R] int32.
    places: [R] int32, where each goes.

  Returns:
    the `Pool` with them.
  """
  rows, width = tokens.shape
  tokens = sharding.constrain(tokens, mesh, P(sharding.ROWS))
  columns = jnp.arange(width)
  mask = columns[None] < lengths[:, None]
  with meshes.on(mesh):
    _, (k, v) = Decoder(model).apply(
      {"params": params}, tokens, jnp.where(mask, columns, 0),
      mask.astype(jnp.int32), method="prefill",
    )  # fmt: skip
  k, v = cache.stored(k, v, isinstance(pool.layers[0].k, attention.Int8))
  size = jax.tree.leaves(pool.layers[0].k)[0].shape[1]

  def put(i, layers):
    at = (*jnp.divmod(places[i], size), 0, 0, 0)

    def one(x, layer):
      return jax.tree.map(lambda y: y[layer, i][None], x)

    return tuple(
      cache.Prompts(
        cache.write(old.k, one(k, n), at), cache.write(old.v, one(v, n), at)
      )
      for n, old in enumerate(layers)
    )

  layers = jax.lax.fori_loop(0, rows, put, pool.layers)
  read = jnp.arange(pool.mask.shape[1])[None] < lengths[:, None] - 1
  last = jnp.take_along_axis(tokens, lengths[:, None] - 1, axis=1)[:, 0]
  return Pool(
    sharding.constrain(layers, mesh, PLACES),
    pool.mask.at[places].set(read),
    pool.lengths.at[places].set(lengths),
    pool.last.at[places].set(last),
  )
