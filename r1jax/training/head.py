"""The head: log-probabilities and entropies from final hidden states.

The logits of a batch, [B, T, V], are never held. A chunk of positions meets a
tile of the vocabulary at a time, forward and backward.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from r1jax import kept as kept_lib
from r1jax.model.linear import in_order
from r1jax.model.table import Summed

# In place of minus infinity, whose product with 0 is not a number.
NONE = -1e30


def head_logprobs(
  hidden: jax.Array,
  table: jax.Array | Summed,
  targets: jax.Array,
  chunk: int,
  tile: int,
  logit_dtype: str = "float32",
  trained: jax.Array | None = None,
  kept: jax.Array | None = None,
) -> tuple[jax.Array, jax.Array]:
  """`policy.logprobs` of final hidden states.

  Args:
    hidden: [B, T, d].
    table: [V, d], as of `unembedding`, or `Summed`.
    targets: [B, T] int32.
    chunk: positions of a row a step; T need not be a multiple of it.
    tile: tokens of the vocabulary a step; V need not be a multiple of it.
    logit_dtype: logits are rounded to it before the float32 softmax.
    trained: [B, T] bool or None, as in `Rows`.
    kept: [B, T, W] uint32 or None, as in `Rows`.

  Returns:
    logprobs, entropy: [B, T] float32.
  """
  if trained is None:
    trained = jnp.ones(targets.shape, bool)
  t = targets.shape[1]
  chunk, tile = min(chunk, t), min(tile, len(_values(table)))
  padding = -t % chunk
  if padding:
    hidden = jnp.pad(hidden, ((0, 0), (0, padding), (0, 0)))
    targets = jnp.pad(targets, ((0, 0), (0, padding)))
    trained = jnp.pad(trained, ((0, 0), (0, padding)))
    if kept is not None:
      kept = jnp.pad(kept, ((0, 0), (0, padding), (0, 0)))
  lp, entropy = _chunked(
    hidden, table, targets, trained, kept, chunk, tile, logit_dtype
  )
  return lp[:, :t], entropy[:, :t]


@functools.partial(jax.custom_vjp, nondiff_argnums=(5, 6, 7))
def _chunked(hidden, table, targets, trained, kept, chunk, tile, logit_dtype):
  return _forward(
    hidden, table, targets, trained, kept, chunk, tile, logit_dtype
  )[0]


class _Order(NamedTuple):
  """Positions of a row, the trained ones first.

  Attributes:
    first: [B, T] int32, the position at each place of this order.
    back: [B, T] int32, the place of each position.
    chunks: [] int32, chunks with any trained position.
  """

  first: jax.Array
  back: jax.Array
  chunks: jax.Array


def _order(trained, chunk):
  first = jnp.argsort(~trained, axis=1, stable=True)
  most = trained.sum(axis=1).max()
  return _Order(first, jnp.argsort(first, axis=1), -(-most // chunk))


def _split(x, order, chunk):
  """[B, T, ...] -> [T / chunk, B * chunk, ...], in the order of `order`."""
  b, t = x.shape[:2]
  index = order.first.reshape(b, t, *(1,) * (x.ndim - 2))
  x = jnp.take_along_axis(x, index, axis=1)
  x = jnp.moveaxis(x.reshape(b, t // chunk, chunk, *x.shape[2:]), 1, 0)
  return x.reshape(t // chunk, b * chunk, *x.shape[3:])


def _join(x, order):
  """The inverse of `_split`."""
  b, t = order.back.shape
  x = x.reshape(len(x), b, -1, *x.shape[2:])
  x = jnp.moveaxis(x, 0, 1).reshape(b, t, *x.shape[3:])
  index = order.back.reshape(b, t, *(1,) * (x.ndim - 2))
  return jnp.take_along_axis(x, index, axis=1)


def _at(x, i):
  return jax.lax.dynamic_index_in_dim(x, i, 0, keepdims=False)


def _row(x, i):
  """x[i:i + 1], to broadcast with [tile, n]."""
  return jax.lax.dynamic_index_in_dim(x, i, 0, keepdims=True)


def _put(x, i, y):
  return jax.lax.dynamic_update_index_in_dim(x, y, i, 0)


class _Tile(NamedTuple):
  """A tile of the vocabulary.

  The last one begins early enough to be whole; tokens that the tile before
  has too are not counted again.

  Attributes:
    start: [] int32, its first token.
    rows: [tile, d], of the table.
    tokens: [tile, 1] int32.
    new: [tile, 1] bool, which tokens count here.
  """

  start: jax.Array
  rows: jax.Array
  tokens: jax.Array
  new: jax.Array


def _tile(table, j, size):
  start = jnp.minimum(j * size, len(table) - size)
  rows = jax.lax.dynamic_slice_in_dim(table, start, size)
  tokens = (start + jnp.arange(size))[:, None]
  return _Tile(start, rows, tokens, tokens >= j * size)


def _logits(h, part, dtype, sets):
  """[n, d], a `_Tile` and [n, W] or None -> [tile, n] float32.

  A token outside of a set has the logit `NONE`. The vocabulary comes first, so
  that the large operand is read as it is stored and only the small one is
  transposed.
  """
  z = jnp.matmul(part.rows, in_order(h.T), preferred_element_type=jnp.float32)
  counts = part.new
  if sets is not None:
    counts &= kept_lib.holds(sets, part.tokens[:, 0])
  return jnp.where(counts, z.astype(dtype).astype(jnp.float32), NONE)


def _values(table):
  """[V, d] of a table that may be `Summed`."""
  return table.value if isinstance(table, Summed) else table


def _sets(kept, order, chunk):
  """Function from the number of a chunk to the sets [n, W] of it, or None."""
  if kept is None:
    return lambda i: None
  kept = _split(kept, order, chunk)
  return lambda i: _at(kept, i)


def _forward(hidden, table, targets, trained, kept, chunk, tile, logit_dtype):
  order = _order(trained, chunk)
  saved = (hidden, table, targets, trained, kept)
  hidden, targets = (_split(x, order, chunk) for x in (hidden, targets))
  sets = _sets(kept, order, chunk)
  table = _values(table)
  tiles = -(-len(table) // tile)

  def step(i, out):
    h, target = _at(hidden, i), _row(targets, i)

    def add(j, sums):
      # Sums of exp(z - m) and of exp(z - m) z; m, the greatest z so far,
      # grows from tile to tile (Milakov and Gimelshein 2018).
      m, total, weighted, picked = sums
      part = _tile(table, j, tile)
      z = _logits(h, part, logit_dtype, sets(i))
      new_m = jnp.maximum(m, z.max(axis=0, keepdims=True))
      shrink, e = jnp.exp(m - new_m), jnp.exp(z - new_m)
      is_target = (part.tokens == target) & part.new
      return (
        new_m,
        total * shrink + e.sum(axis=0, keepdims=True),
        weighted * shrink + (e * z).sum(axis=0, keepdims=True),
        picked + jnp.where(is_target, z, 0.0).sum(axis=0, keepdims=True),
      )

    zeros = jnp.zeros(target.shape, jnp.float32)
    m, total, weighted, picked = jax.lax.fori_loop(
      0, tiles, add, (jnp.full_like(zeros, NONE), zeros, zeros, zeros)
    )
    normalizer = m + jnp.log(total)
    # H = log Z - sum_v p_v z_v
    new = (picked - normalizer, normalizer - weighted / total, normalizer)
    return tuple(_put(x, i, y[0]) for x, y in zip(out, new))

  blank = jnp.zeros(targets.shape, jnp.float32)
  out = jax.lax.fori_loop(0, order.chunks, step, (blank,) * 3)
  lp, entropy, normalizer = (_join(x, order) for x in out)
  saved += (entropy, normalizer)
  lp, entropy = (jnp.where(trained, x, 0) for x in (lp, entropy))
  return (lp, entropy), saved


def _backward(chunk, tile, logit_dtype, saved, cotangents):
  hidden, table, targets, trained, kept, entropy, normalizer = saved
  order = _order(trained, chunk)
  g_lp, g_entropy = (jnp.where(trained, g, 0) for g in cotangents)
  hidden, sets = _split(hidden, order, chunk), _sets(kept, order, chunk)
  parts = tuple(
    _split(x, order, chunk)
    for x in (targets, entropy, normalizer, g_lp, g_entropy)
  )
  own = not isinstance(table, Summed)
  if own:
    # The same code for both: here this gradient returns its own sum.
    total = jnp.zeros(table.shape, jnp.float32)
    table = Summed(table, jax.new_ref(total))
  tiles = -(-len(table.value) // tile)

  def step(i, d_hidden):
    h = _at(hidden, i)
    target, ent, log_z, g, g_ent = (_row(x, i) for x in parts)

    def add(j, d_h):
      part = _tile(table.value, j, tile)
      logp = _logits(h, part, logit_dtype, sets(i)) - log_z
      p = jnp.exp(logp)
      # d log p_y / d z_v = [v = y] - p_v;  d H / d z_v = - p_v (log p_v + H)
      is_target = (part.tokens == target) & part.new
      dz = g * (is_target - p) - g_ent * p * (logp + ent)
      dz = dz.astype(h.dtype)
      table.add_rows(
        part.start, jnp.matmul(dz, h, preferred_element_type=jnp.float32)
      )
      return d_h + jnp.matmul(
        in_order(dz.T), part.rows, preferred_element_type=jnp.float32
      )

    zeros = jnp.zeros(h.shape, jnp.float32)
    d_h = jax.lax.fori_loop(0, tiles, add, zeros)
    return _put(d_hidden, i, d_h.astype(h.dtype))

  d_hidden = jax.lax.fori_loop(0, order.chunks, step, jnp.zeros_like(hidden))
  d_table = jax.freeze(table.total).astype(table.value.dtype) if own else None
  return _join(d_hidden, order), d_table, None, None, None


_chunked.defvjp(_forward, _backward)
