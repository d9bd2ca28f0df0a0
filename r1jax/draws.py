"""One token a row from its logits, and the log-probability of it."""

import jax
import jax.numpy as jnp


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
  # Never negative, as rounding may have it: that would draw a weight of zero.
  token, _ = _invert(inside, jnp.maximum(r - before, 0))
  return block * width + token


def _invert(weights, r):
  """First index whose cumulative weight exceeds r, and the weight before."""
  cumulative = jnp.cumsum(weights, axis=1)
  # Rounding may leave r at the very end: the last index of positive weight
  # stands in for "none".
  size = weights.shape[1]
  final = size - 1 - jnp.argmax(weights[:, ::-1] > 0, axis=1)
  index = jnp.minimum((cumulative <= r[:, None]).sum(axis=1), final)
  upto = jnp.take_along_axis(cumulative, index[:, None], axis=1)[:, 0]
  return index, upto - jnp.take_along_axis(weights, index[:, None], 1)[:, 0]
