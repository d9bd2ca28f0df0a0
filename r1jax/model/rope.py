"""Rotary position embedding, and its extensions to longer contexts."""

import dataclasses
import math
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

from r1jax import checks
from r1jax.errors import UserError

# kind -> the fields that it needs besides `factor`.
KINDS = {
  "linear": (),
  "llama3": ("original_max_length", "low_freq_factor", "high_freq_factor"),
  "yarn": ("original_max_length",),
}


@dataclasses.dataclass(frozen=True)
class RopeScaling:
  """How RoPE's frequencies are stretched for a longer context."""

  # "linear" (Chen et al. 2023), "llama3" (Llama 3.1), "yarn" (Peng et al.
  # 2023).
  kind: Literal["linear", "llama3", "yarn"]
  # How many times longer the context is.
  factor: float
  # Context of the model before the extension, in tokens.
  original_max_length: int | None = None
  # For llama3: wavelengths above original_max_length / low_freq_factor are
  # stretched by the whole factor.
  low_freq_factor: float | None = None
  # For llama3: wavelengths below original_max_length / high_freq_factor are
  # not stretched.
  high_freq_factor: float | None = None
  # For yarn: frequencies with more rotations than this within the original
  # length are not stretched.
  beta_fast: float = 32.0
  # For yarn: frequencies with fewer rotations than this within the original
  # length are stretched by the whole factor.
  beta_slow: float = 1.0
  # For yarn: multiplies cosines and sines; None is 0.1 ln(factor) + 1.
  attention_factor: float | None = None
  # For yarn: whether the ends of its ramp are rounded outward.
  truncate: bool = True

  def __post_init__(self):
    checks.types(self)
    checks.above(
      self, 0, "factor", "original_max_length", "low_freq_factor",
      "high_freq_factor", "beta_fast", "beta_slow", "attention_factor",
    )  # fmt: skip
    for name in KINDS[self.kind]:
      if getattr(self, name) is None:
        raise UserError(f'{name} is missing; kind="{self.kind}" needs it')


def rope_table(
  positions: jax.Array,
  head_dim: int,
  theta: float,
  scaling: RopeScaling | None = None,
) -> tuple[jax.Array, jax.Array]:
  """Cosines and sines of the rotation of each position.

  Args:
    positions: [B, T] int32.
    head_dim: D.
    theta: base of the geometric frequencies theta^(-2i/D), i < D/2.
    scaling: a `RopeScaling`, or None.

  Returns:
    cos, sin: [B, 1, T, D/2] float32, ready for `rotate`.

  Source: Su et al. 2021 (RoFormer), Eq. 15.
  """
  inverse, factor = frequencies(head_dim, theta, scaling)
  angles = positions[:, None, :, None] * inverse[None, None, None, :]
  cos, sin = jnp.cos(angles), jnp.sin(angles)
  return (cos, sin) if factor == 1 else (cos * factor, sin * factor)


def frequencies(
  head_dim: int, theta: float, scaling: RopeScaling | None = None
) -> tuple[np.ndarray, float]:
  """Radians a position, and what cosines and sines are multiplied by.

  Args: as `rope_table`.

  Returns:
    [D/2] float32 numpy array, and a float.
  """
  # In float32 throughout, as the checkpoints were trained: at position 10^5
  # the last bit of a frequency is a hundredth of a radian.
  exponent = np.arange(0, head_dim, 2, dtype=np.float32) / np.float32(head_dim)
  inverse = np.float32(1) / np.float32(theta) ** exponent
  if scaling is None:
    return inverse, 1.0
  if scaling.kind == "linear":
    return inverse / np.float32(scaling.factor), 1.0
  if scaling.kind == "llama3":
    return _llama3(inverse, scaling), 1.0
  return _yarn(inverse, head_dim, theta, scaling)


def _llama3(inverse, s):
  """Long wavelengths stretched, short ones kept, a blend in between."""
  wavelength = 2 * math.pi / inverse
  low, high = s.low_freq_factor, s.high_freq_factor
  keep = np.clip(
    (s.original_max_length / wavelength - low) / (high - low), 0, 1
  )
  return ((1 - keep) * inverse / s.factor + keep * inverse).astype(np.float32)


def _yarn(inverse, head_dim, theta, s):
  """Peng et al. 2023, section 3.2 ("NTK-by-parts") and 3.4 (temperature)."""

  def dimension(rotations):
    """The dimension pair that turns so often within the original length."""
    ratio = s.original_max_length / (rotations * 2 * math.pi)
    return head_dim * math.log(ratio) / (2 * math.log(theta))

  low, high = dimension(s.beta_fast), dimension(s.beta_slow)
  if s.truncate:
    low, high = math.floor(low), math.ceil(high)
  low, high = max(low, 0), min(high, head_dim - 1)
  high += 0.001 * (low == high)
  stretched = np.clip((np.arange(head_dim // 2) - low) / (high - low), 0, 1)
  out = inverse * (1 - stretched) + inverse / s.factor * stretched
  factor = s.attention_factor
  if factor is None:
    factor = 0.1 * math.log(s.factor) + 1 if s.factor > 1 else 1.0
  return out.astype(np.float32), factor


def rotate(x: jax.Array, cos: jax.Array, sin: jax.Array) -> jax.Array:
  """Rotates dimension pairs (i, i + D/2), as Llama checkpoints have them.

  Args:
    x: [B, H, T, D].
    cos, sin: [B, 1, T, D/2] float32.

  Returns:
    [B, H, T, D] in the dtype of x; the arithmetic is float32.
  """
  first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
  return jnp.concatenate(
    (first * cos - second * sin, second * cos + first * sin), axis=-1
  ).astype(x.dtype)
