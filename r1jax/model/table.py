"""The tables of the vocabulary, with a row for each token.

A gradient of a table is as large as the table, and where two uses of it and
several micro-batches are summed there would be several of them. So those of a
`Summed` table are added to the sum a few rows at a time.
"""

import flax.struct
import jax
import jax.numpy as jnp

# The paths of the tables in a tree of parameters.
PATHS = (("embed", "embedding"), ("head", "kernel"))


class Summed(flax.struct.PyTreeNode):
  """A table that knows where its gradients are summed.

  Attributes:
    value: [V, d].
    total: `jax.Ref` of [V, d], any type. What uses the table adds its part
      of the gradient there in its backward pass, and hands none on.
    turned: whether `total` is [d, V].
  """

  value: jax.Array
  total: jax.Ref
  turned: bool = flax.struct.field(pytree_node=False, default=False)

  def add_block(self, start, rows):
    """Adds the gradient [n, d] of the rows from `start` on."""
    rows = rows.astype(self.total.dtype)
    if self.turned:
      rows = rows.T
    axis = int(self.turned)
    total = self.total[...]
    rows += jax.lax.dynamic_slice_in_dim(total, start, rows.shape[axis], axis)
    self.total[...] = jax.lax.dynamic_update_slice_in_dim(
      total, rows, start, axis
    )

  def add_rows(self, tokens, rows):
    """Adds gradients [..., d] to the rows of tokens [...]."""
    rows = rows.astype(self.total.dtype)
    self.total[...] = self.total[...].at[tokens].add(rows)


def with_sums(params, totals):
  """Parameters whose tables are `Summed`; the others are as they are.

  Args:
    params: nested dict, whatever its leaves. totals: the same of `jax.Ref`s.
  """

  def join(path, value, total):
    is_table = tuple(getattr(k, "key", None) for k in path) in PATHS
    return Summed(value, total) if is_table else value

  return jax.tree_util.tree_map_with_path(join, params, totals)


def lookup(table, tokens):
  """The rows of tokens [...] in a table [V, d], or a `Summed` one: [..., d]."""
  if isinstance(table, Summed):
    return _lookup(table, tokens)
  return jnp.take(table, tokens, axis=0)


@jax.custom_vjp
def _lookup(table, tokens):
  return jnp.take(table.value, tokens, axis=0)


def _forward(table, tokens):
  return _lookup(table, tokens), (table, tokens)


def _backward(saved, rows):
  table, tokens = saved
  table.add_rows(tokens, rows)
  return None, None


_lookup.defvjp(_forward, _backward)
