"""The set of tokens that a token was drawn from: a bit for each token.

With top-k or top-p the sampler draws from a part of the vocabulary. That part
is data: the learner computes log-probabilities within the same part, as
DeepSeek-V3.2 does (arXiv 2512.02556, 3.1, "keep sampling mask"). A threshold
instead of bits would not be exact, since the learner's logits are others.

A set is a row of W = ceil(V / 32) words of 32 bits; token v is bit v % 32 of
word v // 32.
"""

import jax
import jax.numpy as jnp

BITS = 32


def words(vocab_size: int) -> int:
  """W, the words of a set over a vocabulary of V tokens."""
  return -(-vocab_size // BITS)


def pack(kept: jax.Array) -> jax.Array:
  """The sets of rows of a mask.

  Args:
    kept: [S, V] bool.

  Returns:
    [S, W] uint32.
  """
  rows, size = kept.shape
  bits = jnp.pad(kept, ((0, 0), (0, -size % BITS))).reshape(rows, -1, BITS)
  places = jnp.arange(BITS, dtype=jnp.uint32)
  return (bits.astype(jnp.uint32) << places[None, None]).sum(
    axis=2, dtype=jnp.uint32
  )


def holds(sets: jax.Array, tokens: jax.Array) -> jax.Array:
  """Whether tokens are in sets.

  Args:
    sets: [n, W] uint32.
    tokens: [m] int32.

  Returns:
    [m, n] bool.
  """
  # By words, whose rows lie together, and not by sets.
  found = sets.T[tokens // BITS]
  places = (tokens % BITS).astype(jnp.uint32)
  return (found >> places[:, None]) & 1 == 1
