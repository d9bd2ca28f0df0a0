"""Optimisers and learning-rate schedules."""

import dataclasses
import functools
import math
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax
import optax.contrib

from r1jax import checks
from r1jax.errors import UserError
from r1jax.training import moments
from r1jax.types import TrainState


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
  """What is fixed for a run; the learning rate is an argument of each step.

  So phases that differ only in their learning rates share one compiled update.
  """

  # "adamw" (Loshchilov and Hutter 2019), or "muon" (Jordan et al. 2024):
  # orthogonalized momentum for the matrices of the layers, Adam at 0.3 of the
  # learning rate for the rest.
  kind: Literal["adamw", "muon"] = "adamw"
  # Decay of Adam's first moment.
  b1: float = 0.9
  # Decay of Adam's second moment.
  b2: float = 0.95
  # Added to the root of AdamW's second moment.
  eps: float = 1e-8
  # Share of a weight that AdamW takes off in a step, times the learning rate.
  weight_decay: float = 0.0
  # Largest global norm of a gradient; longer gradients are scaled down.
  clip_norm: float = 1.0
  # How AdamW stores its two moments: 8, 4 or 2 bytes a parameter.
  moments: Literal["float32", "bfloat16", "int8"] = "float32"
  # How the gradients of several micro-batches are summed: 4 or 2 bytes a
  # parameter.
  accumulator: Literal["float32", "bfloat16"] = "float32"
  # Whether the moments stay in host memory while gradients are computed. The
  # reference model of RL stays there too, except while it scores a rollout.
  offload: bool = False

  def __post_init__(self):
    checks.known(self, "kind", "moments", "accumulator")
    checks.at_least(self, 0, "b1", "b2", "weight_decay")
    checks.below(self, 1, "b1", "b2")
    checks.above(self, 0, "eps", "clip_norm")
    if self.kind != "adamw" and self.moments != "float32":
      raise UserError(
        f'moments="{self.moments}" needs kind="adamw", not "{self.kind}"'
      )


def transform(
  config: OptimizerConfig, facts: Any
) -> optax.GradientTransformation:
  """The optax chain, without the learning rate: what is subtracted.

  Args:
    config: the `OptimizerConfig`.
    facts: nested dict of `model.Facts`, one for each parameter.
  """
  clip = optax.stateless(
    lambda grads, _: _clip_by_global_norm(grads, config.clip_norm)
  )
  if config.kind == "muon":
    return optax.chain(
      clip,
      optax.contrib.muon(
        1.0,
        adam_b1=config.b1,
        adam_b2=config.b2,
        adam_learning_rate=0.3,
        muon_weight_dimension_numbers=functools.partial(_muon, facts),
      ),
      optax.scale(-1.0),
    )
  rates = (config.b1, config.b2, config.eps)
  if config.moments == "float32":
    adam = optax.scale_by_adam(*rates)
  else:
    adam = moments.scale_by_adam(*rates, config.moments)
  return optax.chain(
    clip,
    adam,
    optax.add_decayed_weights(
      config.weight_decay, mask=jax.tree.map(lambda f: f.decays, facts)
    ),
  )


def _clip_by_global_norm(grads, most):
  """Scales gradients down to a global norm of at most `most`.

  `optax.clip_by_global_norm` divides each entry. XLA finds that division
  expensive and stores the result, a second set of gradients. A multiplication
  by one factor avoids this.
  """
  factor = jnp.minimum(1.0, most / optax.global_norm(grads))
  return jax.tree.map(lambda g: (g * factor).astype(g.dtype), grads)


def _muon(facts, params):
  """For Muon: the axes of the layers' matrices; None is left to Adam.

  Args:
    facts: nested dict of `Facts`.
    params: the same of arrays; optax replaces leaves that Adam updates.
  """

  def numbers(f, x):
    if f.is_layer_matrix:
      return optax.contrib.MuonDimensionNumbers(x.ndim - 2, x.ndim - 1)
    return None

  return jax.tree.map(
    lambda f, leaf: jax.tree.map(functools.partial(numbers, f), leaf),
    facts, params,
  )  # fmt: skip


def init_state(config: OptimizerConfig, facts: Any, params: Any) -> TrainState:
  """A `TrainState` at step 0; the arguments are those of `transform`."""
  return TrainState(
    step=jnp.int32(0),
    params=params,
    opt_state=transform(config, facts).init(params),
  )


def apply_gradients(
  config: OptimizerConfig,
  facts: Any,
  state: TrainState,
  grads: Any,
  learning_rate: Any,
) -> tuple[TrainState, jax.Array]:
  """One step of the optimizer.

  Args:
    config, facts: as of `transform`.
    state: the `TrainState`.
    grads: a tree like its parameters.
    learning_rate: [] float32.

  Returns:
    the new `TrainState`, and the global norm of `grads` before clipping.
  """
  updates, opt_state = transform(config, facts).update(
    grads, state.opt_state, state.params
  )
  params = jax.tree.map(
    lambda p, u: (p - learning_rate * u).astype(p.dtype), state.params, updates
  )
  norm = optax.global_norm(grads)
  return TrainState(state.step + 1, params, opt_state), norm


def learning_rate(
  step: int,
  *,
  lr: float,
  steps: int,
  schedule: str = "constant",
  warmup: int = 0,
  end: float = 0.1,
) -> float:
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
