"""The shape of a decoder."""

import dataclasses
import typing
from typing import Literal

from r1jax import checks
from r1jax import config as config_lib
from r1jax.errors import UserError
from r1jax.model.rope import RopeScaling

Dtype = Literal["float32", "bfloat16", "float16"]
Remat = Literal["none", "products", "layer"]
Activation = Literal["silu", "gelu_tanh"]
REMATS = typing.get_args(Remat)


@dataclasses.dataclass(frozen=True)
class Stack:
  """Layers of one kind that follow each other; their parameters are stacked.

  Attributes:
    name: of their entry in the parameters.
    length: how many layers there are.
  """

  name: str
  length: int


@dataclasses.dataclass(frozen=True)
class ModelConfig:
  """Everything that decides a decoder's parameters and arithmetic.

  Frozen and hashable: it is a static argument of every jitted function.

  Raises:
    UserError: a value is of a wrong type or out of range; names the field.
  """

  # V, tokens of the vocabulary.
  vocab_size: int
  # Width of the residual stream.
  d_model: int
  # L, layers.
  n_layers: int
  # H, query heads.
  n_heads: int
  # K, key and value heads; K divides H.
  n_kv_heads: int
  # D, dimensions of a head; in some models (Qwen3) not d_model / n_heads.
  head_dim: int
  # Hidden width of the gated layer.
  d_ff: int
  # Positions that the model may see, in tokens.
  max_length: int
  # Base of the rotary frequencies.
  rope_theta: float = 10_000.0
  # How the rotary frequencies are stretched for a longer context, or None.
  rope_scaling: RopeScaling | None = None
  # Epsilon of every RMSNorm.
  rms_eps: float = 1e-6
  # Whether the head is the embedding, transposed.
  tied: bool = True
  # Whether the q, k and v projections have biases (Qwen2).
  qkv_bias: bool = False
  # Whether q and k get an RMSNorm over D before RoPE (Qwen3).
  qk_norm: bool = False
  # Activation of the gated layer; SwiGLU has "silu", GeGLU "gelu_tanh".
  activation: Activation = "silu"
  # Whether norms multiply by 1 + gain (Gemma).
  gain_from_one: bool = False
  # Whether the results of attention and of the gated layer get an RMSNorm too
  # (Gemma 3).
  post_norms: bool = False
  # Whether embeddings are multiplied by the square root of d_model (Gemma).
  scaled_embedding: bool = False
  # Scores are divided by the square root of this; None: of head_dim.
  score_scale: float | None = None
  # Tokens that a token sees in a layer with a window, itself included. None: no
  # layer has one.
  window: int | None = None
  # Of so many layers the last one has no window.
  window_period: int = 6
  # Base of the rotary frequencies of layers with a window, which `rope_scaling`
  # does not stretch.
  window_theta: float = 10_000.0
  # Dtype in which parameters are kept.
  param_dtype: Dtype = "float32"
  # Dtype of matrix products and activations.
  compute_dtype: Dtype = "float32"
  # Dtype to which logits are rounded before the softmax, which is float32.
  logit_dtype: Dtype = "float32"
  # What each layer keeps for the backward pass. "none" keeps everything.
  # "products" keeps the results of matrix products and of attention, and
  # recomputes the rest. "layer" keeps only the layer's input.
  remat: Remat = "none"
  # Rank r of the adapters on all projections of the layers; 0: no adapters.
  # Adapters are float32, and they alone are trained.
  lora_rank: int = 0
  # The adapters' contribution is scaled by lora_alpha / lora_rank.
  lora_alpha: float = 32.0

  def __post_init__(self):
    for name, hint in config_lib.keys(type(self)).items():
      value = config_lib.convert(hint, getattr(self, name), name)
      object.__setattr__(self, name, value)
    checks.at_least(
      self, 1, "vocab_size", "d_model", "n_layers", "n_heads", "n_kv_heads",
      "head_dim", "d_ff", "max_length", "window", "window_period",
    )  # fmt: skip
    checks.at_least(self, 0, "lora_rank")
    checks.above(
      self, 0, "rope_theta", "rms_eps", "lora_alpha", "score_scale",
      "window_theta",
    )  # fmt: skip
    if self.n_heads % self.n_kv_heads:
      raise UserError(
        f"n_kv_heads={self.n_kv_heads} must divide n_heads={self.n_heads}"
      )
    if self.head_dim % 2:
      raise UserError(f"head_dim={self.head_dim} must be even, for RoPE pairs")

  @property
  def stacks(self) -> tuple[Stack, ...]:
    """The stacks of layers, first to last, a tuple of `Stack`."""
    return (Stack("layers", self.n_layers),)

  @property
  def windows(self) -> tuple[int | None, ...]:
    """The window of each layer; None for one that sees all tokens."""
    return tuple(
      None if (i + 1) % self.window_period == 0 else self.window
      for i in range(self.n_layers)
    )

  def without_adapters(self) -> "ModelConfig":
    """The same model before adapters were added to it."""
    return dataclasses.replace(
      self, lora_rank=0, lora_alpha=ModelConfig.lora_alpha
    )
