"""AdamW and learning-rate schedules."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import optax

from r1jax.errors import UserError
from r1jax.types import TrainState


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
  """What is fixed for a run; the learning rate is an argument of each step.

  Kept apart so that phases that differ in their learning rates only share
  one compiled update.
  """

  b1: float = 0.9
  b2: float = 0.95
  eps: float = 1e-8
  weight_decay: float = 0.0
  clip_norm: float = 1.0


def transform(config):
  """The optax chain, without the learning rate."""
  return optax.chain(
    optax.clip_by_global_norm(config.clip_norm),
    optax.scale_by_adam(config.b1, config.b2, config.eps),
    optax.add_decayed_weights(
      config.weight_decay,
      # Decay is for matrices; gains and biases of a stacked layer are 2-D.
      mask=lambda params: jax.tree_util.tree_map_with_path(
        lambda path, _: path[-1].key in ("kernel", "embedding"), params
      ),
    ),
  )


def init_state(config, params):
  """A `TrainState` at step 0."""
  return TrainState(
    step=jnp.int32(0),
    params=params,
    opt_state=transform(config).init(params),
  )


def apply_gradients(config, state, grads, learning_rate):
  """One AdamW step.

  Returns:
    the new `TrainState`, and the global norm of `grads` before clipping.
  """
  updates, opt_state = transform(config).update(
    grads, state.opt_state, state.params
  )
  params = jax.tree.map(
    lambda p, u: (p - learning_rate * u).astype(p.dtype), state.params, updates
  )
  norm = optax.global_norm(grads)
  return TrainState(state.step + 1, params, opt_state), norm


def learning_rate(step, *, lr, steps, schedule="constant", warmup=0, end=0.1):
  """The learning rate of an optimiser step.

  Args:
    step: from 0.
    lr: the peak.
    steps: length of the phase.
    schedule: "constant", or "cosine" from `lr` down to `end * lr`.
    warmup: steps of linear warm-up.
    end: the cosine's final share of `lr`; R1's SFT and distillation use 0.1.
  """
  if schedule not in ("constant", "cosine"):
    raise UserError(
      f'schedule "{schedule}" is unknown; known: "constant", "cosine"'
    )
  if step < warmup:
    return lr * (step + 1) / warmup
  if schedule == "constant":
    return lr
  progress = (step - warmup) / max(1, steps - warmup)
  return lr * (end + (1 - end) * 0.5 * (1 + math.cos(math.pi * progress)))
