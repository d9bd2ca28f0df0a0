"""One token for each of S slots: the decoder as the sampler runs it.

The same layers as the learner's, but unrolled, each with weights and a cache
of its own: inside a loop over steps a layer's slice of a stacked array would
be a copy of it.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from r1jax.model import ModelConfig, attention, decoder
from r1jax.model import layer as layer_lib
from r1jax.model.linear import in_order, thin_matmul
from r1jax.model.rope import rope_table
from r1jax.sampling import cache, kernels
from r1jax.sampling.weights import Weights, layers_to_apply


class View(NamedTuple):
  """What the slots may read in one step.

  A prompt's place has G seats, one for each of its completions. The slots that
  read the same prompt are brought together by their seats, so that it is read
  once. On a mesh each shard counts its own slots, and its own seats of every
  bank: seats = places * G / shards.

  Attributes:
    seat: [S] int32, the seat of each slot, counted through all banks; an idle
      slot has the number after the last one, banks * seats.
    slots: [shards, banks, seats] int32, the slot in each seat; S / shards
      where there is none.
    banks: [shards, banks] int32, all banks, those with a slot first.
    used: [shards] int32, how many banks have a slot.
    prompt_mask: [banks, places, P] bool, the tokens of the prompts.
    age: [S] int32, number of earlier columns of the ring that belong to each
      slot's completion.
    column: [] int32, the column of the ring that this step writes.
    earliest: [S] int32, the first column of a prompt that each slot may read;
      None if all.
  """

  seat: jax.Array
  slots: jax.Array
  banks: jax.Array
  used: jax.Array
  prompt_mask: jax.Array
  age: jax.Array
  column: jax.Array
  earliest: jax.Array | None = None

  def within(self, window: int | None, positions: jax.Array) -> "View":
    """The view of a layer with a window.

    Args:
      window: tokens that a token sees; None: all.
      positions: [S] int32, of the tokens.
    """
    if window is None:
      return self
    return self._replace(
      age=jnp.minimum(self.age, window - 1), earliest=positions - window + 1
    )


def view(
  place: jax.Array,
  member: jax.Array,
  active: jax.Array,
  members: int,
  prompt_mask: jax.Array,
  age: jax.Array,
  column: jax.Array,
  shards: int = 1,
) -> View:
  """The `View` of the slots.

  Args:
    place: [S] int32, the place of each slot's prompt; on a mesh it must be of
      the slot's own shard.
    member: [S] int32, which of the prompt's completions the slot decodes.
    active: [S] bool, False for idle slots.
    members: G, completions of a prompt.
    prompt_mask: [banks, places, P] bool, as in `View`.
    age: [S] int32, as in `View`.
    column: [] int32, as in `View`.
    shards: into how many the mesh splits slots and places.
  """
  banks, places = prompt_mask.shape[:2]
  here = places // shards
  seats = here * members
  bank, at = place // places, place % here
  seat = jnp.where(active, (bank * here + at) * members + member, banks * seats)
  nobody = seat.shape[0] // shards

  def sit(seat):
    slots = jnp.full(banks * seats, nobody, jnp.int32)
    return slots.at[seat].set(jnp.arange(nobody), mode="drop")

  slots = jax.vmap(sit)(seat.reshape(shards, -1))
  slots = slots.reshape(shards, banks, -1)
  empty = (slots == nobody).all(axis=2)
  return View(
    seat, slots, jnp.argsort(empty, axis=1), (~empty).sum(axis=1), prompt_mask,
    age, column,
  )  # fmt: skip


class _Reader(NamedTuple):
  """A layer's context while decoding, in place of `layer.Context`.

  Attributes:
    cos, sin: [S, 1, 1, D/2], the rotations of the tokens' positions.
    view: the `View`.
    prompts: `cache.Columns` of the pool.
    ring: the layer's `cache.Ring` or `cache.Apart`.
    newest: `cache.Columns`, the chunk that is written.
  """

  cos: jax.Array
  sin: jax.Array
  view: View
  prompts: cache.Columns
  ring: cache.Ring | cache.Apart
  newest: cache.Columns

  def attend(self, q: jax.Array, arrays: dict) -> tuple:
    """Attends to the prompts and to all tokens decoded so far.

    Args:
      q: [S, H, 1, D] queries.
      arrays: name -> [S, *`Kept.shape`(1)], what is kept of these tokens.

    Returns:
      [S, H, 1, E], and the newest chunk with these tokens.
    """
    newest = kernels.by_slots_and_heads(
      _write, self.newest, arrays, (self.view.column,), (None,)
    )
    newest = jax.tree.map(lambda x: x[None], newest)
    part = attention.join(
      _read_ring(q, self.ring, newest, self.view),
      _read_prompts(q, self.prompts, self.view),
    )
    return attention.finish(part, q), newest


def _write(newest, arrays, marks):
  """The newest chunk with a column of some slots, less its first dimension."""
  column = marks[0] % newest.shape[3]
  arrays = cache.stored(arrays, newest.kept, newest.int8)
  newest = newest.written(arrays, (0, 0), column)
  # In order, or the compiler would write twice, for the reading and for the
  # next step, and copy the chunk to do so.
  return jax.tree.map(lambda x: in_order(x)[0], newest)


def _read_ring(q, ring, newest, view):
  """The `attention.Partial` of the slots' queries over their decoded tokens."""
  chunks, size = ring.extent
  columns = view.column // size * size + jnp.arange(size)
  age = (view.column - columns) % (chunks * size)
  own = age[None] <= view.age[:, None]
  part = attention.read(q, newest[0], newest.kept, own[:, None])
  if chunks == 1:
    return part
  return kernels.join_ring(part, q, ring, view.age, view.column)


def _read_prompts(q, prompts, view):
  """The `attention.Partial` of the slots' queries over their prompts."""
  who = view.seat, view.slots, view.banks, view.used, view.prompt_mask
  axes = (0, 0, 0, 0, 1)
  if view.earliest is not None:
    who, axes = (*who, view.earliest), (*axes, 0)
  return kernels.by_slots_and_heads(_read_own_prompts, prompts, q, who, axes)


def _read_own_prompts(prompts, q, who):
  """`_read_prompts` of one shard, whose slots and places these are."""
  seat, sitting, order, used, prompt_mask, *earliest = who
  sitting, order, used = sitting[0], order[0], used[0]
  slots, heads, _, dim = q.shape
  banks, places, kv, _ = prompts.shape
  seats = sitting.shape[1]
  members = seats // places
  queries = jnp.concatenate((q[:, :, 0], jnp.zeros((1, heads, dim), q.dtype)))

  def bank(i):
    """The `attention.Partial` of each seat of a bank."""
    x = queries[sitting[i]].reshape(places, members, heads, dim).swapaxes(1, 2)
    mask = prompt_mask[i][:, None]
    if earliest:
      first = jnp.append(earliest[0], 0)[sitting[i]].reshape(places, -1, 1)
      mask &= jnp.arange(mask.shape[2])[None, None] >= first
    part = attention.read(x, prompts[i], prompts.kept, mask)

    def by_seat(y):
      y = y.reshape(places, kv, heads // kv, members, *y.shape[3:])
      return jnp.moveaxis(y, 3, 1).reshape(seats, kv, -1, *y.shape[4:])

    return jax.tree.map(by_seat, part)

  def visit(n, part):
    i = order[n]
    at = seat - i * seats
    here = (at >= 0) & (at < seats)

    def take(old, new):
      mask = here.reshape(-1, *(1,) * (old.ndim - 1))
      return jnp.where(mask, new[jnp.clip(at, 0, seats - 1)], old)

    return jax.tree.map(take, part, bank(i))

  (width,) = (k.width for k in prompts.kept if k.value)
  nothing = attention.nothing(slots, kv, heads // kv, width)
  if banks == 1:
    return visit(0, nothing)
  return jax.lax.fori_loop(0, used, visit, nothing)


def decode(
  config: ModelConfig,
  weights: Weights,
  prompts: Sequence,
  rings: Sequence,
  newest: Sequence,
  tokens: jax.Array,
  positions: jax.Array,
  view: View,
) -> tuple[jax.Array, tuple]:
  """One decoding step: the logits after one more token of each slot.

  Args:
    config: the `ModelConfig`.
    weights: its `Weights`.
    prompts: L of `cache.Columns`, the pool.
    rings: L of `cache.Ring` or `cache.Apart`.
    newest: L of `cache.Columns`, the chunks taken from the rings to write in.
    tokens: [S] int32.
    positions: [S] int32, of the tokens in their prompts and completions.
    view: the `View` of this step.

  Returns:
    logits [S, V] in `logit_dtype`, and the new chunks.
  """
  c = config
  # Once a step: the compiler would compute it in every layer.
  tables = jax.lax.optimization_barrier(
    rope_table(positions[:, None], c.head_dim, c.rope_theta, c.rope_scaling)
  )
  near = tables
  if c.window is not None:
    near = jax.lax.optimization_barrier(
      rope_table(positions[:, None], c.head_dim, c.window_theta)
    )
  x: Any = decoder.scaled(c, weights.embedding[tokens])[:, None]
  out = []
  layers = layers_to_apply(c, weights)
  for layer, window, *caches in zip(layers, c.windows, prompts, rings, newest):
    cos, sin = tables if window is None else near
    own = view.within(window, positions)
    x, chunk = layer_lib.Layer(c, thin_matmul).apply(
      {"params": layer}, x, _Reader(cos, sin, own, *caches)
    )
    out.append(chunk)
  hidden: Any = layer_lib.RMSNorm(c).apply({"params": weights.norm}, x)
  head = weights.embedding if weights.head is None else weights.head
  logits = thin_matmul(hidden[:, 0], head.T)
  return logits.astype(c.logit_dtype), tuple(out)
