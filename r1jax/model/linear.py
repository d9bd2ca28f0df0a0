"""Matrix products in the forms that suit the compiler."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jax.experimental.layout import Layout, with_layout_constraint

from r1jax import meshes

# Name of the results of `matmul` for rematerialization, which keeps or
# recomputes results by name.
PRODUCT = "product"


@jax.custom_vjp
def matmul(x: jax.Array, w: jax.Array) -> jax.Array:
  """Multiplies x [..., i] by w [i, o].

  Values and gradients are those of `x @ w`. Only the product for the weight
  gradient is computed in another way: XLA on CPU transposes the left operand
  of that product in its innermost loop. Here the narrower operand is the left
  one, and it is transposed before. In bfloat16 this more than doubles the speed
  of the product.
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
  # `in_order` keeps the compiler from moving the transposition into the
  # product, where it is slow.
  return dx, in_order(token_sum(dy, x)).T


def token_sum(x: jax.Array, y: jax.Array, dtype: Any = None) -> jax.Array:
  """The outer products of two rows, summed over all tokens.

  Args:
    x: [..., i].
    y: [..., o].
    dtype: dtype of the sum; None is that of x.

  Returns:
    [i, o].
  """
  left, right = (a.reshape(-1, a.shape[-1]) for a in (x, y))
  return jnp.matmul(in_order(left.T), right, preferred_element_type=dtype)


matmul.defvjp(_forward, _backward)


def thin_matmul(x: jax.Array, w: jax.Array) -> jax.Array:
  """Multiplies few rows x [..., i] by w [i, o], which is stored as [o, i].

  XLA on CPU first copies the right operand of a product into panels. With few
  rows, copying the whole weight takes as long as the product. So here the
  weight is the left operand, and the rows are the columns of the right one. The
  layouts are pinned, or the compiler would undo this.
  """
  # Keeps the compiler from computing the rows column by column.
  rows = jax.lax.optimization_barrier(x.reshape(-1, x.shape[-1]))
  # With many rows in float32 the copy costs little, and `x @ w` is faster. In
  # bfloat16 a transposed weight is always slow.
  many = x.dtype == jnp.float32 and len(rows) >= min(w.shape)
  if meshes.platform() != "cpu" or many:
    return x @ w
  y = in_order(w.T @ in_order(rows.T)).T
  return y.reshape(*x.shape[:-1], -1)


def in_order(x: jax.Array) -> jax.Array:
  """Returns x; on CPU it is stored in row-major order at this point.

  The compiler does not fuse across this point and chooses no other layout.
  """
  if meshes.platform() != "cpu":
    return x
  return with_layout_constraint(jnp.asarray(x), Layout(tuple(range(x.ndim))))
