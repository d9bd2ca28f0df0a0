"""The only link between a model and the losses: log pi of given tokens."""

import math
from typing import Any, NamedTuple

import jax

from r1jax import meshes
from r1jax.model import Decoder, ModelConfig
from r1jax.model.decoder import summed_unembedding
from r1jax.training.head import head_logprobs
from r1jax.types import Batch

# Logits held at once, in numbers: 2^23 float32 are 32 MiB.
CHUNK_LOGITS = 1 << 23
# The same on one CPU, 8 MiB: more leave its caches and take a fifth longer.
CHUNK_LOGITS_CPU = 1 << 21
# Positions of a large vocabulary that are scored together. With fewer the
# table would be read more often; with more, more would be padding after the
# last trained one.
POSITIONS = 512


class Rows(NamedTuple):
  """Packed rows whose targets are scored; see `types.Batch`.

  Attributes:
    tokens, positions, segments: [B, T] int32.
    targets: [B, T] int32; entry t is scored given the tokens up to t.
    prefixes: [B, T] int32, or None if no row has any.
    trained: [B, T] bool, where the results are wanted; None for everywhere.
      Other positions, such as prompts and padding, are left out of the head.
    kept: [B, T, W] uint32, the set that each target was drawn from, see
      `r1jax.kept`; None for the whole vocabulary.
  """

  tokens: jax.Array
  positions: jax.Array
  segments: jax.Array
  targets: jax.Array
  prefixes: jax.Array | None = None
  trained: jax.Array | None = None
  kept: jax.Array | None = None


def rows_of(batch: Batch) -> Rows:
  """The `Rows` of a micro-batch; those positions with a weight are trained."""
  return Rows(
    batch.tokens, batch.positions, batch.segments, batch.targets,
    batch.prefixes, batch.weights > 0, batch.kept,
  )  # fmt: skip


def logprobs(
  config: ModelConfig,
  params: Any,
  rows: Rows,
  temperature: jax.Array | float = 1.0,
  chunk: int | None = None,
  tile: int | None = None,
) -> tuple[jax.Array, jax.Array]:
  """Log-probabilities of targets and entropies of their distributions.

  Args:
    config: the `ModelConfig`.
    params: its parameters.
    rows: the `Rows`.
    temperature: divides the logits, as in the sampler.
    chunk: positions of a row whose logits exist at a time; None for that of
      `chunk_and_tile`.
    tile: tokens of the vocabulary whose logits exist at a time; None for that
      of `chunk_and_tile`.

  Returns:
    logprobs [B, T], entropy [B, T] in nats, both float32; both carry
    gradients, and are 0 where nothing is trained. Padding gets finite values
    without meaning. Both are of the distribution within `kept`.
  """
  hidden: Any = Decoder(config).apply(
    {"params": params}, rows.tokens, rows.positions, rows.segments,
    rows.prefixes, method="hidden",
  )  # fmt: skip
  table = summed_unembedding(params, config)
  hidden = (hidden / temperature).astype(config.compute_dtype)
  b, t = rows.tokens.shape
  sizes = chunk_and_tile(b, t, config.vocab_size)
  return head_logprobs(
    hidden, table, rows.targets, chunk or sizes[0], tile or sizes[1],
    config.logit_dtype, rows.trained, rows.kept,
  )  # fmt: skip


def chunk_and_tile(rows: int, length: int, vocab_size: int) -> tuple[int, int]:
  """Positions of each row and tokens of the vocabulary to score at a time.

  Args:
    rows: B.
    length: T.
    vocab_size: V.

  Returns:
    chunk, tile. B * chunk * tile is at most `CHUNK_LOGITS` unless a single
    position of each row is more. If the table is spread over several devices,
    the tile is all of it, since its parts lie on all of them.
  """
  mesh = meshes.current()
  if mesh is not None and mesh.size > 1:
    return min(length, max(1, CHUNK_LOGITS // (rows * vocab_size))), vocab_size
  most = CHUNK_LOGITS_CPU if meshes.platform() == "cpu" else CHUNK_LOGITS
  chunk = min(length, max(1, POSITIONS // rows, most // (rows * vocab_size)))
  tiles = math.ceil(rows * chunk * vocab_size / most)
  return chunk, math.ceil(vocab_size / tiles)
