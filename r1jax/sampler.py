"""Sampling completions: one jitted loop over the learner's own parameters.

Prompts are prefilled once each. S slots decode side by side; when one ends
its completion it takes the next from the queue inside the same loop, so a
slot never waits for the longest of a batch. Which slot decodes a completion,
and beside which others, does not enter its randomness: the draw of its token
t uses fold_in(fold_in(key, index), t) and nothing else.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from r1jax import sharding
from r1jax.errors import UserError
from r1jax.model import Cache, Decoder
from r1jax.types import Rollout

# Of both caches: slots or prompts, and the heads of keys and values.
CACHE = P(None, sharding.ROWS, "tensor")


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
  """

  slots: int
  max_new_tokens: int
  eos_id: int
  top_k: int = 0
  top_p: float = 1.0
  greedy: bool = False

  def __post_init__(self):
    for name, allowed, ok in (
      ("slots", "at least 1", self.slots >= 1),
      ("max_new_tokens", "at least 1", self.max_new_tokens >= 1),
      ("top_k", "at least 0, which keeps all", self.top_k >= 0),
      ("top_p", "above 0 and at most 1", 0 < self.top_p <= 1),
    ):
      if not ok:
        raise UserError(
          f"sampler: {name}={getattr(self, name)} must be {allowed}"
        )


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3))
def sample(
  model, config, group, mesh, params, prompts, mask, indices, key,
  temperature=1.0,
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

  Returns:
    `Rollout` of C = N G completions. Its log-probabilities are those of the
    whole distribution at this temperature also where top_k or top_p cut the
    draw, since that is what the loss needs: pi_theta is not truncated either.
  """
  decoder = Decoder(model)
  n = prompts.shape[0]
  total, length = n * group, config.max_new_tokens
  slots = min(config.slots, total)
  last, cache = prefill(decoder, params, prompts, mask, slots, length)
  cache = jax.tree.map(lambda x: sharding.constrain(x, mesh, CACHE), cache)
  # A prompt's last token is the first input of each of its completions, not
  # of the prefill: it is their first step, and no special case.
  prompt_mask = mask & (jnp.arange(prompts.shape[1])[None] < last[:, None])
  prompt_lengths = mask.sum(axis=1)
  last_tokens = jnp.take_along_axis(prompts, last[:, None], axis=1)[:, 0]
  columns = jnp.arange(length)

  def step(s):
    row = jnp.minimum(s["id"], total - 1) // group
    active = s["id"] < total
    column = s["clock"] % length
    age = (column - columns) % length
    hidden, cache = decoder.apply(
      {"params": params},
      s["token"],
      prompt_lengths[row] - 1 + s["done"],
      s["cache"],
      row,
      prompt_mask[row],
      age[None] <= s["done"][:, None],
      column,
      method="decode",
    )
    logits = decoder.apply({"params": params}, hidden, method="logits")
    index = indices[jnp.minimum(s["id"], total - 1)]
    token, logprob = draw(
      logits.astype(jnp.float32), config, key, index, s["done"], temperature
    )
    log = {
      "id": jnp.where(active, s["id"], total),
      "at": s["done"],
      "token": token,
      "logprob": logprob,
    }
    log = {
      k: jax.lax.dynamic_update_slice(s["log"][k], v[None], (s["clock"], 0))
      for k, v in log.items()
    }
    done = s["done"] + 1
    free = active & ((token == config.eos_id) | (done == length))
    # The i-th freed slot takes the i-th completion of the queue.
    next_id = jnp.where(free, s["queue"] + jnp.cumsum(free) - 1, s["id"])
    next_id = jnp.minimum(next_id, total)
    next_row = jnp.minimum(next_id, total - 1) // group
    return {
      "clock": s["clock"] + 1,
      "queue": jnp.minimum(s["queue"] + free.sum(), total),
      "id": next_id,
      "done": jnp.where(free, 0, done),
      "token": jnp.where(free, last_tokens[next_row], token),
      "cache": cache,
      "log": log,
    }

  # No more steps than if the slots took turns at completions of full length.
  steps = -(-total // slots) * length
  start = jnp.arange(slots)
  init = {
    "clock": jnp.int32(0),
    "queue": jnp.int32(slots),
    "id": start,
    "done": jnp.zeros(slots, jnp.int32),
    "token": last_tokens[start // group],
    "cache": cache,
    "log": {
      "id": jnp.full((steps, slots), total),
      "at": jnp.zeros((steps, slots), jnp.int32),
      "token": jnp.zeros((steps, slots), jnp.int32),
      "logprob": jnp.zeros((steps, slots), jnp.float32),
    },
  }
  end = jax.lax.while_loop(lambda s: (s["id"] < total).any(), step, init)
  rollout = _assemble(end["log"], total, length, config.eos_id)
  return jax.tree.map(lambda x: sharding.constrain(x, mesh, P()), rollout)


def prefill(decoder, params, prompts, mask, slots, length):
  """Index of each prompt's last token, and the cache with the prompts in."""
  p = prompts.shape[1]
  last = p - 1 - jnp.argmax(mask[:, ::-1], axis=1)
  positions = jnp.maximum(jnp.cumsum(mask, axis=1) - 1, 0)
  _, (k, v) = decoder.apply(
    {"params": params},
    prompts,
    positions,
    mask.astype(jnp.int32),
    method="prefill",
  )
  layers, _, heads, dim, _ = k.shape
  ring_k = jnp.zeros((layers, slots, heads, dim, length), k.dtype)
  ring_v = jnp.zeros((layers, slots, heads, length, dim), v.dtype)
  return last, Cache(prompt_k=k, prompt_v=v, ring_k=ring_k, ring_v=ring_v)


def draw(logits, config, key, indices, positions, temperature):
  """One token a row and its log-probability.

  An inverse CDF with one uniform number a row: the Gumbel trick would draw
  one for every logit, which costs more than the rest of a small model.
  """
  if not config.greedy:
    logits = logits / temperature
  logp = jax.nn.log_softmax(logits, axis=-1)
  if config.greedy:
    token = jnp.argmax(logits, axis=-1)
  else:

    def uniform(index, position):
      k = jax.random.fold_in(jax.random.fold_in(key, index), position)
      return jax.random.uniform(k)

    token = inverse_cdf(
      truncate(jnp.exp(logp), config.top_k, config.top_p),
      jax.vmap(uniform)(indices, positions),
    )
  token = token.astype(jnp.int32)
  return token, jnp.take_along_axis(logp, token[:, None], axis=1)[:, 0]


def truncate(probs, top_k, top_p):
  """Zeroes what top-k and then top-p leave out, without renormalising.

  Args:
    probs: [S, V].
    top_k: 0 keeps all; ties with the k-th stay in.
    top_p: keeps the smallest set of likeliest tokens holding at least this
      share of what top-k left.

  Returns:
    [S, V].
  """
  if top_k and top_k < probs.shape[1]:
    least = jax.lax.top_k(probs, top_k)[0][:, -1:]
    probs = jnp.where(probs >= least, probs, 0.0)
  if top_p < 1:
    ordered = -jnp.sort(-probs, axis=1)
    before = jnp.cumsum(ordered, axis=1) - ordered
    kept = before < top_p * ordered.sum(axis=1, keepdims=True)
    least = jnp.where(kept, ordered, jnp.inf).min(axis=1, keepdims=True)
    probs = jnp.where(probs >= least, probs, 0.0)
  return probs


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


def _assemble(log, total, length, eos_id):
  """From the log of every step and slot to rows of completions."""
  at = (log["id"], log["at"])
  tokens = jnp.zeros((total, length), jnp.int32)
  tokens = tokens.at[at].set(log["token"], mode="drop")
  logprobs = jnp.zeros((total, length), jnp.float32)
  logprobs = logprobs.at[at].set(log["logprob"], mode="drop")
  lengths = jnp.zeros(total, jnp.int32)
  lengths = lengths.at[log["id"]].max(log["at"] + 1, mode="drop")
  final = jnp.take_along_axis(tokens, lengths[:, None] - 1, axis=1)[:, 0]
  return Rollout(tokens, logprobs, lengths, final == eos_id)
