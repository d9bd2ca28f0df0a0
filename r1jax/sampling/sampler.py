"""Sampling completions: a jitted loop over the learner's own parameters.

Prompts are prefilled once each, those of a length together. S slots decode
side by side; when one ends its completion it takes the next from the queue
inside the same loop, so a slot never waits for the longest of a batch (on a
mesh the next from the queue of its own shard, see `pool`). Which slot decodes a
completion, and beside which others, does not enter its randomness: the draw of
its token t uses fold_in(fold_in(key, index), t) and nothing else.

The host looks in once every `stride` steps, to hand out what is finished and
to put the next prompts in the places of those that are done with, while the
rest goes on.
"""

import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec as P

from r1jax import meshes, sharding
from r1jax.errors import UserError
from r1jax.sampling import cache, decode, kernels
from r1jax.sampling.draws import draw
from r1jax.sampling.pool import PLACES, Places
from r1jax.types import Rollout


@dataclasses.dataclass(frozen=True)
class SamplerConfig:
  """How to decode; a static argument, each distinct one is compiled once.

  Attributes:
    slots: S, completions decoded side by side; on a mesh as many more as make
      its shards of rows equal.
    max_new_tokens: T, after which a completion is cut.
    eos_id: the token that ends a completion, and is part of it.
    top_k: draw among the k likeliest tokens; 0 for all.
    top_p: draw among the likeliest tokens that hold this much probability.
    greedy: take the likeliest token; temperature, top_k, top_p play no part.
    chunk: columns of the cache that are read together; only the chunks that
      some slot needs are. On TPU take a multiple of 128, and each slot reads
      only those that it needs itself (`model.ragged`); not with int8.
    stride: decoding steps between two looks of the host.
    tail_slots: numbers of slots; when the queue is empty and no more than
      such a number are at work, the others are given up, so that the last
      and longest completions do not pay for them. Each costs a compilation;
      none keeps all slots to the end.
    kv_dtype: "compute", keys and values are kept as the model computes them;
      or "int8", with a scale for each token and head: less memory, and
      log-probabilities that differ a little from the learner's.
  """

  slots: int
  max_new_tokens: int
  eos_id: int
  top_k: int = 0
  top_p: float = 1.0
  greedy: bool = False
  chunk: int = 64
  stride: int = 64
  tail_slots: tuple = ()
  kv_dtype: str = "compute"

  def __post_init__(self):
    for name, allowed, ok in (
      ("slots", "at least 1", self.slots >= 1),
      ("max_new_tokens", "at least 1", self.max_new_tokens >= 1),
      ("top_k", "at least 0, which keeps all", self.top_k >= 0),
      ("top_p", "above 0 and at most 1", 0 < self.top_p <= 1),
      ("chunk", "at least 1", self.chunk >= 1),
      ("stride", "at least 1", self.stride >= 1),
      (
        "tail_slots",
        "numbers of slots, each at least 1, such as (4, 1)",
        isinstance(self.tail_slots, tuple)
        and all(isinstance(n, int) and n >= 1 for n in self.tail_slots),
      ),
      ("kv_dtype", '"compute" or "int8"', self.kv_dtype in ("compute", "int8")),
    ):
      if not ok:
        raise UserError(
          f"sampler: {name}={getattr(self, name)} must be {allowed}"
        )

  @property
  def int8(self):
    return self.kv_dtype == "int8"


class State(NamedTuple):
  """What a step reads and writes.

  Attributes:
    clock: [] int32, steps so far. queue: [R] int32, completions that were taken
      from the queue of each shard of slots.
    waited: [] int32, steps so far with something left in the queues. busy: []
      int32, slots at work in these, summed.
    id: [S] int32, each slot's completion, C where there is none.
    done: [S] int32, its tokens so far. token: [S] int32, the latest of them.
    rings: L of `cache.Ring` or `cache.Apart`.
    rollout: the `Rollout` so far; a length of 0 is not finished.
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
  """What the host sees between strides; the numbers as in `State`.

  Attributes:
    taken: [] int32, completions that were taken from all queues.
    lengths: [C] int32, of the finished completions, else 0.
  """

  clock: jax.Array
  taken: jax.Array
  waited: jax.Array
  busy: jax.Array
  lengths: jax.Array


def sample(
  model, config, group, mesh, params, prompts, mask, indices, key,
  temperature=1.0, limits=None, on_finished=None, on_look=None,
):  # fmt: skip
  """G completions of each of N prompts.

  Args:
    model: the `ModelConfig`.
    config: the `SamplerConfig`.
    group: G.
    mesh: where the parameters live, so that slots are split over its rows and
      heads over its tensor axis; None for one device.
    params: the learner's parameters.
    prompts: [N, P] int32. mask: [N, P] bool, its tokens; padding may stand
      on either side. Of the host.
    indices: [N * G] int32, the sample index of each completion, folded into
      its key; completions of prompt n are entries n G to n G + G - 1.
    key: typed PRNG key of this rollout.
    temperature: divides the logits.
    limits: [N * G] int32, where each completion is cut, or None for
      max_new_tokens.
    on_finished: None, or a function of (ids, `Rollout`): numbers of finished
      completions and their rows, as numpy arrays. It is called for each
      completion once, while the device decodes the others.
    on_look: None, or a function of a `Look`, called after each stride.

  Returns:
    `Rollout` of C = N G completions. Its log-probabilities are those of the
    whole distribution at this temperature also where top_k or top_p cut the
    draw, since that is what the loss needs: pi_theta is not truncated either.
  """
  texts = [np.asarray(p)[np.asarray(m)] for p, m in zip(prompts, mask)]
  shards = sharding.row_shards(mesh)
  parts = _parts(len(texts), group, shards)
  texts = [text for text in texts for _ in range(parts)]
  group //= parts
  # Prompts of about a length are prefilled together, so they are taken in
  # this order; what a completion is does not depend on it.
  order = sorted(range(len(texts)), key=lambda n: len(texts[n]))
  texts = [texts[n] for n in order]
  number = (np.asarray(order)[:, None] * group + np.arange(group)).ravel()
  if limits is None:
    limits = np.full(len(number), config.max_new_tokens)
  indices, limits = (np.asarray(x, np.int32)[number] for x in (indices, limits))
  weights = _lay_out(model, params)
  places = Places(model, config, group, mesh, params, texts)
  state = _begin(model, config, mesh, len(number))
  told, batches, clock = np.zeros(len(number), bool), [], 0
  while not told.all():
    places.fill()
    state, look = advance(
      model, config, group, mesh, weights, places.pool, state, places.of,
      places.queues, places.filled, places.wanted, indices, limits, key,
      temperature,
    )  # fmt: skip
    # The device is at work before anybody looks at what was finished.
    _hand_out(batches, number, on_finished)
    look = jax.device_get(look)
    if on_look is not None:
      on_look(look)
    finished = look.lengths > 0
    places.release(finished)
    state = _turn(state, clock, look.clock)
    clock = look.clock
    batches = []
    if on_finished is not None:
      (new,) = np.nonzero(finished & ~told)
      batches = list(_batches(state.rollout, new, len(state.id)))
    told = finished
    (left,) = np.nonzero(~told)
    if look.taken == len(told) and len(left):
      most = np.bincount(places.shards(left // group)).max()
      tails = _tails(config, mesh, len(state.id))
      if enough := [n for n in tails if n >= most * shards]:
        state = _shrink(mesh, min(enough), state)
  _hand_out(batches, number, on_finished)
  return _rows(state.rollout, np.argsort(number))


def _parts(prompts, group, shards):
  """In how many parts a group is decoded, each with the prompt to itself.

  In one, but where there are so few prompts that some shard of the slots would
  have more to do than others, or nothing.
  """
  for parts in (n for n in range(1, group + 1) if group % n == 0):
    if prompts * parts % shards == 0 or prompts * parts >= 4 * shards:
      return parts
  return group


def _batches(rollout, ids, size):
  """Yields ids and their rows, `size` at a time, for one compiled program."""
  for i in range(0, len(ids), size):
    part = ids[i : i + size]
    padded = np.pad(part, (0, size - len(part)), mode="edge")
    yield part, _rows(rollout, padded)


def _hand_out(batches, number, on_finished):
  for ids, rows in batches:
    rows = jax.tree.map(lambda x: np.asarray(x)[: len(ids)], rows)
    on_finished(number[ids], rows)


@jax.jit
def _rows(rollout, ids):
  return jax.tree.map(lambda x: x[ids], rollout)


_lay_out = jax.jit(decode.lay_out, static_argnums=0)


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3))
def _begin(model, config, mesh, total):
  """The `State` before the first of `total` completions is taken."""
  slots = sharding.whole_rows(min(config.slots, total), mesh)
  ring = cache.empty_ring(
    model, slots, config.max_new_tokens, config.chunk, config.int8
  )
  with meshes.on(mesh):
    ring = kernels.lay_out(ring)
  nothing = jnp.zeros(slots, jnp.int32)
  blank = (total, config.max_new_tokens)
  rollout = Rollout(
    jnp.zeros(blank, jnp.int32),
    jnp.zeros(blank, jnp.float32),
    jnp.zeros(total, jnp.int32),
    jnp.zeros(total, bool),
  )
  return State(
    clock=jnp.int32(0),
    queue=jnp.zeros(sharding.row_shards(mesh), jnp.int32),
    waited=jnp.int32(0),
    busy=jnp.int32(0),
    id=jnp.full(slots, total, jnp.int32),
    done=nothing,
    token=nothing,
    rings=(sharding.constrain(ring, mesh, PLACES),) * model.n_layers,
    rollout=sharding.constrain(rollout, mesh, P()),
  )


def _turn(state, before, clock):
  """The `State` for the step at `clock`; its rings were for that at `before`.

  `advance` stops at the end of a chunk: there is one to turn to, or none.
  """
  _, size = state.rings[0].extent
  if before // size == clock // size:
    return state
  return state._replace(rings=tuple(ring.turned() for ring in state.rings))


def _tails(config, mesh, slots):
  """The `tail_slots` below `slots`, rounded up to what the mesh can split."""
  tails = (sharding.whole_rows(n, mesh) for n in config.tail_slots)
  return [n for n in tails if n < slots]


@functools.partial(jax.jit, static_argnums=(0, 1))
def _shrink(mesh, slots, state):
  """The `State` with fewer slots of each shard, all that work among them."""
  shards, total = len(state.queue), len(state.rollout.lengths)
  idle = (state.id == total).reshape(shards, -1)
  kept = jnp.argsort(idle, axis=1)[:, : slots // shards]
  kept = (kept + jnp.arange(shards)[:, None] * idle.shape[1]).ravel()
  rings = jax.tree.map(lambda x: x[:, kept], state.rings)
  return state._replace(
    id=state.id[kept],
    done=state.done[kept],
    token=state.token[kept],
    rings=sharding.constrain(rings, mesh, PLACES),
  )


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3), donate_argnums=6)
def advance(
  model, config, group, mesh, weights, pool, state, places, queues, filled,
  wanted, indices, limits, key, temperature,
):  # fmt: skip
  """Up to `stride` steps of all slots, to the end of a chunk at most.

  There the rings are to be turned before the next call.

  Args:
    weights: of `decode.lay_out`. pool: the `Pool`. state: the `State`.
    places, queues, filled: of the `Places`.
    wanted: [] int32; when slots have nothing to do and so many prompts are
      done with, the host can put others in their places: it stops early.
    The others: as of `sample`, completions in the order of the queue.

  Returns:
    the new `State`, and a `Look` at it.
  """
  total = len(limits)
  chunks, chunk = state.rings[0].extent
  columns = chunks * chunk
  blocks, size = jax.tree.leaves(pool.layers[0].k)[0].shape[:2]
  shards = len(filled)
  few = max(_tails(config, mesh, len(state.id)), default=0)
  rings, at = state.rings, state.clock % columns

  def step(carry):
    s, newest = carry
    # The i-th idle slot of a shard takes the i-th completion of its queue.
    idle = (s.id == total).reshape(shards, -1)
    taken = s.queue[:, None] + jnp.cumsum(idle, axis=1) - 1
    new = idle & (taken < filled[:, None])
    queue = s.queue + new.sum(axis=1)
    prompt = jnp.take_along_axis(queues, taken // group, axis=1, mode="clip")
    new, taken = new.ravel(), (prompt * group + taken % group).ravel()
    id = jnp.where(new, taken, s.id)
    active = id < total
    completion = jnp.minimum(id, total - 1)
    place = places[completion // group]
    token = jnp.where(new, pool.last[place], s.token)
    view = decode.view(
      place, id % group, active, group, pool.mask.reshape(blocks, size, -1),
      s.done, s.clock % columns, shards,
    )  # fmt: skip
    logits, newest = decode.decode(
      model, weights, pool.layers, rings, newest, token,
      pool.lengths[place] - 1 + s.done, view,
    )  # fmt: skip
    token, logprob = draw(
      logits.astype(jnp.float32), config, key, indices[completion], s.done,
      temperature,
    )  # fmt: skip
    done = s.done + 1
    ended = token == config.eos_id
    over = active & (ended | (done >= limits[completion]))
    finished = jnp.where(over, id, total)
    waiting = queue.sum() < total
    r = s.rollout
    s = s._replace(
      clock=s.clock + 1,
      queue=queue,
      waited=s.waited + waiting,
      busy=s.busy + jnp.where(waiting, active.sum(), 0),
      id=jnp.where(over, total, id),
      # 0 in idle slots too: the longest decides what of the rings is read.
      done=jnp.where(over | ~active, 0, done),
      token=token,
      rollout=Rollout(
        r.tokens.at[id, s.done].set(token, mode="drop"),
        r.logprobs.at[id, s.done].set(logprob, mode="drop"),
        r.lengths.at[finished].set(done, mode="drop"),
        r.ended.at[finished].set(ended, mode="drop"),
      ),
    )
    return s, newest

  def go_on(carry):
    s, _ = carry
    idle = (s.id == total).reshape(shards, -1)
    starved = (idle.any(axis=1) & (s.queue >= filled)).any()
    whole = (s.rollout.lengths > 0).reshape(-1, group).all(axis=1).sum()
    stalled = starved & (whole >= wanted)
    most = (~idle).sum(axis=1).max()
    ebbed = (s.queue.sum() == total) & (most * shards <= few)
    return ~ebbed & ~stalled & (s.clock < end)

  end = jnp.minimum(
    state.clock + config.stride, (state.clock // chunk + 1) * chunk
  )
  newest = tuple(ring.take(at) for ring in rings)
  with meshes.on(mesh):
    state, newest = jax.lax.while_loop(
      # What no step writes is not carried along.
      go_on, step, (state._replace(rings=()), newest),
    )  # fmt: skip
  state = state._replace(
    rings=tuple(ring.give_back(new, at) for ring, new in zip(rings, newest)),
    rollout=sharding.constrain(state.rollout, mesh, P()),
  )
  look = Look(
    state.clock,
    state.queue.sum(),
    state.waited,
    state.busy,
    state.rollout.lengths,
  )
  return state, jax.tree.map(jnp.copy, look)
