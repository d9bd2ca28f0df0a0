"""The device's part of sampling: decoding steps of all slots in one loop.

`advance` is compiled once for each `Static`. The host's part, which calls it
again and again, is `sampling.sampler`.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from r1jax import meshes, sharding
from r1jax.sampling import cache, decode, kernels
from r1jax.sampling.config import Static
from r1jax.sampling.draws import draw
from r1jax.sampling.pool import Book, Pool
from r1jax.sampling.weights import Weights
from r1jax.types import Rollout


class Inputs(NamedTuple):
  """What a rollout reads and never writes.

  Attributes:
    weights: the `weights.Weights`.
    indices: [C] int32, the sample index of each completion, which is folded
      into its random key.
    limits: [C] int32, the most tokens of each completion.
    key: typed PRNG key of the rollout.
    temperature: [] float32, divides the logits.
  """

  weights: Weights
  indices: jax.Array
  limits: jax.Array
  key: jax.Array
  temperature: jax.Array


class State(NamedTuple):
  """What a decoding step reads and writes.

  Attributes:
    clock: [] int32, steps so far.
    queue: [shards] int32, completions taken from the queue of each shard of
      slots.
    waited: [] int32, steps during which some queue still had completions.
    busy: [] int32, working slots, summed over the steps in `waited`.
    id: [S] int32, the completion in each slot; C for an idle slot.
    done: [S] int32, tokens of that completion so far.
    token: [S] int32, the latest of them.
    rings: L of `cache.Ring` or `cache.Apart`.
    rollout: the `Rollout` so far; a length of 0 marks an unfinished one.
  """

  clock: jax.Array
  queue: jax.Array
  waited: jax.Array
  busy: jax.Array
  id: jax.Array
  done: jax.Array
  token: jax.Array
  rings: tuple
  rollout: Rollout


class Look(NamedTuple):
  """What the host sees after each call of `advance`.

  Attributes:
    clock, waited, busy: [] int32, as in `State`.
    taken: [] int32, completions taken from all queues.
    lengths: [C] int32, tokens of each finished completion, else 0.
  """

  clock: jax.Array
  taken: jax.Array
  waited: jax.Array
  busy: jax.Array
  lengths: jax.Array


@functools.partial(jax.jit, static_argnums=(0, 1))
def begin(static: Static, total: int) -> State:
  """The `State` before any of `total` completions is started."""
  config, mesh = static.config, static.mesh
  slots = sharding.whole_rows(min(config.slots, total), mesh)
  empty = cache.empty_ring(
    static.model, slots, config.max_new_tokens, config.chunk, config.int8
  )
  with meshes.on(mesh):
    ring = kernels.arranged(empty)
  ring = sharding.constrain(ring, mesh, cache.PLACES)
  zeros = jnp.zeros(slots, jnp.int32)
  shape = (total, config.max_new_tokens)
  rollout = Rollout(
    jnp.zeros(shape, jnp.int32),
    jnp.zeros(shape, jnp.float32),
    jnp.zeros(total, jnp.int32),
    jnp.zeros(total, bool),
    jnp.zeros((*shape, static.words), jnp.uint32) if static.words else None,
  )
  return State(
    clock=jnp.int32(0),
    queue=jnp.zeros(sharding.row_shards(mesh), jnp.int32),
    waited=jnp.int32(0),
    busy=jnp.int32(0),
    id=jnp.full(slots, total, jnp.int32),
    done=zeros,
    token=zeros,
    rings=(ring,) * static.model.n_layers,
    rollout=sharding.constrain(rollout, mesh, PartitionSpec()),
  )


def next_chunk(state: State, before: int, clock: int) -> State:
  """The `State` with its rings ready for the step at `clock`.

  `advance` stops at the end of a chunk, so at most one chunk is new. Call this
  outside of jit; it moves no data.

  Args:
    state: the `State` that `advance` returned.
    before: int, the clock when `advance` was called.
    clock: int, the clock of the state.
  """
  _, size = state.rings[0].extent
  if before // size == clock // size:
    return state
  return state._replace(rings=tuple(ring.next_chunk() for ring in state.rings))


def smaller_batches(static: Static, slots: int) -> list[int]:
  """The `tail_slots` below `slots`, rounded up to what the mesh can split."""
  sizes = (
    sharding.whole_rows(n, static.mesh) for n in static.config.tail_slots
  )
  return [n for n in sizes if n < slots]


@functools.partial(jax.jit, static_argnums=(0, 1))
def shrink(static: Static, slots: int, state: State) -> State:
  """The `State` with fewer slots; every working slot must fit.

  Args:
    slots: how many remain, equally many of each shard.
  """
  shards, total = len(state.queue), len(state.rollout.lengths)
  idle = (state.id == total).reshape(shards, -1)
  kept = jnp.argsort(idle, axis=1)[:, : slots // shards]
  kept = (kept + jnp.arange(shards)[:, None] * idle.shape[1]).ravel()
  rings = jax.tree.map(lambda x: x[:, kept], state.rings)
  return state._replace(
    id=state.id[kept],
    done=state.done[kept],
    token=state.token[kept],
    rings=sharding.constrain(rings, static.mesh, cache.PLACES),
  )


@functools.partial(jax.jit, static_argnums=0, donate_argnums=3)
def advance(
  static: Static, inputs: Inputs, pool: Pool, state: State, book: Book
) -> tuple[State, Look]:
  """Decodes up to `stride` steps of all slots, to the end of a chunk at most.

  Args:
    static: the `Static`.
    inputs: the `Inputs`; completions in the order of the queues.
    pool: the `Pool` of prompts.
    state: the `State`; donated.
    book: the `Book` of the pool.

  Returns:
    the new `State`, and a `Look` at it. Call `next_chunk` on the state before
    the next call.
  """
  config, mesh = static.config, static.mesh
  chunks, chunk = state.rings[0].extent
  end = jnp.minimum(
    state.clock + config.stride, (state.clock // chunk + 1) * chunk
  )
  few = max(smaller_batches(static, len(state.id)), default=0)
  rings, column = state.rings, state.clock % (chunks * chunk)
  loop = _Loop(static, inputs, pool, rings, book)
  newest = tuple(ring.take(column) for ring in rings)
  with meshes.on(mesh):
    state, newest = jax.lax.while_loop(
      lambda carry: loop.goes_on(carry[0], end, few),
      lambda carry: loop.step(*carry),
      # What no step writes is not carried along.
      (state._replace(rings=()), newest),
    )
  state = state._replace(
    rings=tuple(
      ring.give_back(new, column) for ring, new in zip(rings, newest)
    ),
    rollout=sharding.constrain(state.rollout, mesh, PartitionSpec()),
  )
  look = Look(
    state.clock,
    state.queue.sum(),
    state.waited,
    state.busy,
    state.rollout.lengths,
  )
  return state, jax.tree.map(jnp.copy, look)


class _Loop(NamedTuple):
  """The body and the condition of the loop in `advance`.

  Attributes:
    static, inputs, pool, book: as of `advance`.
    rings: L of `cache.Ring` or `cache.Apart`; their newest chunks, which the
      steps write, travel separately.
  """

  static: Static
  inputs: Inputs
  pool: Pool
  rings: tuple
  book: Book

  def _idle(self, state):
    """[shards, S / shards] bool, the slots without a completion."""
    shards = len(self.book.filled)
    return (state.id == len(self.inputs.limits)).reshape(shards, -1)

  def goes_on(self, state, end, few):
    """Whether another step follows.

    Args:
      state: the `State`.
      end: [] int32, the clock at which `advance` returns.
      few: the largest smaller batch; the loop ends where it is enough.
    """
    group, book = self.static.group, self.book
    shards = len(book.filled)
    idle = self._idle(state)
    starved = (idle.any(axis=1) & (state.queue >= book.filled)).any()
    finished = (state.rollout.lengths > 0).reshape(-1, group)
    stalled = starved & (finished.all(axis=1).sum() >= book.wanted)
    most = (~idle).sum(axis=1).max()
    started = state.queue.sum() == len(self.inputs.limits)
    shrinks = started & (most * shards <= few)
    return ~shrinks & ~stalled & (state.clock < end)

  def step(self, state, newest):
    """One token for every slot that has a completion to decode.

    Args:
      state: the `State` without its rings.
      newest: L of `cache.Chunk`, which are written.

    Returns:
      both, after the step.
    """
    static, inputs, pool = self.static, self.inputs, self.pool
    shards, total = len(self.book.filled), len(inputs.limits)
    columns = self.rings[0].extent[0] * self.rings[0].extent[1]
    state = self._start(state)
    active = state.id < total
    completion = jnp.minimum(state.id, total - 1)
    place = self.book.places[completion // static.group]
    view = decode.view(
      place, state.id % static.group, active, static.group, pool.by_bank,
      state.done, state.clock % columns, shards,
    )  # fmt: skip
    logits, newest = decode.decode(
      static.model, inputs.weights, pool.layers, self.rings, newest,
      state.token, pool.lengths[place] - 1 + state.done, view,
    )  # fmt: skip
    drawn = draw(
      logits.astype(jnp.float32), static.config, inputs.key,
      inputs.indices[completion], state.done, inputs.temperature,
    )  # fmt: skip
    limits = inputs.limits[completion]
    return self._record(state, drawn, limits), newest

  def _start(self, state):
    """Gives idle slots the next completions of their shard's queue."""
    group, book = self.static.group, self.book
    # The i-th idle slot of a shard takes the i-th completion of its queue.
    idle = self._idle(state)
    taken = state.queue[:, None] + jnp.cumsum(idle, axis=1) - 1
    new = idle & (taken < book.filled[:, None])
    queue = state.queue + new.sum(axis=1)
    prompt = jnp.take_along_axis(
      book.queues, taken // group, axis=1, mode="clip"
    )
    new, taken = new.ravel(), (prompt * group + taken % group).ravel()
    id = jnp.where(new, taken, state.id)
    total = len(self.inputs.limits)
    place = book.places[jnp.minimum(id, total - 1) // group]
    token = jnp.where(new, self.pool.last[place], state.token)
    return state._replace(queue=queue, id=id, token=token)

  def _record(self, state, drawn, limits):
    """The `State` with the drawn tokens; finished slots become idle.

    Args:
      drawn: `draws.Draw`.
      limits: [S] int32, the most tokens of each slot's completion.
    """
    total = len(self.inputs.limits)
    active = state.id < total
    done = state.done + 1
    ended = jnp.zeros_like(active)
    for end in self.static.config.end_ids:
      ended |= drawn.token == end
    over = active & (ended | (done >= limits))
    finished = jnp.where(over, state.id, total)
    waiting = state.queue.sum() < total
    r, at = state.rollout, (state.id, state.done)
    kept = None
    if r.kept is not None:
      kept = r.kept.at[at].set(drawn.kept, mode="drop")
    return state._replace(
      clock=state.clock + 1,
      waited=state.waited + waiting,
      busy=state.busy + jnp.where(waiting, active.sum(), 0),
      id=jnp.where(over, total, state.id),
      # 0 in idle slots too: the longest slot decides how much of the rings is
      # read.
      done=jnp.where(over | ~active, 0, done),
      token=drawn.token,
      rollout=Rollout(
        r.tokens.at[at].set(drawn.token, mode="drop"),
        r.logprobs.at[at].set(drawn.logprob, mode="drop"),
        r.lengths.at[finished].set(done, mode="drop"),
        r.ended.at[finished].set(ended, mode="drop"),
        kept,
      ),
    )
