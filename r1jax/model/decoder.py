"""The decoder: one Linen module for the policy, its references and students.

`model.apply({"params": p}, tokens)` gives logits. The learner and the sampler
call the methods below it, so that neither ever holds a [B, T, V] array.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from r1jax.model import attention, kernels
from r1jax.model.attention import ATTENTION
from r1jax.model.config import ModelConfig
from r1jax.model.facts import named
from r1jax.model.layer import INIT, Context, Layer, Near, RMSNorm
from r1jax.model.linear import PRODUCT, in_order
from r1jax.model.rope import rope_table
from r1jax.model.table import Summed, lookup, total_of


class Embed(nn.Embed):
  """Flax's embedding; `table.summing` accumulates its gradient in place."""

  def __call__(self, tokens: jax.Array) -> jax.Array:
    """Looks up tokens [...] int32; returns [..., d]."""
    return lookup(self.embedding, tokens).astype(self.dtype)


class Decoder(nn.Module):
  """Token embedding, stacks of layers, final norm, head."""

  config: ModelConfig

  def setup(self) -> None:
    c = self.config
    self.embed = Embed(
      c.vocab_size,
      c.d_model,
      dtype=c.compute_dtype,
      param_dtype=c.param_dtype,
      embedding_init=named(
        nn.initializers.normal(c.d_model**-0.5), ("vocab", "embed"), "table"
      ),
    )
    self.stacks = [_scanned(c, stack) for stack in c.stacks]
    self.norm = RMSNorm(c)
    if not c.tied:
      self.head = nn.Dense(
        c.vocab_size,
        use_bias=False,
        dtype=c.compute_dtype,
        param_dtype=c.param_dtype,
        kernel_init=named(INIT, ("embed", "vocab"), "table"),
      )

  def __call__(
    self,
    tokens: jax.Array,
    positions: jax.Array | None = None,
    segments: jax.Array | None = None,
  ) -> jax.Array:
    """Logits of the next token.

    Args:
      tokens: [B, T] int32.
      positions: [B, T] int32, default 0, 1, ... along each row.
      segments: [B, T] int32, 0 for padding; default one segment a row.

    Returns:
      [B, T, V] in `logit_dtype`. The learner does not need this large array;
      it calls `r1jax.training.policy.logprobs`.
    """
    return self.logits(self.hidden(tokens, positions, segments))

  def hidden(
    self,
    tokens: jax.Array,
    positions: jax.Array | None = None,
    segments: jax.Array | None = None,
    prefixes: jax.Array | None = None,
  ) -> jax.Array:
    """Final hidden states [B, T, d].

    Args:
      tokens: [B, T] int32.
      positions: [B, T] int32; default 0, 1, ... along each row.
      segments: [B, T] int32, 0 for padding; default one segment a row.
      prefixes: [B, T] int32 or None, see `types.Batch`.
    """
    return self._forward(tokens, positions, segments, prefixes)[0]

  def prefill(
    self, tokens: jax.Array, positions: jax.Array, segments: jax.Array
  ) -> tuple[jax.Array, Any]:
    """Final hidden states [B, T, d], and what the attention keeps.

    Args:
      tokens: [B, T] int32.
      positions: [B, T] int32.
      segments: [B, T] int32, 0 for padding.

    Returns:
      hidden states; name -> [L, B, *`attention.Kept.shape`(T)].
    """
    return self._forward(tokens, positions, segments, keep=True)

  def _forward(self, tokens, positions, segments, prefixes=None, keep=False):
    if positions is None:
      positions = jnp.broadcast_to(jnp.arange(tokens.shape[1]), tokens.shape)
    if segments is None:
      segments = jnp.ones_like(tokens)
    c = self.config
    table = rope_table(positions, c.head_dim, c.rope_theta, c.rope_scaling)
    context = Context(*table, segments, prefixes, attention.kept(c), keep)
    windowed: Any = ()
    if c.window is not None:
      table = rope_table(positions, c.head_dim, c.window_theta)
      context = context.replace(near=Near(*table, positions, c.window))
      windowed = (jnp.asarray([w is not None for w in c.windows]),)
    x, kept = scaled(c, self.embed(tokens)), []
    for stack in self.stacks:
      x, arrays = stack(x, context, *windowed)
      kept.append(arrays)
    if len(kept) > 1:
      kept = [jax.tree.map(lambda *x: jnp.concatenate(x), *kept)]
    return self.norm(x), kept[0]

  def logits(self, hidden: jax.Array) -> jax.Array:
    """Logits [..., V] in `logit_dtype` of hidden states [..., d]."""
    y = self.embed.attend(hidden) if self.config.tied else self.head(hidden)
    return y.astype(self.config.logit_dtype)


def _scanned(config, stack):
  """The module of a `Stack`: a loop of its layer over stacked parameters."""
  layer = Layer
  if config.remat != "none":
    policies = jax.checkpoint_policies
    policy = policies.nothing_saveable
    if config.remat == "products":
      policy = policies.save_from_both_policies(
        policies.save_only_these_names(PRODUCT, ATTENTION), kernels.of_cudnn
      )
    # Common subexpressions cannot be merged across the body of a scan anyway.
    layer = nn.remat(Layer, prevent_cse=False, policy=policy)
  return nn.scan(
    layer,
    variable_axes={"params": 0},
    split_rngs={"params": True},
    in_axes=nn.broadcast if config.window is None else (nn.broadcast, 0),
    length=stack.length,
    metadata_params={nn.PARTITION_NAME: "layer"},
  )(config, name=stack.name)


def scaled(config: ModelConfig, rows: jax.Array) -> jax.Array:
  """Rows of the embedding as the first layer takes them.

  Args:
    config: the `ModelConfig`.
    rows: [..., d].
  """
  if not config.scaled_embedding:
    return rows
  return rows * jnp.asarray(config.d_model**0.5, rows.dtype)


def embedding(params: Any) -> Any:
  """The parameter [V, d] with the row of each token that layers start from."""
  return params["embed"]["embedding"]


def final_norm(params: Any) -> Any:
  """The parameters of the norm after the last layer, a dict."""
  return params["norm"]


def head(params: Any, config: ModelConfig) -> Any:
  """The parameter that gives logits: [V, d] if tied, else [d, V]."""
  return embedding(params) if config.tied else params["head"]["kernel"]


def unembedding(params: Any, config: ModelConfig) -> Any:
  """The head as a table [V, d] in `compute_dtype`, a row for each token.

  Its product with hidden states are the logits.
  """
  table = head(params, config)
  rows = table if config.tied else in_order(table.T)
  return rows.astype(config.compute_dtype)


def summed_unembedding(params: Any, config: ModelConfig) -> Any:
  """`unembedding`; inside `table.summing`, as a `Summed` table."""
  rows = unembedding(params, config)
  total = total_of(head(params, config))
  return rows if total is None else Summed(rows, total, not config.tied)
