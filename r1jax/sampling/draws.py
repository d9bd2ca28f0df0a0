"""One token a row from its logits, and the log-probability of it."""

import jax
import jax.numpy as jnp


def draw(logits, config, key, indices, positions, temperature):
  """One token a row and its log-probability."""
  # The vocabulary first, as the head of a decoding step leaves it.
  z = logits.T if config.greedy else logits.T / temperature
  peak = _over_tokens(jnp.max, z, -jnp.inf)
  # Once: the compiler would take the exponentials again in every pass.
  weights = jax.lax.optimization_barrier(jnp.exp(z - peak[None]))
  if config.greedy:
    token = jnp.argmax(z, axis=0)
  else:

    def uniforms(index, position):
      k = jax.random.fold_in(jax.random.fold_in(key, index), position)
      return jax.random.uniform(k, numbers(len(z)))

    token = categorical(
      truncate(weights.T, config.top_k, config.top_p),
      jax.vmap(uniforms)(indices, positions),
    )
  token = token.astype(jnp.int32)
  picked = jnp.take_along_axis(z, token[None], axis=0)[0]
  return token, picked - peak - jnp.log(_over_tokens(jnp.sum, weights, 0.0))


def _over_tokens(reduce, x, nothing):
  """A reduction of [V, S] to [S], in two levels, as `categorical`'s.

  In one, XLA on CPU would turn the whole array first.
  """
  blocks = reduce(_in_blocks(x, nothing), axis=1)
  return reduce(jax.lax.optimization_barrier(blocks), axis=0)


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


def categorical(weights, uniforms):
  """Draws in proportion to the weights, by Gumbels in two levels.

  First a block of tokens, then a token of it: about 2 sqrt(V) Gumbels a row
  in place of V. An inverse CDF would need one random number, but there the
  rounding of any weight moves the boundaries of all tokens after it; here a
  draw changes only where two scores are equal but for rounding. So a
  completion stays the same in other batch sizes and on other meshes, whose
  products round differently.

  Args:
    weights: [S, V] float32, not negative, rows of any positive sum.
    uniforms: [S, `numbers`(V)] in [0, 1), multiples of 2^-23 as
      `jax.random.uniform` makes them.

  Returns:
    [S] int32; never a token of weight zero.
  """
  blocks = _in_blocks(weights.T, 0.0)
  count, width, _ = blocks.shape
  block = _gumbel_max(blocks.sum(axis=1).T, uniforms[:, :count])
  inside = jnp.take_along_axis(blocks, block[None, None], axis=0)[0]
  return block * width + _gumbel_max(inside.T, uniforms[:, count:])


def numbers(v):
  """How many uniforms a row `categorical` needs for v weights."""
  return sum(_blocks(v))


def _in_blocks(x, nothing):
  """[V, S] to [blocks, tokens of each, S], the last filled up."""
  width, count = _blocks(len(x))
  x = jnp.pad(x, ((0, count * width - len(x)), (0, 0)), constant_values=nothing)
  return x.reshape(count, width, -1)


def _blocks(v):
  """Tokens of a block, and how many blocks."""
  width = max(1, round(v**0.5))
  # A width that divides V saves a copy.
  width = next((w for w in range(width, 2 * width) if v % w == 0), width)
  return width, -(-v // width)


def _gumbel_max(weights, uniforms):
  """Index i with probability weights[i] / sum, of each row."""
  # Half a step off: neither 0 nor 1, so that no logarithm is infinite.
  gumbels = -jnp.log(-jnp.log1p(-(uniforms + 2.0**-24)))
  return jnp.argmax(jnp.log(weights) + gumbels, axis=1)
