"""A layer of the decoder: pre-norm attention, then a gated layer."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from r1jax.model import attention, kernels, lora
from r1jax.model.config import ModelConfig
from r1jax.model.facts import named
from r1jax.model.linear import PRODUCT, matmul
from r1jax.model.rope import rotate

ACTIVATIONS = {"silu": nn.silu, "gelu_tanh": nn.gelu}
# Before any position.
_ALL = -(1 << 30)
# Standard deviation 1/sqrt(fan-in): at a few hundred units of width the usual
# constant 0.02 would start far too small.
INIT = nn.initializers.variance_scaling(1.0, "fan_in", "normal")


class Near(flax.struct.PyTreeNode):
  """What layers with a window have in the place of what the others have.

  Attributes:
    cos, sin: [B, 1, T, D/2], the rotations of the positions.
    positions: [B, T] int32.
    window: tokens that a token sees.
  """

  cos: jax.Array
  sin: jax.Array
  positions: jax.Array
  window: int = flax.struct.field(pytree_node=False)


class Context(flax.struct.PyTreeNode):
  """What every layer of one forward pass shares.

  Attributes:
    cos: [B, 1, T, D/2], cosines of the rotations of the positions.
    sin: [B, 1, T, D/2], sines of the same.
    segments: [B, T] int32, see `types.Batch`.
    prefixes: [B, T] int32 or None, see `types.Batch`.
    near: the `Near`; None if no layer has a window.
    span: the `attention.Span` of the layer; None if no layer has a window.
    kept: tuple of `attention.Kept`, what the attention keeps.
    keep: whether the call returns the kept arrays.
  """

  cos: jax.Array
  sin: jax.Array
  segments: jax.Array
  prefixes: jax.Array | None
  kept: tuple = flax.struct.field(pytree_node=False)
  keep: bool = flax.struct.field(pytree_node=False, default=False)
  near: Near | None = None
  span: attention.Span | None = None

  def of_layer(self, windowed: jax.Array) -> "Context":
    """The context of one layer.

    Args:
      windowed: [] bool, whether it has a window.
    """
    near = self.near
    assert near is not None
    earliest = near.positions - near.window + 1
    return self.replace(
      cos=jnp.where(windowed, near.cos, self.cos),
      sin=jnp.where(windowed, near.sin, self.sin),
      span=attention.Span(near.positions, jnp.where(windowed, earliest, _ALL)),
    )

  def attend(self, q: jax.Array, arrays: Any) -> tuple[jax.Array, Any]:
    """Attends within the rows of this call.

    Args:
      q: [B, H, T, D] queries.
      arrays: name -> [B, K, ., .], what the attention keeps of the same tokens.

    Returns:
      [B, H, T, E], and `arrays` if they are kept, else None.
    """
    k, v = attention.keys_and_values(arrays, self.kept)
    out = kernels.attend(q, k, v, self.segments, self.prefixes, self.span)
    return out, arrays if self.keep else None


class RMSNorm(nn.Module):
  """x / rms(x) * scale, in float32 (Zhang and Sennrich 2019).

  With `gain_from_one` the parameter is scale - 1.

  Attributes:
    axis: name of the gain's only axis.
  """

  config: ModelConfig
  axis: str = "norm"

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    c, make = self.config, nn.initializers
    neutral = make.zeros if c.gain_from_one else make.ones
    init = named(neutral, (self.axis,), "gain")
    scale = self.param("scale", init, x.shape[-1:], c.param_dtype)
    y = x.astype(jnp.float32)
    y *= jax.lax.rsqrt(jnp.mean(y * y, axis=-1, keepdims=True) + c.rms_eps)
    scale = scale.astype(jnp.float32)
    if c.gain_from_one:
      scale += 1
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
  """A pre-norm layer: attention, then a gated layer. A stack scans it.

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
    if c.post_norms:
      self.attention_post_norm, self.mlp_post_norm = RMSNorm(c), RMSNorm(c)

  def __call__(
    self, x: jax.Array, context: Any, windowed: jax.Array | None = None
  ) -> tuple[jax.Array, Any]:
    """Applies the layer.

    Args:
      x: [B, T, d].
      context: a `Context`, or another object with its `cos`, `sin` and
        `attend`, which may also read the kept arrays of earlier calls.
      windowed: [] bool, whether this layer of several has a window; None if
        the context is the layer's own.

    Returns:
      [B, T, d], and the kept arrays that `attend` returns.
    """
    c = self.config
    if windowed is not None:
      context = context.of_layer(windowed)
    q, arrays = self._heads(self.attention_norm(x), context)
    out, arrays = context.attend(q, arrays)
    b, _, t, _ = out.shape
    y = self.o(out.transpose(0, 2, 1, 3).reshape(b, t, -1))
    x = x + (self.attention_post_norm(y) if c.post_norms else y)
    y = self.mlp_norm(x)
    y = self.down(ACTIVATIONS[c.activation](self.gate(y)) * self.up(y))
    return x + (self.mlp_post_norm(y) if c.post_norms else y), arrays

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
    if c.score_scale is not None:
      # Attention divides by the square root of head_dim.
      q *= jnp.asarray((c.head_dim / c.score_scale) ** 0.5, q.dtype)
    q = rotate(q, context.cos, context.sin)
    k = rotate(k, context.cos, context.sin)
    return q, {"k": k.swapaxes(2, 3), "v": v}
