"""Attention tile by tile: memory linear in T, no work where nothing is seen.

FlashAttention-2 (Dao 2023) in plain XLA. The rows are cut into tiles. A loop
visits those pairs of a query tile and a key tile in which some token sees
another one. So packed segments cost as much as they would cost alone, and a
prompt that they share a little more. The backward pass visits the pairs again
and recomputes the probabilities from the logarithm of their normaliser.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from r1jax.model import attention

# Smaller tiles fit segments better, larger ones need fewer visits.
SMALLEST, LARGEST, MOST = 64, 256, 16


def tile_size(t: int) -> int:
  """Tokens of a tile for rows of t tokens."""
  size = SMALLEST
  while size < LARGEST and t >= 2 * size * MOST:
    size *= 2
  return size


class Pairs(NamedTuple):
  """The pairs of tiles to visit.

  Attributes:
    query, key: [n (n + 1) / 2] int32, numbers of the tiles of each pair.
    count: [] int32; only the first `count` pairs are visited.
  """

  query: jax.Array
  key: jax.Array
  count: jax.Array  # type: ignore[assignment]


def attend(
  q: jax.Array,
  k: jax.Array,
  v: jax.Array,
  segments: jax.Array,
  prefixes: jax.Array | None = None,
  *span: jax.Array,
) -> jax.Array:
  """Causal attention within segments, in memory linear in T.

  The same as `attention.attend` with `attention.causal_mask`.

  Args:
    q: [B, H, T, D], k: [B, K, D, T], v: [B, K, T, E], as of `attention.attend`.
    segments: [B, T] int32, as of `attention.causal_mask`.
    prefixes: [B, T] int32 or None, as of `attention.causal_mask`.
    *span: the arrays of an `attention.Span`, or nothing.

  Returns:
    [B, H, T, E] in the dtype of q. Padding gets finite values without meaning;
    their cotangents have to be zero.
  """
  t = q.shape[2]
  size = tile_size(t)
  padding = -t % size

  def whole(x, axis):
    return jnp.pad(x, [(0, padding * (i == axis)) for i in range(x.ndim)])

  if prefixes is None:
    prefixes = jnp.zeros_like(segments)
  arrays = whole(q, 2), whole(k, 3), whole(v, 2)
  marks = tuple(whole(x, 1) for x in (segments, prefixes, *span))
  out = _attend(size, *arrays, marks)
  return out[:, :, :t]


def _cut(x, size, axis):
  """[..., T, ...] to [n, ..., size, ...]: the n tiles of T first."""
  shape = (*x.shape[:axis], -1, size, *x.shape[axis + 1 :])
  return jnp.moveaxis(x.reshape(shape), axis, 0)


def _uncut(x, axis):
  """The inverse of `_cut`."""
  x = jnp.moveaxis(x, 0, axis)
  return x.reshape(*x.shape[:axis], -1, *x.shape[axis + 2 :])


def tile_pairs(
  segments: jax.Array, prefixes: jax.Array, *span: jax.Array
) -> Pairs:
  """The `Pairs` of tiles in which some query sees some key.

  All numbers between the smallest and the largest of a tile count as being in
  it. As segments are numbered along a row, this is hardly ever too much, and
  never too little.

  Args:
    segments, prefixes, *span: [n, B, size] int32, the marks of each tile.
  """

  def extent(x):
    most = jnp.iinfo(x.dtype).max
    return jnp.where(x > 0, x, most).min(axis=2), x.max(axis=2)

  def meet(a, b):
    (low, high), (least, most) = a, b
    return (low[:, None] <= most[None]) & (least[None] <= high[:, None])

  keys = extent(segments)
  seen = meet(keys, keys) | meet(extent(prefixes), keys)
  if span:
    positions, earliest = span
    seen &= earliest.min(axis=2)[:, None] <= positions.max(axis=2)[None]
  n = len(segments)
  # A tile of nothing but padding looks at itself, as its output is finite.
  seen = jnp.tril(seen.any(axis=2)) | jnp.eye(n, dtype=bool)
  query, key = jnp.nonzero(seen, size=n * (n + 1) // 2, fill_value=0)
  return Pairs(query, key, seen.sum())


def _at(x, i):
  return jax.lax.dynamic_index_in_dim(x, i, keepdims=False)


def _put(x, i, y):
  return jax.lax.dynamic_update_index_in_dim(x, y, i, 0)


def _mask(marks, i, j):
  """What tile i sees of tile j, [B, size, size] bool."""
  segments, prefixes, *span = marks
  queries, keys = _at(segments, i)[:, :, None], _at(segments, j)[:, None]
  at = jnp.arange(segments.shape[2])
  earlier = (i > j) | (at[:, None] >= at[None])[None]
  seen = (queries == keys) | (_at(prefixes, i)[:, :, None] == keys)
  if span:
    positions, earliest = span
    seen &= _at(positions, j)[:, None] >= _at(earliest, i)[:, :, None]
  return seen & (keys > 0) & earlier


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _attend(size, q, k, v, marks):
  return _forward(size, q, k, v, marks)[0]


def _forward(size, q, k, v, whole_marks):
  qs, vs, ks = _cut(q, size, 2), _cut(v, size, 2), _cut(k, size, 3)
  marks = tuple(_cut(x, size, 1) for x in whole_marks)
  pairs = tile_pairs(*marks)

  def step(visit, total):
    i, j = pairs.query[visit], pairs.key[visit]
    part = attention.partial(
      _at(qs, i), _at(ks, j), _at(vs, j), _mask(marks, i, j)
    )
    joined = attention.join(jax.tree.map(lambda x: _at(x, i), total), part)
    return jax.tree.map(lambda x, y: _put(x, i, y), total, joined)

  n, b, kv = ks.shape[:3]
  rows, width = q.shape[1] // kv * size, v.shape[3]
  total = jax.tree.map(
    lambda x: jnp.broadcast_to(x, (n, *x.shape)),
    attention.nothing(b, kv, rows, width),
  )
  total = jax.lax.fori_loop(0, pairs.count, step, total)
  outs = (total.out / total.total[..., None]).reshape(*qs.shape[:-1], width)
  out, normalizer = checkpoint_name(
    (_uncut(outs.astype(q.dtype), 2), total.peak + jnp.log(total.total)),
    attention.ATTENTION,
  )
  return out, (q, k, v, whole_marks, out, normalizer)


def _backward(size, saved, g):
  q, k, v, whole_marks, out, normalizer = saved
  qs, vs, gs, outs = (_cut(x, size, 2) for x in (q, v, g, out))
  ks = _cut(k, size, 3)
  marks = tuple(_cut(x, size, 1) for x in whole_marks)
  pairs = tile_pairs(*marks)
  # The rows of a key head's query heads stand together, as in `attention`.
  heads = normalizer.shape
  delta = (gs.astype(jnp.float32) * outs.astype(jnp.float32)).sum(-1)
  delta, gs = delta.reshape(heads), gs.reshape(*heads, -1)
  product = functools.partial(jnp.einsum, preferred_element_type=jnp.float32)

  def step(visit, sums):
    i, j = pairs.query[visit], pairs.key[visit]
    qi, kj, vj, gi = _at(qs, i), _at(ks, j), _at(vs, j), _at(gs, i)
    scores = attention.scores(qi, kj, _mask(marks, i, j))
    p = jnp.exp(scores - _at(normalizer, i)[..., None])
    dp = product("bkqd,bkud->bkqu", gi, vj)
    ds = (p * (dp - _at(delta, i)[..., None])).astype(q.dtype)
    qi = attention.scaled(qi, kj.shape[1])
    dq = product("bkqu,bkdu->bkqd", ds, kj)
    dk = product("bkqd,bkqu->bkdu", qi, ds)
    dv = product("bkqu,bkqd->bkud", p.astype(v.dtype), gi)
    return tuple(
      _put(x, at, _at(x, at) + y)
      for x, at, y in zip(sums, (i, j, j), (dq, dk, dv))
    )

  shapes = (*heads, q.shape[3]), ks.shape, vs.shape
  zeros = (jnp.zeros(shape, jnp.float32) for shape in shapes)
  dq, dk, dv = jax.lax.fori_loop(0, pairs.count, step, tuple(zeros))
  dq = _uncut(dq.reshape(qs.shape), 2) * q.shape[3] ** -0.5
  return (
    dq.astype(q.dtype), _uncut(dk, 3).astype(k.dtype),
    _uncut(dv, 2).astype(v.dtype), (None,) * len(marks),
  )  # fmt: skip


_attend.defvjp(_forward, _backward)
