"""Rotary position embedding."""

import jax.numpy as jnp


def rope_table(positions, head_dim, theta):
  """Cosines and sines of the rotation of each position.

  Args:
    positions: [B, T] int32.
    head_dim: D.
    theta: base of the geometric frequencies theta^(-2i/D), i < D/2.

  Returns:
    cos, sin: [B, 1, T, D/2] float32, ready for `rotate`.

  Source: Su et al. 2021 (RoFormer), Eq. 15.
  """
  inverse = theta ** (-jnp.arange(0, head_dim, 2, dtype=jnp.float32) / head_dim)
  angles = positions[:, None, :, None] * inverse[None, None, None, :]
  return jnp.cos(angles), jnp.sin(angles)


def rotate(x, cos, sin):
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
