"""Optimisers and learning-rate schedules."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import optax
import optax.contrib

from r1jax.errors import UserError
from r1jax.model import lora
from r1jax.training import moments
from r1jax.types import TrainState

KINDS = ("adamw", "muon")


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
  """What is fixed for a run; the learning rate is an argument of each step.

  Kept apart so that phases that differ in their learning rates only share
  one compiled update.

  Attributes:
    kind: "adamw" (Loshchilov and Hutter 2019), or "muon" (Jordan et al.
      2024): orthogonalised momentum for the matrices of the layers, Adam at
      0.3 of the learning rate for the rest.
    b1, b2, eps, weight_decay: of AdamW; Muon's Adam takes b1 and b2.
    clip_norm: the gradient's greatest global norm.
    moments: how AdamW keeps its two moments between steps: "float32",
      "bfloat16" or "int8", 8, 4 or 2 bytes a parameter (`moments`).
    accumulator: "float32" or "bfloat16", in which the gradients of several
      micro-batches are added; 4 or 2 bytes a parameter.
    offload: whether the moments wait in the hosts' memory from step to step,
      and the reference of RL from rollout to rollout; the devices hold them
      only while the parameters change, and while it scores a rollout.
  """

  kind: str = "adamw"
  b1: float = 0.9
  b2: float = 0.95
  eps: float = 1e-8
  weight_decay: float = 0.0
  clip_norm: float = 1.0
  moments: str = "float32"
  accumulator: str = "float32"
  offload: bool = False

  def __post_init__(self):
    for name, known in (
      ("kind", KINDS),
      ("moments", moments.KINDS),
      ("accumulator", ("float32", "bfloat16")),
    ):
      value = getattr(self, name)
      if value not in known:
        raise UserError(
          f'optimizer: {name} "{value}" is unknown; known: {", ".join(known)}'
        )
    if self.kind != "adamw" and self.moments != "float32":
      raise UserError(
        f'optimizer: moments "{self.moments}" are of adamw, not {self.kind}'
      )


def transform(config):
  """The optax chain, without the learning rate: what is subtracted."""
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
        muon_weight_dimension_numbers=_layer_matrices,
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
    optax.add_decayed_weights(config.weight_decay, mask=_matrices),
  )


def _clip_by_global_norm(grads, most):
  """Gradients whose global norm is `most` at most.

  As `optax.clip_by_global_norm`, with one factor for all: its division of each
  entry is dear enough that the compiler keeps the result, a second set of
  gradients.
  """
  factor = jnp.minimum(1.0, most / optax.global_norm(grads))
  return jax.tree.map(lambda g: (g * factor).astype(g.dtype), grads)


def _matrices(params):
  """True for weights, False for gains and biases: these do not decay."""
  return jax.tree_util.tree_map_with_path(
    lambda path, _: path[-1].key in ("kernel", "embedding", *lora.NAMES),
    params,
  )


def _layer_matrices(params):
  """For Muon: the stacked [L, in, out] weights; None is left to Adam."""
  numbers = optax.contrib.MuonDimensionNumbers(1, 2)
  return jax.tree.map(lambda x: numbers if x.ndim == 3 else None, params)


def init_state(config, params):
  """A `TrainState` at step 0."""
  return TrainState(
    step=jnp.int32(0),
    params=params,
    opt_state=transform(config).init(params),
  )


def apply_gradients(config, state, grads, learning_rate):
  """One step of the optimiser.

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
