"""What is computed of a packed batch of RL: log-probabilities, loss, update."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from r1jax import losses, meshes, sharding, variants
from r1jax import model as model_lib
from r1jax.model import ModelConfig
from r1jax.training import learner, policy
from r1jax.training.optimizer import OptimizerConfig
from r1jax.types import Batch


@functools.lru_cache
def update_fn(
  model: ModelConfig, optimizer: OptimizerConfig, mesh: meshes.Mesh
) -> learner.Update:
  """The compiled optimizer step of RL, made once for the same arguments.

  Args:
    model: the `ModelConfig`.
    optimizer: the `OptimizerConfig`.
    mesh: the `meshes.Mesh` to run on.

  Returns:
    `learner.Update`: (state, batch, learning rate, reference, loss,
    temperature) -> (state, metrics). The reference is parameters or None,
    `loss` a `variants.Loss`.
  """
  return learner.Update(loss_fn(model), model, optimizer, mesh)


def loss_fn(model: ModelConfig) -> Callable:
  """The loss of a micro-batch, as `learner.Update` takes it.

  Args:
    model: the `ModelConfig`.

  Returns:
    function (params, micro-batch, reference, loss, temperature) -> (value,
    metrics), with the arguments of `update_fn`.
  """

  def loss_of(params, batch, reference, loss, temperature):
    logprobs, entropy = _score(model, params, batch, temperature)
    if batch.reference_logprobs is not None:
      ref_logprobs = batch.reference_logprobs
    elif reference is None:  # loss.beta is 0
      ref_logprobs = jax.lax.stop_gradient(logprobs)
    else:
      ref_logprobs, _ = jax.lax.stop_gradient(
        _score(model, reference, batch, temperature)
      )
    old = batch.old_logprobs
    if loss.correction != "none":
      old = batch.learner_logprobs
      old = jax.lax.stop_gradient(logprobs) if old is None else old
    value, metrics = variants.policy_loss(
      loss, logprobs, old, ref_logprobs, batch.advantages, batch.weights,
      segments=batch.segments, sampler_logprobs=batch.old_logprobs,
    )  # fmt: skip
    real = batch.weights > 0
    gap = jnp.where(real, logprobs - batch.old_logprobs, 0.0)
    return value, {
      **metrics,
      "trained": batch.weights.sum(),
      "entropy": (batch.weights * entropy).sum(),
      "old_gap": (batch.weights * jnp.abs(gap)).sum(),
      "old_kl": (batch.weights * losses.kl_k3(jnp.zeros_like(gap), gap)).sum(),
      "old_ratio": (batch.weights * jnp.exp(gap)).sum(),
      "largest": {"old_gap": jnp.abs(gap).max()},
    }

  return loss_of


class Logprobs:
  """Compiles (params, batch, temperature) -> log-probabilities [M, B, T].

  They are computed in the learner's arithmetic, one micro-batch at a time.

  Args:
    model: the `ModelConfig`.
    mesh: the `meshes.Mesh` to run on.
  """

  def __init__(self, model: ModelConfig, mesh: meshes.Mesh):
    self._model, self._mesh = model, mesh
    self._program = jax.jit(
      self._logprobs, out_shardings=sharding.replicated(mesh)
    )

  def __call__(self, params: Any, batch: Batch, temperature: float) -> Any:
    """The log-probabilities of a batch.

    Args:
      params: on the devices, or as `sharding.to_host` leaves them.
      batch: a `Batch` that `learner.place` has placed.
      temperature: divides the logits.
    """
    return self._program(params, batch, temperature)

  def shapes(self, batch: Batch) -> tuple:
    """Abstract arguments, with shardings.

    Args:
      batch: a `Batch` of arrays or shapes.

    Returns:
      the parameters, the batch and the temperature, of
      `jax.ShapeDtypeStruct`s.
    """
    params = model_lib.placed_shapes(self._model, self._mesh)
    temperature = jax.ShapeDtypeStruct((), jnp.float32)
    return params, learner.batch_shapes(batch, self._mesh), temperature

  def lower(self, params: Any, batch: Batch, temperature: Any) -> Any:
    """The program for such arguments, arrays or shapes: a `Lowered`."""
    return self._program.lower(params, batch, temperature)

  def _logprobs(self, params, batch, temperature):
    def micro(i, out):
      b = learner.micro_batch(batch, i)
      return out.at[i].set(_score(self._model, params, b, temperature)[0])

    where = model_lib.part(model_lib.shardings(self._model, self._mesh), params)
    params = sharding.to_device(params, where)
    with meshes.on(self._mesh):
      zeros = jnp.zeros(batch.tokens.shape, jnp.float32)
      return jax.lax.fori_loop(0, batch.count, micro, zeros)


def with_logprobs(
  config: Any, mesh: meshes.Mesh, params: Any, reference: Any, batch: Batch
) -> Batch:
  """A packed batch with the log-probabilities that the updates need.

  These are log pi_old in the learner's arithmetic, if a correction needs it
  (with one update a rollout, the update itself computes it); and log pi_ref,
  if the reference is in host memory.

  Args:
    config: `GRPO`.
    mesh: the `meshes.Mesh` of the learner.
    params: of the policy.
    reference: parameters of the reference, or None.
    batch: `Batch` of numpy arrays.
  """

  def logprobs(params):
    placed = learner.place(batch, mesh)
    return np.asarray(compiled(params, placed, config.temperature))

  compiled = _logprobs_fn(config.model, mesh)
  found = {}
  if config.loss.correction != "none" and config.minibatches > 1:
    found["learner_logprobs"] = logprobs(params)
  if reference is not None and config.optimizer.offload:
    found["reference_logprobs"] = logprobs(reference)
  return batch._replace(**found)


@functools.lru_cache
def _logprobs_fn(model, mesh):
  return Logprobs(model, mesh)


def _score(model, params, batch, temperature):
  """`policy.logprobs` of a micro-batch."""
  return policy.logprobs(model, params, policy.rows_of(batch), temperature)
