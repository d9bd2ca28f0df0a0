"""Attention block by block: memory linear in T, no work where nothing is seen.

FlashAttention-2 (Dao 2023) in plain XLA. The rows are cut into blocks; a loop
visits the pairs of a query block and a key block between which any token sees
another, so that packed segments cost what they would cost alone, and the
prompt that they share a little more. The backward pass visits them again and
computes the probabilities anew from the logarithm of their normaliser.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from r1jax.model import attention

# Smaller blocks fit segments better, larger ones need fewer turns.
SMALLEST, LARGEST, MOST = 64, 256, 16


def block_size(t):
  """Tokens of a block for rows of t."""
  size = SMALLEST
  while size < LARGEST and t >= 2 * size * MOST:
    size *= 2
  return size


class Pairs(NamedTuple):
  """The pairs of blocks to visit: `query` and `key` [n (n + 1) / 2] int32, of
  which the first `count` are meant."""

  query: jax.Array
  key: jax.Array
  count: jax.Array


def attend(q, k, v, segments, prefixes=None):
  """`attention.attend` under `attention.causal_mask(segments, prefixes)`.

  Args:
    q, k, v: as of `attention.attend`, T = U.
    segments: [B, T] int32, 0 for padding.
    prefixes: [B, T] int32 or None, as of `causal_mask`.

  Returns:
    [B, H, T, D] in the dtype of q; anything in padding, whose cotangents have
    to be zero.
  """
  t = q.shape[2]
  size = block_size(t)
  padding = -t % size

  def whole(x, axis):
    return jnp.pad(x, [(0, padding * (i == axis)) for i in range(x.ndim)])

  if prefixes is None:
    prefixes = jnp.zeros_like(segments)
  out = _attend(
    size, whole(q, 2), whole(k, 3), whole(v, 2), whole(segments, 1),
    whole(prefixes, 1),
  )  # fmt: skip
  return out[:, :, :t]


def _cut(x, size, axis):
  """[..., T, ...] to [n, ..., size, ...]: T's blocks, the block first."""
  shape = (*x.shape[:axis], -1, size, *x.shape[axis + 1 :])
  return jnp.moveaxis(x.reshape(shape), axis, 0)


def _uncut(x, axis):
  """The inverse of `_cut`."""
  x = jnp.moveaxis(x, 0, axis)
  return x.reshape(*x.shape[:axis], -1, *x.shape[axis + 2 :])


def block_pairs(segments, prefixes):
  """The `Pairs` for [n, B, size] segments and prefixes.

  Numbers between the least and the greatest of a block count as being in it.
  As segments are numbered along a row, that is hardly ever too much, and never
  too little.
  """

  def extent(x):
    most = jnp.iinfo(x.dtype).max
    return jnp.where(x > 0, x, most).min(axis=2), x.max(axis=2)

  def meet(a, b):
    (low, high), (least, most) = a, b
    return (low[:, None] <= most[None]) & (least[None] <= high[:, None])

  keys = extent(segments)
  seen = meet(keys, keys) | meet(extent(prefixes), keys)
  n = len(segments)
  # A block of nothing but padding looks at itself, as its output is finite.
  seen = jnp.tril(seen.any(axis=2)) | jnp.eye(n, dtype=bool)
  query, key = jnp.nonzero(seen, size=n * (n + 1) // 2, fill_value=0)
  return Pairs(query, key, seen.sum())


def _at(x, i):
  return jax.lax.dynamic_index_in_dim(x, i, keepdims=False)


def _put(x, i, y):
  return jax.lax.dynamic_update_index_in_dim(x, y, i, 0)


def _mask(segments, prefixes, i, j):
  """What block i sees of block j, [B, size, size] bool."""
  queries, keys = _at(segments, i)[:, :, None], _at(segments, j)[:, None]
  at = jnp.arange(segments.shape[2])
  earlier = (i > j) | (at[:, None] >= at[None])[None]
  seen = (queries == keys) | (_at(prefixes, i)[:, :, None] == keys)
  return seen & (keys > 0) & earlier


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _attend(size, q, k, v, segments, prefixes):
  return _forward(size, q, k, v, segments, prefixes)[0]


def _forward(size, q, k, v, segments, prefixes):
  qs, vs, ks = _cut(q, size, 2), _cut(v, size, 2), _cut(k, size, 3)
  marks = _cut(segments, size, 1), _cut(prefixes, size, 1)
  pairs = block_pairs(*marks)

  def step(turn, total):
    i, j = pairs.query[turn], pairs.key[turn]
    part = attention.partial(
      _at(qs, i), _at(ks, j), _at(vs, j), _mask(*marks, i, j)
    )
    joined = attention.join(jax.tree.map(lambda x: _at(x, i), total), part)
    return jax.tree.map(lambda x, y: _put(x, i, y), total, joined)

  n, b, kv = ks.shape[:3]
  rows = q.shape[1] // kv * size
  total = attention.Partial(
    jnp.zeros((n, b, kv, rows, q.shape[3]), jnp.float32),
    jnp.zeros((n, b, kv, rows), jnp.float32),
    jnp.full((n, b, kv, rows), attention.MASKED, jnp.float32),
  )
  total = jax.lax.fori_loop(0, pairs.count, step, total)
  outs = (total.out / total.total[..., None]).reshape(qs.shape)
  out, normalizer = checkpoint_name(
    (_uncut(outs.astype(q.dtype), 2), total.peak + jnp.log(total.total)),
    attention.ATTENTION,
  )
  return out, (q, k, v, segments, prefixes, out, normalizer)


def _backward(size, saved, g):
  q, k, v, segments, prefixes, out, normalizer = saved
  qs, vs, gs, outs = (_cut(x, size, 2) for x in (q, v, g, out))
  ks = _cut(k, size, 3)
  marks = _cut(segments, size, 1), _cut(prefixes, size, 1)
  pairs = block_pairs(*marks)
  # Of a key head's query heads the rows stand together, as in `attention`.
  heads = normalizer.shape
  delta = (gs.astype(jnp.float32) * outs.astype(jnp.float32)).sum(-1)
  delta, gs = delta.reshape(heads), gs.reshape(*heads, -1)
  product = functools.partial(jnp.einsum, preferred_element_type=jnp.float32)

  def step(turn, sums):
    i, j = pairs.query[turn], pairs.key[turn]
    qi, kj, vj, gi = _at(qs, i), _at(ks, j), _at(vs, j), _at(gs, i)
    scores = attention.scores(qi, kj, _mask(*marks, i, j))
    p = jnp.exp(scores - _at(normalizer, i)[..., None])
    dp = product("bkqd,bkud->bkqu", gi, vj)
    ds = (p * (dp - _at(delta, i)[..., None])).astype(q.dtype)
    qi = attention.scaled(qi, kj)
    dq = product("bkqu,bkdu->bkqd", ds, kj)
    dk = product("bkqd,bkqu->bkdu", qi, ds)
    dv = product("bkqu,bkqd->bkud", p.astype(v.dtype), gi)
    return tuple(
      _put(x, at, _at(x, at) + y)
      for x, at, y in zip(sums, (i, j, j), (dq, dk, dv))
    )

  zeros = (jnp.zeros(x.shape, jnp.float32) for x in (gs, ks, vs))
  dq, dk, dv = jax.lax.fori_loop(0, pairs.count, step, tuple(zeros))
  dq = _uncut(dq.reshape(qs.shape), 2) * q.shape[3] ** -0.5
  return (
    dq.astype(q.dtype), _uncut(dk, 3).astype(k.dtype),
    _uncut(dv, 2).astype(v.dtype), None, None,
  )  # fmt: skip


_attend.defvjp(_forward, _backward)
