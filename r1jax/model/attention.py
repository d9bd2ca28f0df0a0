"""Softmax attention, whole or in parts, its masks, and what it keeps."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from r1jax.model.config import ModelConfig

# Finite, so that a row that may attend to nothing (padding) yields the mean
# of the values and not NaN, which would poison the gradients of the rest.
MASKED = -1e30
# Name of the results of attention in parts for `jax.checkpoint`, as
# `linear.PRODUCT`.
ATTENTION = "attention"


class Kept(NamedTuple):
  """An array that attention keeps of every token for the tokens after it.

  All arrays of an attention have the same number of heads. Its queries have
  the widths of all arrays with `key` set, one after the other.

  Attributes:
    name: of the array.
    heads: K.
    width: numbers of each head.
    key: whether queries are multiplied with it.
    value: whether outputs are sums of it; exactly one array has this set.
    tokens_last: how U tokens are stored: [K, width, U] if True, else [K, U,
      width]. A decoding step on CPU takes half the time if the products with
      queries run along the tokens and those with values along the width.
  """

  name: str
  heads: int
  width: int
  key: bool
  value: bool
  tokens_last: bool

  def shape(self, tokens: int) -> tuple[int, int, int]:
    """The stored shape for so many tokens."""
    if self.tokens_last:
      return self.heads, self.width, tokens
    return self.heads, tokens, self.width

  @property
  def width_axis(self) -> int:
    """The axis of `shape` that is the width, from the end."""
    return -2 if self.tokens_last else -1

  @property
  def token_axis(self) -> int:
    """The axis of `shape` that is the tokens, from the end."""
    return -1 if self.tokens_last else -2


def kept(config: ModelConfig) -> tuple[Kept, ...]:
  """What the attention of a model keeps: a tuple of `Kept`.

  Args:
    config: the `ModelConfig`.
  """
  shape = config.n_kv_heads, config.head_dim
  return (
    Kept("k", *shape, key=True, value=False, tokens_last=True),
    Kept("v", *shape, key=False, value=True, tokens_last=False),
  )


def keys_and_values(
  arrays: dict, kept: tuple[Kept, ...]
) -> tuple[jax.Array, jax.Array]:
  """Keys [B, K, D, U] and values [B, K, U, E], as `attend` takes them.

  Args:
    arrays: name -> array as stored, [B, *`Kept.shape`(U)].
    kept: tuple of `Kept`.
  """

  def stored(k, tokens_last):
    x = arrays[k.name]
    return x if k.tokens_last == tokens_last else x.swapaxes(-1, -2)

  keys = [stored(k, True) for k in kept if k.key]
  (value,) = (stored(k, False) for k in kept if k.value)
  return keys[0] if len(keys) == 1 else jnp.concatenate(keys, axis=-2), value


def scaled(q: jax.Array, heads: int) -> jax.Array:
  """Queries [B, K, Q, D] over the square root of D.

  Q = H / K * T: the query heads of a key head stand as rows, for one matrix
  product each.

  Args:
    q: [B, H, T, D].
    heads: K.
  """
  b, _, _, d = q.shape
  return q.reshape(b, heads, -1, d) * jnp.asarray(d**-0.5, q.dtype)


def scores(q: jax.Array, k: jax.Array, mask: jax.Array) -> jax.Array:
  """Scaled and masked scores [B, K, Q, U] in float32; arguments of `attend`."""
  s = _products(scaled(q, k.shape[1]), k, "du")
  return _masked(s, q, mask)


def _products(q, k, axes):
  """[B, K, Q, D] queries with keys of these axes -> [B, K, Q, U] float32."""
  return jnp.einsum(
    f"bkqd,bk{axes}->bkqu", q, k.astype(q.dtype),
    preferred_element_type=jnp.float32,
  )  # fmt: skip


def _masked(s, q, mask):
  """Scores [B, K, Q, U], `MASKED` where the mask [B, T, U] is False."""
  b, h, t, _ = q.shape
  kv, u = s.shape[1], s.shape[3]
  s = s.reshape(b, kv, h // kv, t, u)
  return jnp.where(mask[:, None, None], s, MASKED).reshape(b, kv, -1, u)


def _sums(p, v, axes="ud"):
  """[B, K, Q, U] weights with values of these axes -> [B, K, Q, E] float32."""
  return jnp.einsum(
    f"bkqu,bk{axes}->bkqd", p.astype(v.dtype), v,
    preferred_element_type=jnp.float32,
  )  # fmt: skip


def attend(
  q: jax.Array, k: jax.Array, v: jax.Array, mask: jax.Array
) -> jax.Array:
  """Softmax attention, the softmax in float32.

  Args:
    q: [B, H, T, D] queries.
    k: [B, K, D, U] keys, v: [B, K, U, E] values. K divides H; each key head
      serves H / K consecutive query heads. See `Kept.tokens_last` for why keys
      come transposed.
    mask: [B, T, U] bool, True where a query may look.

  Returns:
    [B, H, T, E] in the dtype of q.
  """
  out = _sums(jax.nn.softmax(scores(q, k, mask), axis=-1), v)
  return out.reshape(*q.shape[:3], -1).astype(q.dtype)


class Int8(NamedTuple):
  """A kept array in eight bits, with a scale for each token and head.

  Attributes:
    values: [..., width, U] or [..., U, width] int8.
    scale: [..., U], the factor of the values.
  """

  values: jax.Array
  scale: jax.Array


def quantize(x: jax.Array, axis: int) -> Int8:
  """The `Int8` of a kept array.

  The largest of a head's numbers becomes 127 or -127, so the error of each is
  at most half a 127th of it.

  Args:
    x: [..., width, U] or [..., U, width].
    axis: which dimension is the width.
  """
  y = x.astype(jnp.float32)
  scale = jnp.abs(y).max(axis=axis, keepdims=True) / 127
  values = jnp.round(y / jnp.where(scale > 0, scale, 1)).astype(jnp.int8)
  return Int8(values, scale.squeeze(axis))


class Partial(NamedTuple):
  """Attention over some of the keys, ready to be joined with the others.

  Attributes:
    out: [B, K, Q, E] float32, values weighted by exp(score - peak).
    total: [B, K, Q] float32, sum of these weights.
    peak: [B, K, Q] float32, the largest score.
  """

  out: jax.Array
  total: jax.Array
  peak: jax.Array


def nothing(batch: int, heads: int, group: int, width: int) -> Partial:
  """The `Partial` over no keys, which leaves what it is joined with as it is.

  Args:
    batch, heads, group, width: B, K, Q and E.
  """
  shape = (batch, heads, group)
  return Partial(
    jnp.zeros((*shape, width), jnp.float32),
    jnp.zeros(shape, jnp.float32),
    jnp.full(shape, MASKED, jnp.float32),
  )


def partial(
  q: jax.Array, k: jax.Array, v: jax.Array, mask: jax.Array
) -> Partial:
  """`attend` up to its normaliser: a `Partial`; arguments of `attend`."""
  return _partial(scores(q, k, mask), lambda p: _sums(p, v))


def read(
  q: jax.Array, arrays: dict, kept: tuple[Kept, ...], mask: jax.Array
) -> Partial:
  """The `Partial` of queries over stored arrays.

  Args:
    q: [B, H, T, D], D the sum of the widths of the keys.
    arrays: name -> array, or `Int8`, of [B, *`Kept.shape`(U)].
    kept: tuple of `Kept`.
    mask: [B, T, U] bool, True where a query may look.
  """
  heads = jax.tree.leaves(arrays)[0].shape[1]
  whole, at, s = scaled(q, heads), 0, None
  for k in (k for k in kept if k.key):
    x, scale = _values_and_scale(arrays[k.name])
    own = whole[..., at : at + k.width]
    part = _products(own, x, "du" if k.tokens_last else "ud")
    if scale is not None:
      part *= scale[:, :, None]
    s, at = part if s is None else s + part, at + k.width
  (value,) = (k for k in kept if k.value)

  def sums(p):
    v, scale = _values_and_scale(arrays[value.name])
    if scale is not None:
      p, v = p * scale[:, :, None], v.astype(q.dtype)
    return _sums(p, v, "du" if value.tokens_last else "ud")

  return _partial(_masked(s, q, mask), sums)


def _partial(s, sums):
  """The `Partial` of scores, with a function of weights to sums of values."""
  peak = s.max(axis=-1)
  p = jnp.exp(s - peak[..., None])
  return Partial(sums(p), p.sum(axis=-1), peak)


def _values_and_scale(x):
  return x if isinstance(x, Int8) else (x, None)


def join(a: Partial, b: Partial) -> Partial:
  """The `Partial` over the keys of both (Milakov and Gimelshein 2018)."""
  peak = jnp.maximum(a.peak, b.peak)
  x, y = jnp.exp(a.peak - peak), jnp.exp(b.peak - peak)
  out = a.out * x[..., None] + b.out * y[..., None]
  return Partial(out, a.total * x + b.total * y, peak)


def finish(part: Partial, q: jax.Array) -> jax.Array:
  """The normalised output of a `Partial`.

  Args:
    part: the `Partial` over all keys.
    q: the queries [B, H, T, D].

  Returns:
    [B, H, T, E] in the dtype of q.
  """
  out = part.out / part.total[..., None]
  return out.reshape(*q.shape[:3], -1).astype(q.dtype)


class Span(NamedTuple):
  """How far back the tokens of a layer with a window look.

  Attributes:
    positions: [B, T] int32, of the tokens in their sequences.
    earliest: [B, T] int32, the first position that each token sees.
  """

  positions: jax.Array
  earliest: jax.Array


def causal_mask(
  segments: jax.Array,
  prefixes: jax.Array | None = None,
  span: Span | None = None,
) -> jax.Array:
  """The mask of packed rows: True where a query may look at a key.

  A token sees itself and the earlier tokens of its segment and of its prefix.

  Args:
    segments: [B, T] int32, the segment of each token; 0 is padding, which
      nothing attends to.
    prefixes: [B, T] int32, the earlier segment that also comes before each
      token; 0 where there is none. None if no row has any.
    span: the `Span`, or None if a token sees all positions before it.

  Returns:
    [B, T, T] bool, queries by keys.
  """
  t = segments.shape[1]
  keys = segments[:, None, :]
  seen = segments[:, :, None] == keys
  if prefixes is not None:
    seen |= prefixes[:, :, None] == keys
  if span is not None:
    seen &= span.positions[:, None] >= span.earliest[:, :, None]
  return seen & (keys > 0) & jnp.tril(jnp.ones((1, t, t), bool))
