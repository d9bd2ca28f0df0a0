"""The one seam between a model and the losses: log pi of given tokens.

The logits of a batch, [B, T, V], are never held: the head is applied to a
chunk of positions at a time, forward and backward.
"""

import functools

import jax
import jax.numpy as jnp

from r1jax.model import Decoder, head_matrix
from r1jax.model.linear import token_sum

# Logits held at once, in numbers: 2^22 float32 are 16 MiB.
CHUNK_LOGITS = 1 << 22


def logprobs(
  config,
  params,
  tokens,
  positions,
  segments,
  targets,
  *,
  prefixes=None,
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
    temperature: divides the logits, as in the sampler.
    chunk: positions of a row whose logits exist at a time; default, as many
      as fit `CHUNK_LOGITS` numbers.

  Returns:
    logprobs [B, T], entropy [B, T] in nats, both float32; both carry
    gradients. Padding gets finite values without meaning.
  """
  hidden = Decoder(config).apply(
    {"params": params}, tokens, positions, segments, prefixes, method="hidden"
  )
  head = head_matrix(params, config).astype(config.compute_dtype)
  hidden = (hidden / temperature).astype(config.compute_dtype)
  if chunk is None:
    chunk = max(1, CHUNK_LOGITS // (hidden.shape[0] * config.vocab_size))
  return head_logprobs(
    hidden, head, targets, min(chunk, hidden.shape[1]), config.logit_dtype
  )


def head_logprobs(hidden, head, targets, chunk, logit_dtype="float32"):
  """`logprobs`, from final hidden states on.

  Args:
    hidden: [B, T, d]. head: [d, V]. targets: [B, T] int32.
    chunk: positions a step; T need not be a multiple of it.
    logit_dtype: logits are rounded to it before the float32 softmax.

  Returns:
    logprobs, entropy: [B, T] float32.
  """
  t = targets.shape[1]
  padding = -t % chunk
  if padding:
    hidden = jnp.pad(hidden, ((0, 0), (0, padding), (0, 0)))
    targets = jnp.pad(targets, ((0, 0), (0, padding)))
  lp, entropy = _chunked(hidden, head, targets, chunk, logit_dtype)
  return lp[:, :t], entropy[:, :t]


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def _chunked(hidden, head, targets, chunk, logit_dtype):
  return _forward(hidden, head, targets, chunk, logit_dtype)[0]


def _logits(h, head, dtype):
  out = jnp.einsum("btd,dv->btv", h, head, preferred_element_type=jnp.float32)
  return out.astype(dtype).astype(jnp.float32)


def _split(x, chunk):
  """[B, T, ...] -> [T / chunk, B, chunk, ...], rows staying where they are."""
  b, t = x.shape[:2]
  return jnp.moveaxis(x.reshape(b, t // chunk, chunk, *x.shape[2:]), 1, 0)


def _join(x):
  """The inverse of `_split`."""
  n, b, chunk = x.shape[:3]
  return jnp.moveaxis(x, 0, 1).reshape(b, n * chunk, *x.shape[3:])


def _forward(hidden, head, targets, chunk, logit_dtype):
  def step(_, x):
    h, target = x
    logits = _logits(h, head, logit_dtype)
    normalizer = jax.nn.logsumexp(logits, axis=-1)
    picked = jnp.take_along_axis(logits, target[..., None], axis=-1)[..., 0]
    # H = log Z - sum_v p_v z_v
    p = jnp.exp(logits - normalizer[..., None])
    entropy = normalizer - (p * logits).sum(-1)
    return None, (picked - normalizer, entropy, normalizer)

  parts = (_split(hidden, chunk), _split(targets, chunk))
  _, out = jax.lax.scan(step, None, parts)
  lp, entropy, normalizer = map(_join, out)
  return (lp, entropy), (hidden, head, targets, entropy, normalizer)


def _backward(chunk, logit_dtype, saved, cotangents):
  hidden, head, targets, entropy, normalizer = saved
  g_lp, g_entropy = cotangents

  def step(d_head, x):
    h, target, ent, log_z, g, g_ent = x
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
    return d_head, d_h

  parts = (hidden, targets, entropy, normalizer, g_lp, g_entropy)
  d_head, d_hidden = jax.lax.scan(
    step,
    jnp.zeros(head.shape, jnp.float32),
    tuple(_split(x, chunk) for x in parts),
  )
  return _join(d_hidden), d_head.astype(head.dtype), None


_chunked.defvjp(_forward, _backward)
