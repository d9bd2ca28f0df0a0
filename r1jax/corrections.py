"""Corrections of the difference between the sampler and the learner."""

import jax
import jax.numpy as jnp
from jax import Array

from r1jax import arguments


def importance_correction(
  learner: Array, sampler: Array, kind: str, low: float, high: float
) -> Array:
  """Weights that correct for the sampler's rounding errors (TIS, IcePop).

      truncate:  min(pi_old / pi_sampler, high)
      mask:      pi_old / pi_sampler where it lies in [low, high], else 0

  "truncate" is TIS, Yao et al. 2025 ("Your Efficient RL Framework Secretly
  Brings You Off-Policy RL Training"). "mask" is IcePop, Ling team, arXiv
  2510.18855, Eq. 3. Both multiply a token's objective and have no gradient.

  Args:
    learner: [B, T], log pi_old as the learner computes it.
    sampler: [B, T], log pi_old as the sampler computed it.
    kind: "truncate" or "mask".
    low: lower bound of the ratio; "truncate" ignores it.
    high: upper bound of the ratio.

  Returns:
    [B, T] factors.

  Raises:
    UserError: an array has another shape, or the kind is unknown.
  """
  arguments.known(("truncate", "mask"), kind=kind)
  arguments.tokens(learner=learner, sampler=sampler)
  ratio = jax.lax.stop_gradient(jnp.exp(learner - sampler))
  if kind == "truncate":
    return jnp.minimum(ratio, high)
  return jnp.where((ratio >= low) & (ratio <= high), ratio, 0.0)
