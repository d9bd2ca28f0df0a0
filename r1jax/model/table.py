"""The tables of the vocabulary, with a row for each token.

The gradient of a table is as large as the table. A table has two uses, and an
optimizer step has several micro-batches; with one gradient each, memory would
hold several. Therefore the lookup and the head add their gradients to one sum,
a few rows at a time, inside a `summing` context.
"""

import contextlib
import contextvars
from collections.abc import Iterator
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

# Parameters in use, each with the `jax.Ref` of its gradients' sum.
_SUMS: contextvars.ContextVar[tuple] = contextvars.ContextVar(
  "sums", default=()
)


class Summed(flax.struct.PyTreeNode):
  """A table [V, d] and the sum of its gradients.

  A `jax.custom_vjp` function that takes a `Summed` adds to the sum in its
  backward pass and returns no gradient for it.

  Attributes:
    value: [V, d], the table.
    total: `jax.Ref` of any dtype, [V, d], or [d, V] if `turned`.
    turned: whether the parameter is the table's transpose.
  """

  value: jax.Array
  total: jax.Ref
  turned: bool = flax.struct.field(pytree_node=False, default=False)

  def add_rows(self, start: Any, rows: jax.Array) -> None:
    """Adds a gradient [n, d] to the rows start to start + n of the sum."""
    rows = rows.astype(self.total.dtype)
    if self.turned:
      rows = rows.T
    axis = int(self.turned)
    total = self.total[...]
    rows += jax.lax.dynamic_slice_in_dim(total, start, rows.shape[axis], axis)
    self.total[...] = jax.lax.dynamic_update_slice_in_dim(
      total, rows, start, axis
    )


@contextlib.contextmanager
def summing(params: Any, totals: Any) -> Iterator[None]:
  """In this context the tables' gradients are added to their sums in place.

  The tables are known by identity. An array that is computed from one, such
  as a multiple or a `stop_gradient`, is another array; JAX handles its
  gradient as usual.

  Args:
    params: pytree of arrays, tables and others.
    totals: the same of `jax.Ref`s.
  """
  found = tuple(zip(jax.tree.leaves(params), jax.tree.leaves(totals)))
  token = _SUMS.set(found)
  try:
    yield
  finally:
    _SUMS.reset(token)


def total_of(table: Any) -> Any:
  """The `jax.Ref` that `summing` names for a table, or None."""
  return next((total for x, total in _SUMS.get() if x is table), None)


def lookup(table: Any, tokens: jax.Array) -> jax.Array:
  """Looks up tokens [...] in a table [V, d]; returns their rows [..., d]."""
  total = total_of(table)
  if total is None:
    return jnp.take(table, tokens, axis=0)
  return _lookup(Summed(table, total), tokens)


@jax.custom_vjp
def _lookup(table, tokens):
  return jnp.take(table.value, tokens, axis=0)


def _forward(table, tokens):
  return _lookup(table, tokens), (table.total, tokens)


def _backward(saved, rows):
  total, tokens = saved
  total[...] = total[...].at[tokens].add(rows.astype(total.dtype))
  return None, None


_lookup.defvjp(_forward, _backward)
