"""Attention of queries on keys, and the masks that it takes."""

import jax
import jax.numpy as jnp

# Finite, so that a row that may attend to nothing (padding) yields the mean
# of the values and not NaN, which would poison the gradients of the rest.
MASKED = -1e30


def attend(q, parts):
  """Softmax attention over the concatenation of several key/value parts.

  The sampler keeps prompts and completions in two caches; the learner has a
  single part. The softmax is over all of them, in float32.

  Args:
    q: [B, H, T, D] queries.
    parts: tuples (k, v, mask): k [B, K, D, U], v [B, K, U, D] with K dividing
      H, each key head serving H / K consecutive query heads; mask [B, T, U]
      bool, True where a query may look. Keys come transposed because both
      products then run along memory, which halves a decoding step on CPU.

  Returns:
    [B, H, T, D] in the dtype of q.
  """
  b, h, t, d = q.shape
  kv = parts[0][1].shape[1]
  # One matrix product per key head: its H / K query heads stand as rows.
  q = q.reshape(b, kv, h // kv * t, d) * jnp.asarray(d**-0.5, q.dtype)
  scores = []
  for k, _, mask in parts:
    s = jnp.einsum("bkqd,bkdu->bkqu", q, k, preferred_element_type=jnp.float32)
    s = s.reshape(b, kv, h // kv, t, k.shape[3])
    scores.append(jnp.where(mask[:, None, None], s, MASKED))
  probs = jax.nn.softmax(jnp.concatenate(scores, axis=-1), axis=-1)
  out, start = 0.0, 0
  for _, v, _ in parts:
    u = v.shape[2]
    p = probs[..., start : start + u].reshape(b, kv, h // kv * t, u)
    out += jnp.einsum(
      "bkqu,bkud->bkqd",
      p.astype(v.dtype),
      v,
      preferred_element_type=jnp.float32,
    )
    start += u
  return out.reshape(b, h, t, d).astype(q.dtype)


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
