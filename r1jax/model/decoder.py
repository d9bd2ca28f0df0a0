"""The decoder: one Linen module for the policy, its references and students.

`model.apply({"params": p}, tokens)` gives logits. The learner and the sampler
call the methods below it, so that neither ever holds a [B, T, V] array.
"""

from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp

from r1jax.model.attention import attend, causal_mask
from r1jax.model.config import ModelConfig
from r1jax.model.linear import dot_general
from r1jax.model.rope import rope_table, rotate

# Standard deviation 1/sqrt(fan-in): at a few hundred units of width the usual
# constant 0.02 would start far too small.
INIT = nn.initializers.variance_scaling(1.0, "fan_in", "normal")


class Context(flax.struct.PyTreeNode):
  """What every layer of one forward pass shares.

  Attributes:
    cos, sin: [B, 1, T, D/2], the rotations of the queries' positions.
    mask: [B, T, T] bool over the tokens of this call, without a cache.
    prompt_mask: [B, 1, P] bool, prompt_rows: [B] int32: which rows of the
      prompts' cache the queries read, and which of its columns.
    ring_mask: [B, 1, R] bool, column: [] int32: the columns of the ring that
      the queries may read, and where this call writes.
    keep_kv: whether the call returns its keys and values.
  """

  cos: jax.Array
  sin: jax.Array
  mask: Any = None
  prompt_mask: Any = None
  prompt_rows: Any = None
  ring_mask: Any = None
  column: Any = None
  keep_kv: bool = flax.struct.field(pytree_node=False, default=False)


class Cache(flax.struct.PyTreeNode):
  """Keys and values of a rollout, every layer's.

  Attributes:
    prompt_k [L, N, K, D, P], prompt_v [L, N, K, P, D]: each prompt once.
    ring_k [L, S, K, D, R], ring_v [L, S, K, R, D]: a ring in time. At
      decoding step g every slot writes column g mod R, wherever it is in its
      own completion, so a step is one update of a slice and never a scatter;
      what a slot may read is the mask's business.
  """

  prompt_k: jax.Array
  prompt_v: jax.Array
  ring_k: jax.Array
  ring_v: jax.Array


class RMSNorm(nn.Module):
  """x / rms(x) * scale, in float32 (Zhang and Sennrich 2019)."""

  config: ModelConfig

  @nn.compact
  def __call__(self, x):
    scale = self.param(
      "scale", nn.initializers.ones, x.shape[-1:], self.config.param_dtype
    )
    y = x.astype(jnp.float32)
    y *= jax.lax.rsqrt(
      jnp.mean(y * y, axis=-1, keepdims=True) + self.config.rms_eps
    )
    scale = scale.astype(jnp.float32)
    return (y * scale.reshape((1,) * (x.ndim - 1) + scale.shape)).astype(
      x.dtype
    )


class Block(nn.Module):
  """A pre-norm layer: attention, then SwiGLU. Scanned over L."""

  config: ModelConfig

  def setup(self):
    c = self.config

    def dense(features, bias=False):
      return nn.Dense(
        features,
        use_bias=bias,
        dtype=c.compute_dtype,
        param_dtype=c.param_dtype,
        kernel_init=INIT,
        dot_general=dot_general,
      )

    self.attention_norm = RMSNorm(c)
    self.q = dense(c.n_heads * c.head_dim, c.qkv_bias)
    self.k = dense(c.n_kv_heads * c.head_dim, c.qkv_bias)
    self.v = dense(c.n_kv_heads * c.head_dim, c.qkv_bias)
    self.o = dense(c.d_model)
    if c.qk_norm:
      self.q_norm, self.k_norm = RMSNorm(c), RMSNorm(c)
    self.mlp_norm = RMSNorm(c)
    self.gate, self.up = dense(c.d_ff), dense(c.d_ff)
    self.down = dense(c.d_model)

  def __call__(self, carry, layer, context):
    """One layer on x [B, T, d]; `carry` is (x, cache or None)."""
    x, cache = carry
    attended, cache, kv = self._attention(
      self.attention_norm(x), cache, layer, context
    )
    x = x + self.o(attended)
    y = self.mlp_norm(x)
    x = x + self.down(nn.silu(self.gate(y)) * self.up(y))
    return (x, cache), kv

  def _attention(self, x, cache, layer, context):
    c = self.config
    b, t, _ = x.shape

    def heads(y, n):
      return y.reshape(b, t, n, c.head_dim).transpose(0, 2, 1, 3)

    q = heads(self.q(x), c.n_heads)
    k = heads(self.k(x), c.n_kv_heads)
    v = heads(self.v(x), c.n_kv_heads)
    if c.qk_norm:
      q, k = self.q_norm(q), self.k_norm(k)
    q = rotate(q, context.cos, context.sin)
    k = rotate(k, context.cos, context.sin)
    k = k.swapaxes(2, 3)
    if cache is None:
      parts = ((k, v, context.mask),)
    else:
      cache = _write(cache, layer, context.column, k, v)
      rows = context.prompt_rows
      parts = (
        (cache.prompt_k[layer, rows], cache.prompt_v[layer, rows],
         context.prompt_mask),
        (cache.ring_k[layer], cache.ring_v[layer], context.ring_mask),
      )  # fmt: skip
    out = attend(q, parts).transpose(0, 2, 1, 3).reshape(b, t, -1)
    return out, cache, (k, v) if context.keep_kv else None


def _write(cache, layer, column, k, v):
  """Puts k [S, K, D, 1], v [S, K, 1, D] in a column of a ring, in place."""
  return cache.replace(
    ring_k=jax.lax.dynamic_update_slice(
      cache.ring_k,
      k[None].astype(cache.ring_k.dtype),
      (layer, 0, 0, 0, column),
    ),
    ring_v=jax.lax.dynamic_update_slice(
      cache.ring_v,
      v[None].astype(cache.ring_v.dtype),
      (layer, 0, 0, column, 0),
    ),
  )


class Decoder(nn.Module):
  """Token embedding, L blocks, final norm, head."""

  config: ModelConfig

  def setup(self):
    c = self.config
    self.embed = nn.Embed(
      c.vocab_size,
      c.d_model,
      dtype=c.compute_dtype,
      param_dtype=c.param_dtype,
      embedding_init=nn.initializers.normal(c.d_model**-0.5),
    )
    block = Block
    if c.remat == "block":
      # prevent_cse guards against a merge that a scan's body cannot suffer.
      block = nn.remat(Block, prevent_cse=False)
    self.layers = nn.scan(
      block,
      variable_axes={"params": 0},
      split_rngs={"params": True},
      in_axes=(0, nn.broadcast),
      length=c.n_layers,
    )(c)
    self.norm = RMSNorm(c)
    if not c.tied:
      self.head = nn.Dense(
        c.vocab_size,
        use_bias=False,
        dtype=c.compute_dtype,
        param_dtype=c.param_dtype,
        kernel_init=INIT,
      )

  def __call__(self, tokens, positions=None, segments=None):
    """Logits of the next token.

    Args:
      tokens: [B, T] int32.
      positions: [B, T] int32, default 0, 1, ... along each row.
      segments: [B, T] int32, 0 for padding; default one segment a row.

    Returns:
      [B, T, V] in `logit_dtype`. Whole: for small inputs and for tests; the
      learner calls `r1jax.policy.logprobs`.
    """
    return self.logits(self.hidden(tokens, positions, segments))

  def hidden(self, tokens, positions=None, segments=None, prefixes=None):
    """Final hidden states [B, T, d].

    Args:
      tokens, positions, segments: as of `__call__`.
      prefixes: [B, T] int32 or None, as in `types.Batch`.
    """
    return self._forward(tokens, positions, segments, prefixes)[0]

  def prefill(self, tokens, positions, segments):
    """Hidden states; keys [L, B, K, D, T] and values [L, B, K, T, D]."""
    return self._forward(tokens, positions, segments, keep_kv=True)

  def _forward(self, tokens, positions, segments, prefixes=None, keep_kv=False):
    if positions is None:
      positions = jnp.broadcast_to(jnp.arange(tokens.shape[1]), tokens.shape)
    if segments is None:
      segments = jnp.ones_like(tokens)
    context = Context(
      *self._rope(positions),
      mask=causal_mask(segments, prefixes),
      keep_kv=keep_kv,
    )
    x, _, kv = self._layers(tokens, None, context)
    return x, kv

  def decode(self, tokens, positions, cache, rows, prompt_mask, ring_mask, at):
    """One token for each of S slots.

    Args:
      tokens, positions: [S] int32.
      cache: a `Cache`, with R columns of ring.
      rows: [S] int32, each slot's prompt.
      prompt_mask: [S, P] bool, ring_mask: [S, R] bool: what may be read.
      at: [] int32, the ring's column to write (and allowed by the mask).

    Returns:
      hidden [S, d] and the cache.
    """
    context = Context(
      *self._rope(positions[:, None]),
      prompt_mask=prompt_mask[:, None],
      prompt_rows=rows,
      ring_mask=ring_mask[:, None],
      column=at,
    )
    x, cache, _ = self._layers(tokens[:, None], cache, context)
    return x[:, 0], cache

  def logits(self, hidden):
    """[..., d] -> [..., V] in `logit_dtype`."""
    y = self.embed.attend(hidden) if self.config.tied else self.head(hidden)
    return y.astype(self.config.logit_dtype)

  def _layers(self, tokens, cache, context):
    x = self.embed(tokens)
    layers = jnp.arange(self.config.n_layers)
    (x, cache), kv = self.layers((x, cache), layers, context)
    return self.norm(x), cache, kv

  def _rope(self, positions):
    c = self.config
    return rope_table(positions, c.head_dim, c.rope_theta, c.rope_scaling)


def head_matrix(params, config):
  """The [d, V] matrix from final hidden states to logits."""
  if config.tied:
    return params["embed"]["embedding"].T
  return params["head"]["kernel"]


def init(config, key):
  """Random parameters, a nested dict, layers stacked on the first axis."""
  return Decoder(config).init(key, jnp.zeros((1, 2), jnp.int32))["params"]


def param_count(params):
  """How many numbers a tree of arrays holds."""
  return sum(x.size for x in jax.tree.leaves(params))
