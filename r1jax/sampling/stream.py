"""Streaming: one completion, token by token, for a chat."""

import functools
from collections.abc import Generator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from r1jax.errors import UserError
from r1jax.model import ModelConfig
from r1jax.sampling import cache, decode, weights
from r1jax.sampling import pool as pools
from r1jax.sampling.config import SamplerConfig, check_tokens
from r1jax.sampling.draws import draw

# Prompts and rings are padded to a multiple of this, so that the turns of a
# conversation share a few compiled programs.
BUCKET = 128


def stream(
  model: ModelConfig,
  params: Any,
  prompt: Sequence[int],
  key: jax.Array,
  *,
  max_new_tokens: int,
  temperature: float = 1.0,
  top_p: float = 1.0,
) -> Generator[int, int | None, None]:
  """Draws one completion; each token is decoded when it is asked for.

  Args:
    model: the `ModelConfig`.
    params: its parameters.
    prompt: token ids.
    key: typed PRNG key.
    max_new_tokens: the stream ends after this many tokens.
    temperature: divides the logits; 0 takes the likeliest token.
    top_p: as in `SamplerConfig`.

  Yields:
    token ids. `send(token)` replaces the token just yielded by another.

  Raises:
    UserError: the prompt is empty, has a token that the model has not, or fills
      the model's whole context.
  """
  room = model.max_length - len(prompt)
  if not len(prompt) or room < 1:
    raise UserError(
      f"a prompt of {len(prompt)} tokens; the model takes 1 to"
      f" {model.max_length - 1}"
    )
  check_tokens("the prompt", prompt, model.vocab_size)
  length = min(max_new_tokens, room)
  config = SamplerConfig(
    slots=1,
    max_new_tokens=_bucket(length),
    eos_id=-1,
    top_p=top_p,
    greedy=temperature == 0,
  )
  width = _bucket(len(prompt))
  tokens = np.zeros((1, width), np.int32)
  tokens[0, : len(prompt)] = prompt
  *fixed, rings = _start(model, config, params, tokens, len(prompt))
  noise = key, jnp.float32(temperature or 1.0)
  token = int(prompt[-1])
  for t in range(length):
    drawn, rings = _step(model, config, fixed, rings, token, t, noise)
    token = int(drawn)
    while (other := (yield token)) is not None:
      token = int(other)


def _bucket(n):
  return -(-n // BUCKET) * BUCKET


@functools.partial(jax.jit, static_argnums=(0, 1))
def _start(model, config, params, tokens, length):
  """The weights, the prefilled `Pool` of the prompt, and empty rings."""
  size = pools.Size(banks=1, places=1, width=tokens.shape[1], rows=1)
  pool = pools.empty(model, None, size)
  batch = pools.Batch(tokens, jnp.full(1, length), jnp.zeros(1, jnp.int32))
  pool = pools.prefill(model, None, params, pool, batch)
  ring = cache.empty_ring(model, 1, config.max_new_tokens, config.chunk)
  return weights.lay_out(model, params), pool, (ring,) * model.n_layers


@functools.partial(jax.jit, static_argnums=(0, 1), donate_argnums=3)
def _step(model, config, fixed, rings, token, t, noise):
  """The token after `token`, whose keys go to column t of the rings.

  Args:
    fixed: the weights and the `Pool`.
    rings: L of `cache.Ring`; donated.
    noise: the key and the temperature.

  Returns:
    the drawn token, [] int32, and the rings.
  """
  weights, pool = fixed
  first = jnp.zeros(1, jnp.int32)
  logits, newest = decode.decode(
    model, weights, pool.layers, rings,
    [ring.take(t) for ring in rings],
    jnp.full(1, token, jnp.int32), pool.lengths - 1 + t,
    decode.view(
      first, first, jnp.ones(1, bool), 1, pool.by_bank, jnp.full(1, t), t
    ),
  )  # fmt: skip
  rings = tuple(ring.give_back(new, t) for ring, new in zip(rings, newest))
  drawn = draw(
    logits.astype(jnp.float32), config, noise[0], first, jnp.full(1, t),
    noise[1],
  )  # fmt: skip
  return drawn.token[0], rings
