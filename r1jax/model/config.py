"""The shape of a decoder."""

import dataclasses

import jax.numpy as jnp

from r1jax.errors import UserError
from r1jax.model.rope import RopeScaling

REMATS = ("none", "products", "block")


@dataclasses.dataclass(frozen=True)
class ModelConfig:
  """Everything that decides a decoder's parameters and arithmetic.

  Frozen and hashable: it is a static argument of every jitted function.

  Attributes:
    vocab_size: V.
    d_model: width of the residual stream.
    n_layers, n_heads, n_kv_heads: L, H, K; K divides H.
    head_dim: D; never inferred as d_model / n_heads (Qwen3 differs).
    d_ff: hidden width of the SwiGLU block.
    max_length: positions that the model may see, in tokens.
    rope_theta: base of the rotary frequencies.
    rope_scaling: a `RopeScaling`, a mapping of its fields, or None.
    rms_eps: epsilon of every RMSNorm.
    tied: whether the head is the embedding, transposed.
    qkv_bias: biases on the q, k and v projections (Qwen2).
    qk_norm: RMSNorm over D on q and k, before RoPE (Qwen3).
    param_dtype, compute_dtype, logit_dtype: names of numpy dtypes.
    remat: what of each layer is kept for the backward pass, one of `REMATS`:
      "none" computes nothing again; "products" keeps what matrix products and
      the attention give, and computes norms and the like again; "block" keeps
      the layer's input only.
    lora_rank: r of the adapters on all seven projections of the layers, which
      are float32 and alone are trained (`lora`); 0 for none.
    lora_alpha: what adapters add is scaled by alpha / r.
  """

  vocab_size: int
  d_model: int
  n_layers: int
  n_heads: int
  n_kv_heads: int
  head_dim: int
  d_ff: int
  max_length: int
  rope_theta: float = 10_000.0
  rope_scaling: RopeScaling | None = None
  rms_eps: float = 1e-6
  tied: bool = True
  qkv_bias: bool = False
  qk_norm: bool = False
  param_dtype: str = "float32"
  compute_dtype: str = "float32"
  logit_dtype: str = "float32"
  remat: str = "none"
  lora_rank: int = 0
  lora_alpha: float = 32.0

  def __post_init__(self):
    if not isinstance(self.rope_scaling, RopeScaling | None):
      try:
        scaling = RopeScaling(**dict(self.rope_scaling))
      except TypeError as e:
        raise UserError(f"model: rope_scaling: {e}") from None
      object.__setattr__(self, "rope_scaling", scaling)
    if self.n_heads % self.n_kv_heads:
      raise UserError(
        f"model: n_kv_heads={self.n_kv_heads} must divide"
        f" n_heads={self.n_heads}"
      )
    if self.head_dim % 2:
      raise UserError(
        f"model: head_dim={self.head_dim} must be even, for RoPE pairs"
      )
    if self.remat not in REMATS:
      raise UserError(
        f'model: remat="{self.remat}" is unknown; known: {", ".join(REMATS)}'
      )
    if not isinstance(self.lora_rank, int) or self.lora_rank < 0:
      raise UserError(
        f"model: lora_rank={self.lora_rank} must be a whole number, 0 for no"
        " adapters or more"
      )
    if not self.lora_alpha > 0:
      raise UserError(f"model: lora_alpha={self.lora_alpha} must be above 0")
    for name in ("param_dtype", "compute_dtype", "logit_dtype"):
      try:
        jnp.dtype(getattr(self, name))
      except TypeError as e:
        raise UserError(f"model: {name}: {e}") from None

  def without_adapters(self):
    """The same model before adapters were added to it."""
    return dataclasses.replace(
      self, lora_rank=0, lora_alpha=ModelConfig.lora_alpha
    )
