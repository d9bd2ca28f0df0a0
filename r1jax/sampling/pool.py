"""The pool of prompts that are being completed, and the host's book of it.

Each prompt is prefilled once and lies in one place of the pool; all of its
completions read it there. The pool holds the prompts that the slots need at
one time and two batches more. When a prompt's completions are finished, its
place is filled again.

The pool consists of banks, each with equally many places. A step reads only
the banks that some slot needs. A mesh splits the places of every bank, and the
slots, into shards. A prompt's completions are decoded on the shard that holds
the prompt, so no key and no query moves between shards. Each shard has a queue
of its own; the next prompt goes to the shard with the fewest unfinished ones.
"""

import functools
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec

from r1jax import meshes, sharding
from r1jax.model import Decoder, ModelConfig
from r1jax.sampling import cache
from r1jax.sampling.config import Static

# Prompts of a batch of the prefill: more would only take memory.
PREFILL_ROWS = 16


class Pool(NamedTuple):
  """Prefilled prompts, each in one of A places: banks times places of each.

  A prompt's last token is not prefilled: it is the first input of each of the
  prompt's completions, so that their first step is like all others.

  Attributes:
    layers: L of `cache.Columns`.
    mask: [A, P] bool, what may be read: all tokens but the last.
    lengths: [A] int32, tokens of each prompt, the last included.
    last: [A] int32, the last token of each prompt.
  """

  layers: tuple
  mask: jax.Array
  lengths: jax.Array
  last: jax.Array

  @property
  def by_bank(self) -> jax.Array:
    """`mask` as [banks, places, P]."""
    banks, places = self.layers[0].shape[:2]
    return self.mask.reshape(banks, places, -1)


class Book(NamedTuple):
  """Which prompts lie where, and which completions each shard may start.

  Attributes:
    places: [N] int32, the place of each prompt that has one.
    queues: [shards, N] int32, the prompts of each shard, in the order in which
      they got a place there.
    filled: [shards] int32, completions of the prompts in each queue.
    wanted: [] int32, the number of finished prompts at which the host can load
      more; `advance` stops there if slots have nothing to do.
  """

  places: np.ndarray
  queues: np.ndarray
  filled: np.ndarray
  wanted: int


class Size(NamedTuple):
  """The size of a pool.

  Attributes:
    banks: how many. places: of each bank. width: P, tokens of the longest
      prompt, padded.
    rows: prompts of a batch of the prefill.
  """

  banks: int
  places: int
  width: int
  rows: int


def pool_size(static: Static, prompts: int, longest: int) -> Size:
  """The `Size` of the pool for a rollout.

  Args:
    static: the `config.Static`.
    prompts: N.
    longest: tokens of the longest prompt.
  """
  config, group, mesh = static.config, static.group, static.mesh
  rows = sharding.whole_rows(min(prompts, PREFILL_ROWS), mesh)
  # What the slots need at one time, and two batches that wait for slots.
  bank = min(prompts, -(-config.slots // group))
  places = min(prompts, bank + 2 * rows)
  width = bucket(longest)
  # One bank for all, if reading all of it costs no more than a chunk of the
  # ring: each bank that is visited costs some time too.
  if places * group * width <= config.slots * config.chunk:
    bank = places
  bank = sharding.whole_rows(bank, mesh)
  return Size(-(-places // bank), bank, width, rows)


class Places:
  """The host's side of the pool: loads prompts and keeps the book.

  Attributes:
    pool: the `Pool`.
  """

  def __init__(self, static: Static, params: Any, texts: Sequence):
    """An empty pool for these prompts.

    Args:
      static: the `config.Static`.
      params: the model's parameters.
      texts: N arrays of tokens, in the order in which they are loaded.
    """
    self._static, self._params, self._texts = static, params, texts
    size = pool_size(static, len(texts), max(map(len, texts)))
    self.pool = empty(static.model, static.mesh, size, static.config.int8)
    shards = sharding.row_shards(static.mesh)
    self._rows = size.rows
    self._places = np.zeros(len(texts), np.int32)
    self._queues = np.zeros((shards, len(texts)), np.int32)
    self._filled = np.zeros(shards, np.int32)
    # The shard of each place: every bank is split evenly.
    at = np.arange(size.banks * size.places) % size.places
    self._shard = at // (size.places // shards)
    self._free = [
      np.flatnonzero(self._shard == shard).tolist() for shard in range(shards)
    ]
    self._loaded = 0
    self._held: set[int] = set()

  @property
  def book(self) -> Book:
    """The `Book` as of now."""
    return Book(self._places, self._queues, self._filled, self._wanted)

  @property
  def _next(self):
    """How many prompts the next batch has."""
    return min(self._rows, len(self._texts) - self._loaded)

  @property
  def _room(self):
    """How many places are free, in all shards."""
    return sum(map(len, self._free))

  @property
  def _wanted(self):
    """How many prompts must be finished before the next batch fits."""
    if not self._next:
      return len(self._texts) + 1
    missing = max(0, self._next - self._room)
    return self._loaded - len(self._held) + missing

  def fill(self) -> None:
    """Prefills as many of the next prompts as there are free places."""
    while 0 < self._next <= self._room:
      new = np.arange(self._loaded, self._loaded + self._next)
      # Not in place: the device may still read the old ones.
      self._places = self._places.copy()
      self._queues = self._queues.copy()
      self._filled = self._filled.copy()
      for n in new.tolist():
        self._assign(n)
      # A batch that is not full repeats its last prompt, at the same place.
      rows = np.pad(new, (0, self._rows - len(new)), mode="edge")
      width = bucket(max(len(self._texts[n]) for n in new))
      tokens = np.zeros((self._rows, width), np.int32)
      lengths = np.asarray([len(self._texts[n]) for n in rows], np.int32)
      for row, n in enumerate(rows):
        tokens[row, : lengths[row]] = self._texts[n]
      self.pool = prefill(
        self._static.model, self._static.mesh, self._params, self.pool,
        Batch(tokens, lengths, self._places[rows]),
      )  # fmt: skip
      self._loaded += len(new)

  def _assign(self, n):
    """Gives prompt n a place, in the shard with the fewest unfinished ones."""
    held = np.bincount(self.shards(self._held), minlength=len(self._free))
    shard = min(
      (r for r, free in enumerate(self._free) if free), key=lambda r: held[r]
    )
    self._places[n] = self._free[shard].pop(0)
    group = self._static.group
    self._queues[shard, self._filled[shard] // group] = n
    self._filled[shard] += group
    self._held.add(n)

  def shards(self, prompts: Iterable[int]) -> np.ndarray:
    """[.] int, the shard in which each of these prompts has its place."""
    return self._shard[self._places[np.asarray(list(prompts), int)]]

  def release(self, finished: np.ndarray) -> None:
    """Frees the places of prompts whose completions are all finished.

    Args:
      finished: [C] bool.
    """
    whole = np.all(finished.reshape(-1, self._static.group), axis=1)
    for n in [n for n in self._held if whole[n]]:
      self._held.remove(n)
      place = int(self._places[n])
      self._free[self._shard[place]].append(place)


def bucket(length: int) -> int:
  """The width that a prompt is padded to.

  At most 15 tokens or an eighth more than the prompt. There are few such
  widths, so few shapes are compiled.
  """
  step = max(16, 1 << max(0, length.bit_length() - 4))
  return -(-length // step) * step


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3))
def empty(
  model: ModelConfig, mesh: meshes.Mesh | None, size: Size, int8: bool = False
) -> Pool:
  """A `Pool` without prompts.

  Args:
    model: the `ModelConfig`.
    mesh: as of `config.Static`.
    size: the `Size`.
    int8: whether keys and values are stored in eight bits.
  """
  layer = cache.empty_prompts(model, size, int8)
  count = jnp.zeros(size.banks * size.places, jnp.int32)
  return Pool(
    (sharding.constrain(layer, mesh, cache.PLACES),) * model.n_layers,
    jnp.zeros((len(count), size.width), bool),
    count,
    count,
  )


class Batch(NamedTuple):
  """Prompts to prefill together.

  Attributes:
    tokens: [B, W] int32, padded on the right.
    lengths: [B] int32. places: [B] int32, where each prompt goes.
  """

  tokens: np.ndarray
  lengths: np.ndarray
  places: np.ndarray


@functools.partial(jax.jit, static_argnums=(0, 1), donate_argnums=3)
def prefill(
  model: ModelConfig,
  mesh: meshes.Mesh | None,
  params: Any,
  pool: Pool,
  batch: Batch,
) -> Pool:
  """Prefills a batch of prompts.

  Args:
    model: the `ModelConfig`.
    mesh: as of `config.Static`.
    params: the model's parameters.
    pool: the `Pool`; donated.
    batch: the `Batch`.

  Returns:
    the `Pool` with them.
  """
  tokens, lengths, places = batch
  rows, width = tokens.shape
  tokens = sharding.constrain(tokens, mesh, PartitionSpec(sharding.ROWS))
  columns = jnp.arange(width)
  mask = columns[None] < lengths[:, None]
  with meshes.on(mesh):
    _, arrays = Decoder(model).apply(
      {"params": params}, tokens, jnp.where(mask, columns, 0),
      mask.astype(jnp.int32), method="prefill",
    )  # fmt: skip
  first = pool.layers[0]
  arrays = cache.stored(arrays, first.kept, first.int8)

  def put(i, layers):
    at = jnp.divmod(places[i], first.shape[1])
    return tuple(
      old.written(jax.tree.map(lambda x: x[n, i][None], arrays), at)
      for n, old in enumerate(layers)
    )

  layers = jax.lax.fori_loop(0, rows, put, pool.layers)
  read = jnp.arange(pool.mask.shape[1])[None] < lengths[:, None] - 1
  last = jnp.take_along_axis(tokens, lengths[:, None] - 1, axis=1)[:, 0]
  return Pool(
    sharding.constrain(layers, mesh, cache.PLACES),
    pool.mask.at[places].set(read),
    pool.lengths.at[places].set(lengths),
    pool.last.at[places].set(last),
  )
