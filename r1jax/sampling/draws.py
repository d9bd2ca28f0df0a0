"""Drawing one token for each row of logits, with its log-probability."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from r1jax import kept as kept_lib
from r1jax.sampling.config import SamplerConfig


class Draw(NamedTuple):
  """A token for each row, and what is known of how it was drawn.

  Attributes:
    token: [S] int32.
    logprob: [S] float32, its log-probability under the distribution that it
      was drawn from: within the tokens that top_k and top_p keep.
    kept: [S, W] uint32, the set of these tokens, see `r1jax.kept`; None if the
      config keeps all tokens.
  """

  token: jax.Array
  logprob: jax.Array
  kept: jax.Array | None


def draw(
  logits: jax.Array,
  config: SamplerConfig,
  key: jax.Array,
  indices: jax.Array,
  positions: jax.Array,
  temperature: jax.Array,
) -> Draw:
  """Draws one token for each row.

  Args:
    logits: [S, V] float32.
    config: the `SamplerConfig`: greedy, top_k and top_p.
    key: typed PRNG key of the rollout.
    indices: [S] int32, the sample index of each row's completion.
    positions: [S] int32, the number of the token within its completion.
    temperature: [] float32, divides the logits unless `greedy`.

  Returns:
    the `Draw`.
  """
  # The vocabulary first, as the head of a decoding step leaves it.
  z = logits.T if config.greedy else logits.T / temperature
  peak = _over_tokens(jnp.max, z, -jnp.inf)
  # Once: the compiler would take the exponentials again in every pass.
  weights = jax.lax.optimization_barrier(jnp.exp(z - peak[None]))
  sets = None
  if config.truncates:
    weights = truncate(weights.T, config.top_k, config.top_p).T
    sets = kept_lib.pack(weights.T > 0)
  if config.greedy:
    token = jnp.argmax(z, axis=0)
  else:

    def uniforms(index, position):
      k = jax.random.fold_in(jax.random.fold_in(key, index), position)
      return jax.random.uniform(k, numbers(len(z)))

    token = categorical(weights.T, jax.vmap(uniforms)(indices, positions))
  token = token.astype(jnp.int32)
  picked = jnp.take_along_axis(z, token[None], axis=0)[0]
  total = jnp.log(_over_tokens(jnp.sum, weights, 0.0))
  return Draw(token, picked - peak - total, sets)


def _over_tokens(reduce, x, nothing):
  """A reduction of [V, S] to [S] in two levels, as in `categorical`.

  In one level XLA on CPU would transpose the whole array first.
  """
  tiles = reduce(_in_tiles(x, nothing), axis=1)
  return reduce(jax.lax.optimization_barrier(tiles), axis=0)


def truncate(weights: jax.Array, top_k: int, top_p: float) -> jax.Array:
  """Zeroes the weights that top-k and then top-p exclude.

  Args:
    weights: [S, V] float32, not negative, proportional to probabilities.
    top_k: keeps the k likeliest tokens and those equal to the k-th; 0 keeps
      all.
    top_p: of the tokens that top-k keeps, keeps the smallest set of likeliest
      ones that holds at least this share of their weight.

  Returns:
    [S, V] float32, not renormalised.
  """
  if top_k and top_k < weights.shape[1]:
    weights = _keep(weights, lambda kept: (kept > 0).sum(axis=1) >= top_k)
  if top_p < 1:
    enough = top_p * weights.sum(axis=1)
    weights = _keep(weights, lambda kept: kept.sum(axis=1) >= enough)
  return weights


def _keep(weights, enough):
  """The fewest of the largest weights that are `enough`; zero elsewhere.

  By bisection of the threshold. The bits of floats that are not negative, read
  as integers, have the order of the floats, so 31 passes are exact. A sort
  takes 25 times as long on CPU.

  Args:
    weights: [S, V] float32.
    enough: function of the kept weights [S, V], the others being zero, to [S]
      bool.
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


def categorical(weights: jax.Array, uniforms: jax.Array) -> jax.Array:
  """Draws one token a row in proportion to its weight, by the Gumbel trick.

  In two levels: first a tile of the vocabulary, then a token of the tile. This
  needs about 2 sqrt(V) Gumbels a row instead of V. An inverse CDF would need
  only one random number, but rounding any weight would move the boundaries of
  all later tokens. Here a draw changes only if two scores are equal up to
  rounding. So a completion is the same in other batch sizes and on other
  meshes, although their products round differently.

  Args:
    weights: [S, V] float32, not negative, rows of any positive sum.
    uniforms: [S, numbers(V)] in [0, 1), multiples of 2^-23 as
      `jax.random.uniform` makes them.

  Returns:
    [S] int32; never a token of weight zero.
  """
  tiles = _in_tiles(weights.T, 0.0)
  count, width, _ = tiles.shape
  tile = _gumbel_max(tiles.sum(axis=1).T, uniforms[:, :count])
  inside = jnp.take_along_axis(tiles, tile[None, None], axis=0)[0]
  return tile * width + _gumbel_max(inside.T, uniforms[:, count:])


def numbers(v: int) -> int:
  """How many uniforms a row `categorical` needs for v weights."""
  return sum(_tiles(v))


def _in_tiles(x, nothing):
  """[V, S] to [tiles, tokens of each, S], the last tile padded."""
  width, count = _tiles(len(x))
  x = jnp.pad(x, ((0, count * width - len(x)), (0, 0)), constant_values=nothing)
  return x.reshape(count, width, -1)


def _tiles(v):
  """How many tokens a tile has, and how many tiles there are."""
  width = max(1, round(v**0.5))
  # A width that divides V saves a copy.
  width = next((w for w in range(width, 2 * width) if v % w == 0), width)
  return width, -(-v // width)


def _gumbel_max(weights, uniforms):
  """[.] int, index i with probability weights[i] / sum, of each row."""
  # Half a step off: neither 0 nor 1, so that no logarithm is infinite.
  gumbels = -jnp.log(-jnp.log1p(-(uniforms + 2.0**-24)))
  return jnp.argmax(jnp.log(weights) + gumbels, axis=1)
