"""Matrix products in the forms that suit the compiler."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jax.experimental.layout import Layout, with_layout_constraint

from r1jax import meshes

# What the products of `matmul` are called where some results are kept for the
# backward pass and others computed again.
PRODUCT = "product"


@jax.custom_vjp
def matmul(x: jax.Array, w: jax.Array) -> jax.Array:
  """x [..., i] times w [i, o].

  The same values and gradients as `x @ w`. Only the weight gradient's product
  differs: XLA on CPU transposes its left operand, one activation for every
  token, in the innermost loop. The narrower operand goes there, transposed
  beforehand: in bfloat16 that more than doubles the product's speed.
  """
  return _forward(x, w)[0]


def _forward(x, w):
  y = checkpoint_name(jnp.einsum("...i,io->...o", x, w), PRODUCT)
  return y, (x, w)


def _backward(saved, dy):
  x, w = saved
  dx = jnp.einsum("...o,io->...i", dy, w)
  if x.shape[-1] <= dy.shape[-1]:
    return dx, token_sum(x, dy)
  # Held as it is, or the compiler would move the transposition into the
  # product and so to the side where it is slow.
  return dx, in_order(token_sum(dy, x)).T


def token_sum(x: jax.Array, y: jax.Array, dtype: Any = None) -> jax.Array:
  """[..., i] and [..., o] to [i, o], the products summed over all tokens.

  Args:
    dtype: of the sum; default that of x.
  """
  left, right = (a.reshape(-1, a.shape[-1]) for a in (x, y))
  return jnp.matmul(in_order(left.T), right, preferred_element_type=dtype)


matmul.defvjp(_forward, _backward)


def thin_matmul(x: jax.Array, w: jax.Array) -> jax.Array:
  """x [..., i] times w [i, o] for few rows, w being stored as [o, i].

  XLA on CPU copies the right operand of a product into panels before it
  begins. With few rows that copy, of the whole weight, takes as long as the
  product. So the weight goes to the left and the rows, as columns, to the
  right; the layouts are pinned, or the compiler would turn them back.
  """
  # What computes the rows shall not do so column by column.
  rows = jax.lax.optimization_barrier(x.reshape(-1, x.shape[-1]))
  # In float32 many rows, to whom the copy is nothing, do better without; in
  # bfloat16 a transposed weight is always slow.
  many = x.dtype == jnp.float32 and len(rows) >= min(w.shape)
  if meshes.platform() != "cpu" or many:
    return x @ w
  y = in_order(w.T @ in_order(rows.T)).T
  return y.reshape(*x.shape[:-1], -1)


def in_order(x: jax.Array) -> jax.Array:
  """x; on CPU stored in the order of its dimensions, the last one together.

  The compiler neither folds anything across this nor chooses another layout.
  """
  if meshes.platform() != "cpu":
    return x
  return with_layout_constraint(jnp.asarray(x), Layout(tuple(range(x.ndim))))
