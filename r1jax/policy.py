"""The one seam between a model and the losses: log pi of given tokens.

The logits of a batch, [B, T, V], are never held: the head is applied to a
chunk of positions at a time, forward and backward.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from r1jax.model import Decoder, head_matrix
from r1jax.model.linear import token_sum

# Logits held at once, in numbers: 2^23 float32 are 32 MiB.
CHUNK_LOGITS = 1 << 23


def logprobs(
  config,
  params,
  tokens,
  positions,
  segments,
  targets,
  *,
  prefixes=None,
  trained=None,
  temperature=1.0,
  chunk=None,
):
  """Log-probabilities of targets and entropies of their distributions.

  Args:
    config: the `ModelConfig`.
    params: its parameters.
    tokens, positions, segments: [B, T] int32, as in `types.Batch`.
    targets: [B, T] int32; entry t is scored given tokens up to t.
    prefixes: [B, T] int32 as in `types.Batch`, or None.
    trained: [B, T] bool, where the results are wanted; None for everywhere.
      The others, prompts and padding, are left out before the head.
    temperature: divides the logits, as in the sampler.
    chunk: positions of a row whose logits exist at a time; default, as many
      as fit `CHUNK_LOGITS` numbers.

  Returns:
    logprobs [B, T], entropy [B, T] in nats, both float32; both carry
    gradients, and are 0 where nothing is trained. Padding gets finite values
    without meaning.
  """
  hidden = Decoder(config).apply(
    {"params": params}, tokens, positions, segments, prefixes, method="hidden"
  )
  head = head_matrix(params, config).astype(config.compute_dtype)
  hidden = (hidden / temperature).astype(config.compute_dtype)
  if chunk is None:
    chunk = max(1, CHUNK_LOGITS // (hidden.shape[0] * config.vocab_size))
  return head_logprobs(
    hidden, head, targets, min(chunk, hidden.shape[1]), config.logit_dtype,
    trained,
  )  # fmt: skip


def head_logprobs(
  hidden, head, targets, chunk, logit_dtype="float32", trained=None
):
  """`logprobs`, from final hidden states on.

  Args:
    hidden: [B, T, d]. head: [d, V]. targets: [B, T] int32.
    chunk: positions a step; T need not be a multiple of it.
    trained: [B, T] bool or None, as of `logprobs`.
    logit_dtype: logits are rounded to it before the float32 softmax.

  Returns:
    logprobs, entropy: [B, T] float32.
  """
  if trained is None:
    trained = jnp.ones(targets.shape, bool)
  t = targets.shape[1]
  padding = -t % chunk
  if padding:
    hidden = jnp.pad(hidden, ((0, 0), (0, padding), (0, 0)))
    targets = jnp.pad(targets, ((0, 0), (0, padding)))
    trained = jnp.pad(trained, ((0, 0), (0, padding)))
  lp, entropy = _chunked(hidden, head, targets, trained, chunk, logit_dtype)
  return lp[:, :t], entropy[:, :t]


@functools.partial(jax.custom_vjp, nondiff_argnums=(4, 5))
def _chunked(hidden, head, targets, trained, chunk, logit_dtype):
  return _forward(hidden, head, targets, trained, chunk, logit_dtype)[0]


class _Order(NamedTuple):
  """Positions of a row, the trained ones first.

  Attributes:
    first: [B, T] int32, the position that stands at each place. back: [B, T]
      int32, the place of each position. chunks: [] int32, chunks that hold
      anything trained.
  """

  first: jax.Array
  back: jax.Array
  chunks: jax.Array


def _order(trained, chunk):
  first = jnp.argsort(~trained, axis=1, stable=True)
  most = trained.sum(axis=1).max()
  return _Order(first, jnp.argsort(first, axis=1), -(-most // chunk))


def _logits(h, head, dtype):
  out = jnp.einsum("btd,dv->btv", h, head, preferred_element_type=jnp.float32)
  return out.astype(dtype).astype(jnp.float32)


def _split(x, order, chunk):
  """[B, T, ...] -> [T / chunk, B, chunk, ...], in the order of `order`."""
  b, t = x.shape[:2]
  index = order.first.reshape(b, t, *(1,) * (x.ndim - 2))
  x = jnp.take_along_axis(x, index, axis=1)
  return jnp.moveaxis(x.reshape(b, t // chunk, chunk, *x.shape[2:]), 1, 0)


def _join(x, order):
  """The inverse of `_split`."""
  n, b, chunk = x.shape[:3]
  x = jnp.moveaxis(x, 0, 1).reshape(b, n * chunk, *x.shape[3:])
  index = order.back.reshape(b, n * chunk, *(1,) * (x.ndim - 2))
  return jnp.take_along_axis(x, index, axis=1)


def _at(x, i):
  return jax.lax.dynamic_index_in_dim(x, i, 0, False)


def _put(x, i, y):
  return jax.lax.dynamic_update_index_in_dim(x, y, i, 0)


def _forward(hidden, head, targets, trained, chunk, logit_dtype):
  order = _order(trained, chunk)

  parts = (_split(hidden, order, chunk), _split(targets, order, chunk))

  def step(i, out):
    h, target = (_at(x, i) for x in parts)
    logits = _logits(h, head, logit_dtype)
    normalizer = jax.nn.logsumexp(logits, axis=-1)
    picked = jnp.take_along_axis(logits, target[..., None], axis=-1)[..., 0]
    # H = log Z - sum_v p_v z_v
    p = jnp.exp(logits - normalizer[..., None])
    entropy = normalizer - (p * logits).sum(-1)
    new = (picked - normalizer, entropy, normalizer)
    return tuple(_put(x, i, y) for x, y in zip(out, new))

  blank = jnp.zeros(parts[1].shape, jnp.float32)
  out = jax.lax.fori_loop(0, order.chunks, step, (blank,) * 3)
  lp, entropy, normalizer = (_join(x, order) for x in out)
  saved = (hidden, head, targets, trained, entropy, normalizer)
  lp, entropy = (jnp.where(trained, x, 0) for x in (lp, entropy))
  return (lp, entropy), saved


def _backward(chunk, logit_dtype, saved, cotangents):
  hidden, head, targets, trained, entropy, normalizer = saved
  order = _order(trained, chunk)
  g_lp, g_entropy = (jnp.where(trained, g, 0) for g in cotangents)
  parts = tuple(
    _split(x, order, chunk)
    for x in (hidden, targets, entropy, normalizer, g_lp, g_entropy)
  )

  def step(i, sums):
    d_head, d_hidden = sums
    h, target, ent, log_z, g, g_ent = (_at(x, i) for x in parts)
    logits = _logits(h, head, logit_dtype)
    logp = logits - log_z[..., None]
    p = jnp.exp(logp)
    # d log p_y / d z_v = [v = y] - p_v;  d H / d z_v = - p_v (log p_v + H)
    is_target = jnp.arange(head.shape[1])[None, None] == target[..., None]
    dz = g[..., None] * (is_target - p)
    dz -= g_ent[..., None] * p * (logp + ent[..., None])
    dz = dz.astype(h.dtype)
    d_h = jnp.einsum("btv,dv->btd", dz, head)
    d_head += token_sum(h, dz, jnp.float32)
    return d_head, _put(d_hidden, i, d_h)

  zeros = (jnp.zeros(head.shape, jnp.float32), jnp.zeros_like(parts[0]))
  d_head, d_hidden = jax.lax.fori_loop(0, order.chunks, step, zeros)
  return _join(d_hidden, order), d_head.astype(head.dtype), None, None


_chunked.defvjp(_forward, _backward)
