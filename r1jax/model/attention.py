"""Attention of queries on keys, whole or in parts, and its masks."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

# Finite, so that a row that may attend to nothing (padding) yields the mean
# of the values and not NaN, which would poison the gradients of the rest.
MASKED = -1e30
# What the results of attention in parts are called, as `linear.PRODUCT`.
ATTENTION = "attention"


def scaled(q, k):
  """Queries [B, K, Q, D] over the square root of D.

  Q = H / K * T: the query heads of a key head stand as rows, for one matrix
  product each.
  """
  b, _, _, d = q.shape
  return q.reshape(b, k.shape[1], -1, d) * jnp.asarray(d**-0.5, q.dtype)


def scores(q, k, mask, scale=None):
  """Scaled scores [B, K, Q, U] in float32; the arguments of `attend`.

  `scale`, [B, K, U] or None, multiplies the keys.
  """
  b, h, t, _ = q.shape
  kv, u = k.shape[1], k.shape[3]
  s = jnp.einsum(
    "bkqd,bkdu->bkqu", scaled(q, k), k.astype(q.dtype),
    preferred_element_type=jnp.float32,
  )  # fmt: skip
  if scale is not None:
    s *= scale[:, :, None]
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
  out = _values(jax.nn.softmax(scores(q, k, mask), axis=-1), v)
  return out.reshape(q.shape).astype(q.dtype)


class Int8(NamedTuple):
  """Keys or values in eight bits, a scale for each token and head.

  Attributes:
    values: [..., D, U] or [..., U, D] int8. scale: [..., U], what they are
      multiplied by.
  """

  values: jax.Array
  scale: jax.Array


def quantize(x, axis):
  """`Int8` of keys or values, D being the dimension `axis`.

  The greatest of D numbers becomes 127 or -127: the error of each is at most
  half a 127th of it.
  """
  y = x.astype(jnp.float32)
  scale = jnp.abs(y).max(axis=axis, keepdims=True) / 127
  values = jnp.round(y / jnp.where(scale > 0, scale, 1)).astype(jnp.int8)
  return Int8(values, scale.squeeze(axis))


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
  """`attend` on one set of keys, up to its normaliser: a `Partial`.

  Args:
    q, mask: as of `attend`.
    k, v: arrays as of `attend`, or `Int8` of them.
  """
  k, k_scale = k if isinstance(k, Int8) else (k, None)
  v, v_scale = v if isinstance(v, Int8) else (v, None)
  s = scores(q, k, mask, k_scale)
  peak = s.max(axis=-1)
  p = jnp.exp(s - peak[..., None])
  total = p.sum(axis=-1)
  if v_scale is not None:
    p, v = p * v_scale[:, :, None], v.astype(q.dtype)
  return Partial(_values(p, v), total, peak)


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
