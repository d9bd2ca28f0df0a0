"""One token for each of S slots: the decoder as the sampler runs it.

The same layers as the learner's, but unrolled, each with weights and a cache
of its own: inside a loop over steps a layer's slice of a stacked array would
be a copy of it.
"""

from typing import Any, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp

from r1jax.model import attention
from r1jax.model.decoder import Block, RMSNorm, head_matrix
from r1jax.model.rope import rope_table


class Weights(NamedTuple):
  """The learner's parameters, laid out for decoding.

  Attributes:
    embedding: [V, d]. layers: L dicts. norm: the last one's dict.
    head: [d, V].
  """

  embedding: jax.Array
  layers: tuple
  norm: Any
  head: jax.Array


def lay_out(config, params):
  """`Weights` of a model's parameters: in the compute dtype, by layer.

  Once a rollout, not in every step; the gains of the norms stay as they are,
  since norms compute in float32.
  """

  def cast(path, x):
    gain = path[-1].key == "scale"
    return x if gain else x.astype(config.compute_dtype)

  params = jax.tree_util.tree_map_with_path(cast, params)
  layers = tuple(
    jax.tree.map(lambda x: x[i], params["layers"])
    for i in range(config.n_layers)
  )
  return Weights(
    params["embed"]["embedding"],
    layers,
    params["norm"],
    head_matrix(params, config),
  )


class Cache(flax.struct.PyTreeNode):
  """Keys and values of one layer.

  Attributes:
    prompt_k [S, K, D, P], prompt_v [S, K, P, D]: of each slot's prompt.
    ring_k [C, S, K, D, R], ring_v [C, S, K, R, D]: of what was decoded, a
      ring in time of C chunks of R columns. At decoding step g every slot
      writes column g mod C R, wherever it is in its own completion, so a step
      is one update of a slice and never a scatter; and only the chunks that
      some slot still needs are read.
  """

  prompt_k: jax.Array
  prompt_v: jax.Array
  ring_k: jax.Array
  ring_v: jax.Array


class View(NamedTuple):
  """What the slots may read of their caches in one step.

  Attributes:
    prompt_mask: [S, P] bool.
    age: [S] int32, how many of the latest columns of the ring, less the one
      now written, are a slot's own.
    column: [] int32, the ring's column to write.
  """

  prompt_mask: jax.Array
  age: jax.Array
  column: jax.Array


class _Reader(NamedTuple):
  """A layer's context while decoding: a `View` of its `Cache`."""

  cos: jax.Array
  sin: jax.Array
  view: View
  cache: Cache

  def attend(self, q, k, v):
    """Writes k and v [S, K, ., 1] and reads what there is; keeps the cache."""
    view, cache = self.view, self.cache
    chunks, _, _, _, size = cache.ring_k.shape
    newest, at = view.column // size, view.column % size
    cache = cache.replace(
      ring_k=_put(cache.ring_k, k, (newest, 0, 0, 0, at)),
      ring_v=_put(cache.ring_v, v, (newest, 0, 0, at, 0)),
    )

    def chunk(i):
      """The chunk i before the newest."""
      c = (newest - i) % chunks
      columns = c * size + jnp.arange(size)
      age = (view.column - columns) % (chunks * size)
      return attention.partial(
        q, cache.ring_k[c], cache.ring_v[c],
        (age[None] <= view.age[:, None])[:, None],
      )  # fmt: skip

    part = chunk(0)
    if chunks > 1:
      # Columns beyond the newest chunk, in whole chunks.
      older = jnp.maximum(view.age.max() - at, 0)
      used = jnp.minimum(-(-older // size) + 1, chunks)
      part = jax.lax.fori_loop(
        1, used, lambda i, part: attention.join(part, chunk(i)), part
      )
    prompt = attention.partial(
      q, cache.prompt_k, cache.prompt_v, view.prompt_mask[:, None]
    )
    return attention.finish(attention.join(part, prompt), q), cache


def _put(ring, x, at):
  return jax.lax.dynamic_update_slice(ring, x[None].astype(ring.dtype), at)


def decode(config, weights, tokens, positions, caches, view):
  """The step after one token for each slot.

  Args:
    config: the `ModelConfig`. weights: its `Weights`.
    tokens, positions: [S] int32.
    caches: L of `Cache`.
    view: the `View` of this step.

  Returns:
    logits [S, V] in `logit_dtype`, and the new caches.
  """
  c = config
  cos, sin = rope_table(
    positions[:, None], c.head_dim, c.rope_theta, c.rope_scaling
  )
  x = weights.embedding[tokens][:, None]
  out = []
  for layer, cache in zip(weights.layers, caches):
    x, cache = Block(c).apply(
      {"params": layer}, x, _Reader(cos, sin, view, cache)
    )
    out.append(cache)
  x = RMSNorm(c).apply({"params": weights.norm}, x)[:, 0]
  return (x @ weights.head).astype(c.logit_dtype), tuple(out)


def empty_ring(config, slots, length, chunk, dtype):
  """Ring arrays of one layer, for `length` columns or more.

  Args:
    slots: S. length: columns that a slot may need. chunk: columns that are
      read together.

  Returns:
    ring_k, ring_v, as in `Cache`.
  """
  size = min(chunk, length)
  shape = (-(-length // size), slots, config.n_kv_heads)
  return (
    jnp.zeros((*shape, config.head_dim, size), dtype),
    jnp.zeros((*shape, size, config.head_dim), dtype),
  )
