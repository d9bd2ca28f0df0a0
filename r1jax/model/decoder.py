"""The decoder: one Linen module for the policy, its references and students.

`model.apply({"params": p}, tokens)` gives logits. The learner and the sampler
call the methods below it, so that neither ever holds a [B, T, V] array.
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from r1jax.model import attention, kernels, lora
from r1jax.model.attention import ATTENTION
from r1jax.model.config import ModelConfig
from r1jax.model.facts import named
from r1jax.model.linear import PRODUCT, in_order, matmul
from r1jax.model.rope import rope_table, rotate
from r1jax.model.table import Summed, lookup, total_of

# Standard deviation 1/sqrt(fan-in): at a few hundred units of width the usual
# constant 0.02 would start far too small.
INIT = nn.initializers.variance_scaling(1.0, "fan_in", "normal")


class Context(flax.struct.PyTreeNode):
  """What every layer of one forward pass shares.

  Attributes:
    cos: [B, 1, T, D/2], cosines of the rotations of the positions.
    sin: [B, 1, T, D/2], sines of the same.
    segments: [B, T] int32, see `types.Batch`.
    prefixes: [B, T] int32 or None, see `types.Batch`.
    kept: tuple of `attention.Kept`, what the attention keeps.
    keep: whether the call returns the kept arrays.
  """

  cos: jax.Array
  sin: jax.Array
  segments: jax.Array
  prefixes: jax.Array | None
  kept: tuple = flax.struct.field(pytree_node=False)
  keep: bool = flax.struct.field(pytree_node=False, default=False)

  def attend(self, q: jax.Array, arrays: Any) -> tuple[jax.Array, Any]:
    """Attends within the rows of this call.

    Args:
      q: [B, H, T, D] queries.
      arrays: name -> [B, K, ., .], what the attention keeps of the same tokens.

    Returns:
      [B, H, T, E], and `arrays` if they are kept, else None.
    """
    k, v = attention.keys_and_values(arrays, self.kept)
    out = kernels.attend(q, k, v, self.segments, self.prefixes)
    return out, arrays if self.keep else None


class RMSNorm(nn.Module):
  """x / rms(x) * scale, in float32 (Zhang and Sennrich 2019).

  Attributes:
    axis: name of the gain's only axis.
  """

  config: ModelConfig
  axis: str = "norm"

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    ones = named(nn.initializers.ones, (self.axis,), "gain")
    scale = self.param("scale", ones, x.shape[-1:], self.config.param_dtype)
    y = x.astype(jnp.float32)
    y *= jax.lax.rsqrt(
      jnp.mean(y * y, axis=-1, keepdims=True) + self.config.rms_eps
    )
    scale = scale.astype(jnp.float32)
    return (y * scale.reshape((1,) * (x.ndim - 1) + scale.shape)).astype(
      x.dtype
    )


class Dense(nn.Module):
  """x W + bias, with adapters x W + bias + alpha / r x A B (`lora`).

  Adapters are used where the parameters have them. Without them the layer
  computes, and costs, what the plain model does.

  Attributes:
    features: o, the width of the output.
    axes: names of the kernel's axes [i, o].
    units: entries of each axis that stay on one device, see `Facts`.
    bias: whether a bias [o] is added.
    product: (activations [..., i], kernel [i, o]) -> [..., o].
  """

  config: ModelConfig
  features: int
  axes: tuple
  units: tuple = (1, 1)
  bias: bool = False
  product: Callable = matmul

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    c = self.config

    def param(name, init, shape, dtype=c.param_dtype):
      return self.param(name, init, shape, dtype).astype(c.compute_dtype)

    (axis_in, axis_out), (unit_in, unit_out) = self.axes, self.units
    zeros = nn.initializers.zeros
    x = x.astype(c.compute_dtype)
    kernel = named(INIT, self.axes, "matrix", self.units)
    y = self.product(x, param("kernel", kernel, (x.shape[-1], self.features)))
    if self.bias:
      init = named(zeros, (axis_out,), "bias", (unit_out,))
      bias = param("bias", init, (self.features,))
      y += bias.reshape((1,) * (y.ndim - 1) + (-1,))
    adapted = self.has_variable("params", "lora_a")
    if adapted or (c.lora_rank and self.is_initializing()):
      scale, rank = lora.scale(c), c.lora_rank
      # Adapters are small, so they are float32 whatever the kernel is. In
      # bfloat16 short steps would be lost.
      init = named(INIT, (axis_in, "rank"), "adapter", (unit_in, 1))
      a = param("lora_a", init, (x.shape[-1], rank), jnp.float32)
      init = named(zeros, ("rank", axis_out), "adapter", (1, unit_out))
      b = param("lora_b", init, (rank, self.features), jnp.float32)
      y += self.product(scale * self.product(x, a), b)
      # The backward pass needs only the sum, so rematerialization keeps that.
      y = checkpoint_name(y, PRODUCT)
    return y


class Layer(nn.Module):
  """A pre-norm layer: attention, then SwiGLU. A stack scans it.

  Attributes:
    product: (activations [..., i], kernel [i, o]) -> [..., o].
  """

  config: ModelConfig
  product: Callable = matmul

  def setup(self) -> None:
    c = self.config

    def dense(features, *axes, units=(1, 1), bias=False):
      return Dense(c, features, axes, units, bias, self.product)

    def project(heads, axis):
      return dense(
        heads * c.head_dim, "embed", axis, units=(1, c.head_dim),
        bias=c.qkv_bias,
      )  # fmt: skip

    self.attention_norm = RMSNorm(c)
    self.q = project(c.n_heads, "heads")
    self.k = project(c.n_kv_heads, "kv_heads")
    self.v = project(c.n_kv_heads, "kv_heads")
    self.o = dense(c.d_model, "heads", "embed", units=(c.head_dim, 1))
    if c.qk_norm:
      self.q_norm, self.k_norm = RMSNorm(c, "head_dim"), RMSNorm(c, "head_dim")
    self.mlp_norm = RMSNorm(c)
    self.gate = dense(c.d_ff, "embed", "mlp")
    self.up = dense(c.d_ff, "embed", "mlp")
    self.down = dense(c.d_model, "mlp", "embed")

  def __call__(self, x: jax.Array, context: Any) -> tuple[jax.Array, Any]:
    """Applies the layer.

    Args:
      x: [B, T, d].
      context: a `Context`, or another object with its `cos`, `sin` and
        `attend`, which may also read the kept arrays of earlier calls.

    Returns:
      [B, T, d], and the kept arrays that `attend` returns.
    """
    q, arrays = self._heads(self.attention_norm(x), context)
    out, arrays = context.attend(q, arrays)
    b, _, t, _ = out.shape
    x = x + self.o(out.transpose(0, 2, 1, 3).reshape(b, t, -1))
    y = self.mlp_norm(x)
    return x + self.down(nn.silu(self.gate(y)) * self.up(y)), arrays

  def _heads(self, x, context):
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
    return q, {"k": k.swapaxes(2, 3), "v": v}


class Embed(nn.Embed):
  """Flax's embedding; `table.summing` accumulates its gradient in place."""

  def __call__(self, tokens: jax.Array) -> jax.Array:
    """Looks up tokens [...] int32; returns [..., d]."""
    return lookup(self.embedding, tokens).astype(self.dtype)


class Decoder(nn.Module):
  """Token embedding, stacks of layers, final norm, head."""

  config: ModelConfig

  def setup(self) -> None:
    c = self.config
    self.embed = Embed(
      c.vocab_size,
      c.d_model,
      dtype=c.compute_dtype,
      param_dtype=c.param_dtype,
      embedding_init=named(
        nn.initializers.normal(c.d_model**-0.5), ("vocab", "embed"), "table"
      ),
    )
    self.stacks = [_scanned(c, stack) for stack in c.stacks]
    self.norm = RMSNorm(c)
    if not c.tied:
      self.head = nn.Dense(
        c.vocab_size,
        use_bias=False,
        dtype=c.compute_dtype,
        param_dtype=c.param_dtype,
        kernel_init=named(INIT, ("embed", "vocab"), "table"),
      )

  def __call__(
    self,
    tokens: jax.Array,
    positions: jax.Array | None = None,
    segments: jax.Array | None = None,
  ) -> jax.Array:
    """Logits of the next token.

    Args:
      tokens: [B, T] int32.
      positions: [B, T] int32, default 0, 1, ... along each row.
      segments: [B, T] int32, 0 for padding; default one segment a row.

    Returns:
      [B, T, V] in `logit_dtype`. The learner does not need this large array;
      it calls `r1jax.training.policy.logprobs`.
    """
    return self.logits(self.hidden(tokens, positions, segments))

  def hidden(
    self,
    tokens: jax.Array,
    positions: jax.Array | None = None,
    segments: jax.Array | None = None,
    prefixes: jax.Array | None = None,
  ) -> jax.Array:
    """Final hidden states [B, T, d].

    Args:
      tokens: [B, T] int32.
      positions: [B, T] int32; default 0, 1, ... along each row.
      segments: [B, T] int32, 0 for padding; default one segment a row.
      prefixes: [B, T] int32 or None, see `types.Batch`.
    """
    return self._forward(tokens, positions, segments, prefixes)[0]

  def prefill(
    self, tokens: jax.Array, positions: jax.Array, segments: jax.Array
  ) -> tuple[jax.Array, Any]:
    """Final hidden states [B, T, d], and what the attention keeps.

    Args:
      tokens: [B, T] int32.
      positions: [B, T] int32.
      segments: [B, T] int32, 0 for padding.

    Returns:
      hidden states; name -> [L, B, *`attention.Kept.shape`(T)].
    """
    return self._forward(tokens, positions, segments, keep=True)

  def _forward(self, tokens, positions, segments, prefixes=None, keep=False):
    if positions is None:
      positions = jnp.broadcast_to(jnp.arange(tokens.shape[1]), tokens.shape)
    if segments is None:
      segments = jnp.ones_like(tokens)
    c = self.config
    table = rope_table(positions, c.head_dim, c.rope_theta, c.rope_scaling)
    context = Context(*table, segments, prefixes, attention.kept(c), keep)
    x, kept = self.embed(tokens), []
    for stack in self.stacks:
      x, arrays = stack(x, context)
      kept.append(arrays)
    if len(kept) > 1:
      kept = [jax.tree.map(lambda *x: jnp.concatenate(x), *kept)]
    return self.norm(x), kept[0]

  def logits(self, hidden: jax.Array) -> jax.Array:
    """Logits [..., V] in `logit_dtype` of hidden states [..., d]."""
    y = self.embed.attend(hidden) if self.config.tied else self.head(hidden)
    return y.astype(self.config.logit_dtype)


def _scanned(config, stack):
  """The module of a `Stack`: a loop of its layer over stacked parameters."""
  layer = Layer
  if config.remat != "none":
    policies = jax.checkpoint_policies
    policy = policies.nothing_saveable
    if config.remat == "products":
      policy = policies.save_from_both_policies(
        policies.save_only_these_names(PRODUCT, ATTENTION), kernels.of_cudnn
      )
    # Common subexpressions cannot be merged across the body of a scan anyway.
    layer = nn.remat(Layer, prevent_cse=False, policy=policy)
  return nn.scan(
    layer,
    variable_axes={"params": 0},
    split_rngs={"params": True},
    in_axes=nn.broadcast,
    length=stack.length,
    metadata_params={nn.PARTITION_NAME: "layer"},
  )(config, name=stack.name)


def embedding(params: Any) -> Any:
  """The parameter [V, d] with the row of each token that layers start from."""
  return params["embed"]["embedding"]


def final_norm(params: Any) -> Any:
  """The parameters of the norm after the last layer, a dict."""
  return params["norm"]


def head(params: Any, config: ModelConfig) -> Any:
  """The parameter that gives logits: [V, d] if tied, else [d, V]."""
  return embedding(params) if config.tied else params["head"]["kernel"]


def unembedding(params: Any, config: ModelConfig) -> Any:
  """The head as a table [V, d] in `compute_dtype`, a row for each token.

  Its product with hidden states are the logits.
  """
  table = head(params, config)
  rows = table if config.tied else in_order(table.T)
  return rows.astype(config.compute_dtype)


def summed_unembedding(params: Any, config: ModelConfig) -> Any:
  """`unembedding`; inside `table.summing`, as a `Summed` table."""
  rows = unembedding(params, config)
  total = total_of(head(params, config))
  return rows if total is None else Summed(rows, total, not config.tied)
