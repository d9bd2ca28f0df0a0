"""Attention of queries on keys, whole or in parts, and its masks."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

# Finite, so that a row that may attend to nothing (padding) yields the mean
# of the values and not NaN, which would poison the gradients of the rest.
MASKED = -1e30


def _scores(q, k, mask):
  """Scaled scores [B, K, Q, U] in float32; the arguments of `attend`.

  Q = H / K * T: the query heads of a key head stand as rows, for one matrix
  product each.
  """
  b, h, t, d = q.shape
  kv, u = k.shape[1], k.shape[3]
  q = q.reshape(b, kv, h // kv * t, d) * jnp.asarray(d**-0.5, q.dtype)
  s = jnp.einsum("bkqd,bkdu->bkqu", q, k, preferred_element_type=jnp.float32)
  s = s.reshape(b, kv, h // kv, t, u)
  return jnp.where(mask[:, None, None], s, MASKED).reshape(b, kv, -1, u)


def _values(p, v):
  return jnp.einsum(
    "bkqu,bkud->bkqd", p.astype(v.dtype), v, preferred_element_type=jnp.float32
  )


def attend(q, k, v, mask):
  """Softmax attention, the softmax in float32.

  Args:
    q: [B, H, T, D] queries.
    k: [B, K, D, U], v: [B, K, U, D] with K dividing H, each key head serving
      H / K consecutive query heads. Keys come transposed because both
      products then run along memory, which halves a decoding step on CPU.
    mask: [B, T, U] bool, True where a query may look.

  Returns:
    [B, H, T, D] in the dtype of q.
  """
  out = _values(jax.nn.softmax(_scores(q, k, mask), axis=-1), v)
  return out.reshape(q.shape).astype(q.dtype)


class Partial(NamedTuple):
  """Attention over some of the keys, ready to be joined with the others.

  Attributes:
    out: [B, K, Q, D] float32, values weighted by exp(score - peak).
    total: [B, K, Q] float32, sum of these weights.
    peak: [B, K, Q] float32, the greatest score.
  """

  out: jax.Array
  total: jax.Array
  peak: jax.Array


def partial(q, k, v, mask):
  """`attend` on one set of keys, up to its normaliser: a `Partial`."""
  scores = _scores(q, k, mask)
  peak = scores.max(axis=-1)
  p = jnp.exp(scores - peak[..., None])
  return Partial(_values(p, v), p.sum(axis=-1), peak)


def join(a, b):
  """The `Partial` over the keys of both (Milakov and Gimelshein 2018)."""
  peak = jnp.maximum(a.peak, b.peak)
  x, y = jnp.exp(a.peak - peak), jnp.exp(b.peak - peak)
  out = a.out * x[..., None] + b.out * y[..., None]
  return Partial(out, a.total * x + b.total * y, peak)


def finish(part, q):
  """The normalised output, [B, H, T, D] in the dtype of the queries q."""
  return (part.out / part.total[..., None]).reshape(q.shape).astype(q.dtype)


def causal_mask(segments, prefixes=None):
  """True where a query may look at a key, which is not later.

  Args:
    segments: [B, T] int32; 0 is padding, which nothing attends to. Tokens see
      their own segment,
    prefixes: [B, T] int32 or None: and this one, if it is not 0.

  Returns:
    [B, T, T] bool, queries by keys.
  """
  t = segments.shape[1]
  keys = segments[:, None, :]
  seen = segments[:, :, None] == keys
  if prefixes is not None:
    seen |= prefixes[:, :, None] == keys
  return seen & (keys > 0) & jnp.tril(jnp.ones((1, t, t), bool))
