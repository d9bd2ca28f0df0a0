"""Sampling completions: a jitted loop over the learner's own parameters.

Prompts are prefilled once each. S slots decode side by side; when one ends
its completion it takes the next from the queue inside the same loop, so a
slot never waits for the longest of a batch. Which slot decodes a completion,
and beside which others, does not enter its randomness: the draw of its token
t uses fold_in(fold_in(key, index), t) and nothing else.

The host looks in once every `stride` steps, to hand out what is finished
while the rest goes on.
"""

import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec as P

from r1jax import sharding
from r1jax.errors import UserError
from r1jax.model import Decoder, decode
from r1jax.types import Rollout

# Of keys and values: slots or prompts, and heads. A ring's chunks go before.
PROMPTS = P(sharding.ROWS, "tensor")
RING = P(None, sharding.ROWS, "tensor")
# Prompts of a batch of the prefill: more would only take memory.
PREFILL_ROWS = 16


@dataclasses.dataclass(frozen=True)
class SamplerConfig:
  """How to decode; a static argument, each distinct one is compiled once.

  Attributes:
    slots: S, completions decoded side by side.
    max_new_tokens: T, after which a completion is cut.
    eos_id: the token that ends a completion, and is part of it.
    top_k: draw among the k likeliest tokens; 0 for all.
    top_p: draw among the likeliest tokens that hold this much probability.
    greedy: take the likeliest token; temperature, top_k, top_p play no part.
    chunk: columns of the cache that are read together; only the chunks that
      some slot needs are.
    stride: decoding steps between two looks of the host.
  """

  slots: int
  max_new_tokens: int
  eos_id: int
  top_k: int = 0
  top_p: float = 1.0
  greedy: bool = False
  chunk: int = 64
  stride: int = 64

  def __post_init__(self):
    for name, allowed, ok in (
      ("slots", "at least 1", self.slots >= 1),
      ("max_new_tokens", "at least 1", self.max_new_tokens >= 1),
      ("top_k", "at least 0, which keeps all", self.top_k >= 0),
      ("top_p", "above 0 and at most 1", 0 < self.top_p <= 1),
      ("chunk", "at least 1", self.chunk >= 1),
      ("stride", "at least 1", self.stride >= 1),
    ):
      if not ok:
        raise UserError(
          f"sampler: {name}={getattr(self, name)} must be {allowed}"
        )


class Prompts(NamedTuple):
  """The N prompts of a rollout, prefilled.

  A prompt's last token is the first input of each of its completions, not of
  the prefill: it is their first step, and no special case.

  Attributes:
    k, v: L arrays [N, K, D, P] and [N, K, P, D].
    mask: [N, P] bool, what may be read: all but the last token.
    lengths: [N] int32, last tokens included. last: [N] int32, these tokens.
  """

  k: tuple
  v: tuple
  mask: jax.Array
  lengths: jax.Array
  last: jax.Array


class State(NamedTuple):
  """What a step reads and writes.

  Attributes:
    clock: [] int32, steps so far. queue: [] int32, next completion to take.
    id: [S] int32, each slot's completion, C where there is none left.
    done: [S] int32, its tokens so far. token: [S] int32, the latest of them.
    caches: L of `decode.Cache`.
    rollout: the `Rollout` so far; a length of 0 is not finished.
  """

  clock: jax.Array
  queue: jax.Array
  id: jax.Array
  done: jax.Array
  token: jax.Array
  caches: tuple
  rollout: Rollout


def sample(
  model, config, group, mesh, params, prompts, mask, indices, key,
  temperature=1.0, limits=None, on_finished=None,
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
      on either side.
    indices: [N * G] int32, the sample index of each completion, folded into
      its key; completions of prompt n are entries n G to n G + G - 1.
    key: typed PRNG key of this rollout.
    temperature: divides the logits.
    limits: [N * G] int32, where each completion is cut, or None for
      max_new_tokens.
    on_finished: None, or a function of (ids, `Rollout`): numbers of finished
      completions and their rows, as numpy arrays. It is called for each
      completion once, while the device decodes the others.

  Returns:
    `Rollout` of C = N G completions. Its log-probabilities are those of the
    whole distribution at this temperature also where top_k or top_p cut the
    draw, since that is what the loss needs: pi_theta is not truncated either.
  """
  total = prompts.shape[0] * group
  if limits is None:
    limits = jnp.full(total, config.max_new_tokens, jnp.int32)
  weights, queue, state = start(
    model, config, group, mesh, params, prompts, mask
  )

  def go(state):
    return advance(
      model, config, group, mesh, weights, queue, state, indices, limits, key,
      temperature,
    )  # fmt: skip

  told = np.zeros(total, bool)
  state, lengths = go(state)
  while not told.all():
    finished = np.asarray(lengths) > 0
    (ids,) = np.nonzero(finished & ~told)
    told = finished
    batches = []
    if on_finished is not None:
      batches = list(_batches(state.rollout, ids, len(state.id)))
    if not told.all():
      # The device goes on before anybody looks at what was finished.
      state, lengths = go(state)
    for numbers, rows in batches:
      rows = jax.tree.map(lambda x: np.asarray(x)[: len(numbers)], rows)
      on_finished(numbers, rows)
  return state.rollout


def _batches(rollout, ids, size):
  """Yields ids and their rows, `size` at a time, for one compiled program."""
  for i in range(0, len(ids), size):
    part = ids[i : i + size]
    padded = np.pad(part, (0, size - len(part)), mode="edge")
    yield part, _rows(rollout, padded)


@jax.jit
def _rows(rollout, ids):
  return jax.tree.map(lambda x: x[ids], rollout)


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3))
def start(model, config, group, mesh, params, prompts, mask):
  """What a rollout begins with; the arguments are those of `sample`.

  Returns:
    the weights as they are decoded with, `Prompts`, and the first `State`.
  """
  queue = prefill(model, mesh, params, prompts, mask)
  total = prompts.shape[0] * group
  slots = min(config.slots, total)
  first = jnp.arange(slots)
  rows = first // group
  rings = decode.empty_ring(
    model, slots, config.max_new_tokens, config.chunk, queue.k[0].dtype
  )
  rings = [sharding.constrain(x, mesh, RING) for x in rings]
  caches = tuple(
    decode.Cache(
      sharding.constrain(k[rows], mesh, PROMPTS),
      sharding.constrain(v[rows], mesh, PROMPTS),
      *rings,
    )
    for k, v in zip(queue.k, queue.v)
  )
  blank = (total, config.max_new_tokens)
  rollout = Rollout(
    jnp.zeros(blank, jnp.int32),
    jnp.zeros(blank, jnp.float32),
    jnp.zeros(total, jnp.int32),
    jnp.zeros(total, bool),
  )
  state = State(
    clock=jnp.int32(0),
    queue=jnp.int32(slots),
    id=first,
    done=jnp.zeros(slots, jnp.int32),
    token=queue.last[rows],
    caches=caches,
    rollout=jax.tree.map(lambda x: sharding.constrain(x, mesh, P()), rollout),
  )
  return decode.lay_out(model, params), queue, state


def prefill(model, mesh, params, prompts, mask):
  """Runs the prompts through the model, some at a time: `Prompts`."""
  n, width = prompts.shape
  last = width - 1 - jnp.argmax(mask[:, ::-1], axis=1)
  positions = jnp.maximum(jnp.cumsum(mask, axis=1) - 1, 0)

  def forward(batch):
    tokens, positions, mask = batch
    _, kv = Decoder(model).apply(
      {"params": params}, tokens, positions, mask.astype(jnp.int32),
      method="prefill",
    )  # fmt: skip
    return kv

  rows = min(n, PREFILL_ROWS)
  if mesh is not None:
    rows = sharding.whole_rows(rows, mesh)

  def split(x):
    x = jnp.pad(x, ((0, -n % rows), (0, 0)))
    return x.reshape(-1, rows, width)

  k, v = jax.lax.map(forward, jax.tree.map(split, (prompts, positions, mask)))

  def layers(x):
    # [batches, L, rows, ...] -> L arrays [N, ...]
    each = (
      x[:, i].reshape(-1, *x.shape[3:])[:n] for i in range(model.n_layers)
    )
    return tuple(sharding.constrain(y, mesh, PROMPTS) for y in each)

  return Prompts(
    layers(k),
    layers(v),
    mask & (jnp.arange(width)[None] < last[:, None]),
    mask.sum(axis=1),
    jnp.take_along_axis(prompts, last[:, None], axis=1)[:, 0],
  )


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3), donate_argnums=6)
def advance(
  model, config, group, mesh, weights, queue, state, indices, limits, key,
  temperature,
):  # fmt: skip
  """Up to `stride` steps of all slots.

  Args:
    weights, queue, state: of `start`. The others: as of `sample`.

  Returns:
    the new `State`, and the lengths of its rollout, a copy.
  """
  total = len(limits)
  ring = state.caches[0].ring_k
  columns = ring.shape[0] * ring.shape[-1]

  def step(s):
    completion = jnp.minimum(s.id, total - 1)
    row = completion // group
    view = decode.View(queue.mask[row], s.done, s.clock % columns)
    logits, caches = decode.decode(
      model, weights, s.token, queue.lengths[row] - 1 + s.done, s.caches, view
    )
    token, logprob = draw(
      logits.astype(jnp.float32), config, key, indices[completion], s.done,
      temperature,
    )  # fmt: skip
    done = s.done + 1
    ended = token == config.eos_id
    free = (s.id < total) & (ended | (done >= limits[completion]))
    over = jnp.where(free, s.id, total)
    r = s.rollout
    rollout = Rollout(
      r.tokens.at[s.id, s.done].set(token, mode="drop"),
      r.logprobs.at[s.id, s.done].set(logprob, mode="drop"),
      r.lengths.at[over].set(done, mode="drop"),
      r.ended.at[over].set(ended, mode="drop"),
    )
    # The i-th freed slot takes the i-th completion of the queue.
    taken = jnp.minimum(s.queue + jnp.cumsum(free) - 1, total)
    new_id = jnp.where(free, taken, s.id)
    new_row = jnp.minimum(new_id, total - 1) // group
    return State(
      clock=s.clock + 1,
      queue=jnp.minimum(s.queue + free.sum(), total),
      id=new_id,
      # 0 in idle slots too: the longest decides what of the caches is read.
      done=jnp.where(free | (s.id == total), 0, done),
      token=jnp.where(free, queue.last[new_row], token),
      caches=_admit(caches, queue, free & (new_id < total), new_row),
      rollout=rollout,
    )

  end = state.clock + config.stride
  state = jax.lax.while_loop(
    lambda s: (s.id < total).any() & (s.clock < end), step, state
  )
  rollout = jax.tree.map(
    lambda x: sharding.constrain(x, mesh, P()), state.rollout
  )
  return state._replace(rollout=rollout), jnp.copy(rollout.lengths)


def _admit(caches, queue, new, rows):
  """Puts the prompts `rows` [S] before the slots that are `new` [S] bool."""

  def copy(_, caches):
    def put(old, prompts):
      return jnp.where(new[:, None, None, None], prompts[rows], old)

    return tuple(
      c.replace(prompt_k=put(c.prompt_k, k), prompt_v=put(c.prompt_v, v))
      for c, k, v in zip(caches, queue.k, queue.v)
    )

  # Not `cond`: its branch that does nothing would copy every cache.
  return jax.lax.fori_loop(0, new.any().astype(jnp.int32), copy, caches)


def draw(logits, config, key, indices, positions, temperature):
  """One token a row and its log-probability.

  An inverse CDF with one uniform number a row: the Gumbel trick would draw
  one for every logit, which costs more than the rest of a small model.
  """
  if not config.greedy:
    logits = logits / temperature
  peak = logits.max(axis=-1)
  # Once: the compiler would take the exponentials again in every pass.
  weights = jax.lax.optimization_barrier(jnp.exp(logits - peak[:, None]))
  if config.greedy:
    token = jnp.argmax(logits, axis=-1)
  else:

    def uniform(index, position):
      k = jax.random.fold_in(jax.random.fold_in(key, index), position)
      return jax.random.uniform(k)

    token = inverse_cdf(
      truncate(weights, config.top_k, config.top_p),
      jax.vmap(uniform)(indices, positions),
    )
  token = token.astype(jnp.int32)
  picked = jnp.take_along_axis(logits, token[:, None], axis=1)[:, 0]
  return token, picked - peak - jnp.log(weights.sum(axis=-1))


def truncate(weights, top_k, top_p):
  """Zeroes what top-k and then top-p leave out, without renormalising.

  Args:
    weights: [S, V] float32, not negative; each proportional to a probability.
    top_k: 0 keeps all; ties with the k-th stay in.
    top_p: keeps the smallest set of likeliest tokens holding at least this
      share of what top-k left.

  Returns:
    [S, V].
  """
  if top_k and top_k < weights.shape[1]:
    weights = _keep(weights, lambda kept: (kept > 0).sum(axis=1) >= top_k)
  if top_p < 1:
    enough = top_p * weights.sum(axis=1)
    weights = _keep(weights, lambda kept: kept.sum(axis=1) >= enough)
  return weights


def _keep(weights, enough):
  """The largest of the weights, as few as are `enough`; zero elsewhere.

  By bisection of the threshold: as integers, the bits of floats that are not
  negative have the floats' order, so 31 passes are exact. A sort takes 25
  times as long on CPU.

  Args:
    weights: [S, V]. enough: function of the kept weights [S, V] to [S] bool.
  """

  def kept(least):
    least = jax.lax.bitcast_convert_type(least, jnp.float32)
    return jnp.where(weights >= least[:, None], weights, 0.0)

  def halve(_, bounds):
    low, high = bounds  # low is enough, more than high is not
    middle = low + (high - low + 1) // 2
    good = enough(kept(middle))
    return jnp.where(good, middle, low), jnp.where(good, high, middle - 1)

  high = jax.lax.bitcast_convert_type(weights.max(axis=1), jnp.int32)
  low, _ = jax.lax.fori_loop(0, 31, halve, (jnp.zeros_like(high), high))
  return kept(low)


def inverse_cdf(probs, uniforms):
  """Draws by inverting the cumulative distribution, in two levels.

  First a block of tokens, then a token of it: less work than one cumulative
  sum over V, and the sums stay short, so their rounding stays small.

  Args:
    probs: [S, V], not negative, rows of any positive sum.
    uniforms: [S] in [0, 1).

  Returns:
    [S] int32; never a token of probability zero.
  """
  s, v = probs.shape
  width = max(1, round(v**0.5))
  # A width that divides V saves a copy.
  width = next((w for w in range(width, 2 * width) if v % w == 0), width)
  blocks = jnp.pad(probs, ((0, 0), (0, -v % width))).reshape(s, -1, width)
  sums = blocks.sum(axis=2)
  r = uniforms * sums.sum(axis=1)
  block, before = _invert(sums, r)
  inside = jnp.take_along_axis(blocks, block[:, None, None], axis=1)[:, 0]
  token, _ = _invert(inside, r - before)
  return block * width + token


def _invert(weights, r):
  """First index whose cumulative weight exceeds r, and the weight before."""
  cumulative = jnp.cumsum(weights, axis=1)
  # Rounding may leave r at the very end: the last index of positive weight
  # stands in for "none".
  size = weights.shape[1]
  final = size - 1 - jnp.argmax(weights[:, ::-1] > 0, axis=1)
  index = jnp.minimum((cumulative <= r[:, None]).sum(axis=1), final)
  # r may also lie in a gap of weight zero by rounding; step over it.
  upto = jnp.take_along_axis(cumulative, index[:, None], axis=1)[:, 0]
  return index, upto - jnp.take_along_axis(weights, index[:, None], 1)[:, 0]
