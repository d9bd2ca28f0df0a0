"""What a loss averages over: the weights of tokens.

The weights of all tokens of an optimizer step sum to one (`constant_mean`: to
at most one). A loss is a sum of weighted tokens, see `r1jax.losses`.

Masks are [C, T]: C sequences, T tokens, True at the tokens that are trained.
"""

import jax.numpy as jnp
from jax import Array

from r1jax import arguments

AXES = "[C, T], True at the trained tokens"


def sequence_mean(mask: Array) -> Array:
  """GRPO's token weights: the mean over sequences of their token means.

      w_it = 1 / (C |o_i|)

  DSM Eq. 3 (its 1/G and 1/|o_i|). Every completion has the same weight, so a
  token of a long completion has a smaller weight.

  Args:
    mask: [C, T] bool, True at trained tokens.

  Returns:
    [C, T] float32; sums to one if every sequence has a trained token.
  """
  arguments.matrix(AXES, mask=mask)
  lengths = jnp.maximum(mask.sum(axis=1, keepdims=True), 1)
  return mask / (lengths * mask.shape[0]).astype(jnp.float32)


def token_mean(mask: Array) -> Array:
  """DAPO's token weights, a mean over all tokens: w_it = 1 / sum_i |o_i|.

  DAPO Eq. 8; supervised training uses it too.

  Args:
    mask: [C, T] bool, True at trained tokens.

  Returns:
    [C, T] float32; sums to one if there is a trained token.
  """
  arguments.matrix(AXES, mask=mask)
  return mask / jnp.maximum(mask.sum(), 1).astype(jnp.float32)


def constant_mean(mask: Array, length: int) -> Array:
  """Dr. GRPO's token weights, the same for every token: w_it = 1 / (C L).

  Dr. GRPO, 3.2: neither long wrong answers nor short right ones are favoured.
  The weights sum to the share of the C L places that hold a trained token.

  Args:
    mask: [C, T] bool, True at trained tokens.
    length: L, the most tokens that a completion may have.

  Returns:
    [C, T] float32.
  """
  arguments.matrix(AXES, mask=mask)
  return mask / jnp.float32(mask.shape[0] * length)
