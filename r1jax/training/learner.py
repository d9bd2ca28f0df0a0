"""One optimizer step over packed micro-batches: jitted, sharded, donated.

The step only reads frozen parameters. They have no gradients and no moments,
and other holders of them, such as a reference policy, keep the same arrays.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from r1jax import meshes, sharding
from r1jax import model as model_lib
from r1jax.model import Model
from r1jax.training import optimizer as optim
from r1jax.training import state as state_lib
from r1jax.training.optimizer import OptimizerConfig
from r1jax.types import Batch, TrainState


def accumulate(
  loss_fn: Callable,
  params: Any,
  batch: Batch,
  dtype: Any = jnp.float32,
  finite: bool = False,
) -> tuple[Any, dict[str, jax.Array]]:
  """Gradient of the summed losses of a batch's micro-batches.

  The weights of the whole batch sum to one, so the sum is the gradient of the
  whole batch, however it was cut. Gradients are accumulated in place, layer by
  layer and for tables tile by tile. So memory holds one set of gradients,
  regardless of the number of micro-batches.

  Args:
    loss_fn: (params, micro-batch) -> (loss, dict of scalars or arrays), all of
      them weighted sums, except in its entry "largest", a dict of scalars whose
      maxima are taken. A micro-batch has leaves [B, T].
    params: pytree of arrays.
    batch: `Batch` with leaves [M, B, T]. Only the first `count` micro-batches
      contain data.
    dtype: dtype of the sum of several micro-batches' gradients.
    finite: whether the dict also gets "finite", [M] bool: which micro-batches
      have a loss that is a finite number.

  Returns:
    gradients in float32; the dict of sums over the micro-batches, with the
    loss as "loss".
  """
  several = batch.tokens.shape[0] > 1
  dtype = jnp.dtype(dtype if several else jnp.float32)
  zeros = jax.tree.map(lambda p: jnp.zeros(p.shape, dtype), params)
  sums = jax.tree.map(jax.new_ref, zeros)
  # A gradient has the dtype of its variable, and the sum's dtype is wanted. So
  # a parameter of another dtype gets a variable of zeros, which is added to it.
  variables = jax.tree.map(
    lambda p, zero: p if p.dtype == dtype else zero, params, zeros
  )

  def loss_of(variables, i):
    p = jax.tree.map(
      lambda p, x: x if p.dtype == dtype else p + x.astype(p.dtype),
      params, variables,
    )  # fmt: skip
    with model_lib.summing(p, sums):
      loss, metrics = loss_fn(p, micro_batch(batch, i))
    if finite:
      here = jnp.arange(batch.tokens.shape[0]) == i
      metrics = {**metrics, "finite": here & jnp.isfinite(loss)}
    return loss, {"loss": loss, **metrics}

  def add(i, metrics):
    loss, vjp, new = jax.vjp(lambda x: loss_of(x, i), variables, has_aux=True)
    # Adds each gradient to its sum and returns none. Gradients that `summing`
    # added are not among them.
    vjp.with_refs(sums)(jnp.ones_like(loss))
    return jax.tree_util.tree_map_with_path(_add, metrics, new)

  shapes = jax.eval_shape(loss_of, variables, 0)[1]
  none = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
  if several:
    metrics = jax.lax.fori_loop(0, batch.count, add, none)
  else:
    # In a loop whose index is always 0 no gradient depends on it; the compiler
    # would compute them before the loop, a second set beside the sum.
    metrics = jax.lax.cond(batch.count > 0, lambda: add(0, none), lambda: none)
  grads = jax.tree.map(lambda g: jax.freeze(g).astype(jnp.float32), sums)
  return grads, metrics


def _add(path, old, new):
  """The sum of a metric so far, or its maximum."""
  return (jnp.maximum if path[0].key == "largest" else jnp.add)(old, new)


def micro_batch(batch: Batch, i: Any) -> Batch:
  """The i-th micro-batch of a `Batch`, leaves [B, T]."""
  leaves = jax.tree.map(
    lambda x: jax.lax.dynamic_index_in_dim(x, i, 0, False), batch[:-1]
  )
  return Batch(*leaves, count=batch.count)  # type: ignore[misc]


class Gradients:
  """Compiles (params, batch, *constants) -> (gradients, metrics).

  Args:
    loss_fn: (params, micro-batch, *constants) -> (loss, dict of scalars).
    model: the `Model` of the parameters.
    optimizer: the `OptimizerConfig`; only its accumulator is used.
    mesh: the `meshes.Mesh` to run on.
  """

  def __init__(
    self,
    loss_fn: Callable,
    model: Model,
    optimizer: OptimizerConfig,
    mesh: meshes.Mesh,
  ) -> None:
    self._model, self._mesh = model, mesh
    trained, _ = state_lib.split(model, model_lib.shardings(model, mesh))
    where, _ = state_lib.split_rules(model, trained)
    self._program = jax.jit(
      functools.partial(_gradients, loss_fn, model, optimizer, mesh),
      out_shardings=(where, sharding.replicated(mesh)),
    )

  def __call__(
    self, params: Any, batch: Batch, *constants: Any
  ) -> tuple[Any, dict[str, jax.Array]]:
    return self._program(*self._split(params), batch, *constants)

  def shapes(self, batch: Batch) -> tuple[Any, Batch]:
    """Abstract arguments, with shardings.

    Args:
      batch: a `Batch` of arrays or shapes.

    Returns:
      the parameters and the batch, of `jax.ShapeDtypeStruct`s.
    """
    params = model_lib.placed_shapes(self._model, self._mesh)
    return params, batch_shapes(batch, self._mesh)

  def lower(
    self, params: Any, batch: Batch, *constants: Any
  ) -> jax.stages.Lowered:
    """The program for such arguments, arrays or shapes: a `Lowered`."""
    return self._program.lower(*self._split(params), batch, *constants)

  def _split(self, params):
    return state_lib.split(self._model, params)


class Update:
  """Compiles (state, batch, learning rate, *constants) -> (state, metrics).

  It donates the state, except for its frozen parameters. Metrics are scalars
  that every device holds; "grad_norm" is one of them. If the loss, the norm of
  the gradient or the learning rate is not finite, the step is not applied: the
  state stays as it is, to the bit. The entry "checks" of the metrics is a dict:

    applied  [] bool, whether the step was applied.
    losses   [M] bool, which micro-batches had a finite loss.
    params   [] bool, whether all trained parameters are finite now.

  Parameters with a rule have no gradient. The loss gives them signals instead:
  its dict has an entry "signals", a nested dict with an array for each such
  parameter, which is summed over the micro-batches like a metric. After the
  optimizer's step the rule makes the new value of the old one and the signal.

  Args:
    loss_fn: (params, micro-batch, *constants) -> (loss, dict of scalars).
    model: the `Model` of the parameters.
    optimizer: the `OptimizerConfig`.
    mesh: the `meshes.Mesh` to run on.
  """

  def __init__(
    self,
    loss_fn: Callable,
    model: Model,
    optimizer: OptimizerConfig,
    mesh: meshes.Mesh,
  ) -> None:
    self._model, self._optimizer, self._mesh = model, optimizer, mesh
    where = state_lib.trained_shardings(model, optimizer, mesh)
    compiled = functools.partial(
      jax.jit,
      donate_argnums=0,
      out_shardings=(where, sharding.replicated(mesh)),
    )
    apply = functools.partial(_apply, model, optimizer, mesh)

    def step(state, frozen, batch, learning_rate, *constants):
      grads, metrics = _gradients(
        loss_fn, model, optimizer, mesh, state.params, frozen, batch, *constants
      )
      return apply(state, grads, metrics, learning_rate)

    # With moments in host memory there are two programs. A single program would
    # fetch the moments first, so the devices would hold them beside the
    # activations after all.
    self._gradients = Gradients(loss_fn, model, optimizer, mesh)
    self._apply = compiled(apply)
    self._step = compiled(step)

  def __call__(
    self, state: TrainState, batch: Batch, learning_rate: Any, *constants: Any
  ) -> tuple[TrainState, dict[str, jax.Array]]:
    trained, frozen = state_lib.split(self._model, state.params)
    part = state._replace(params=trained)
    if self._optimizer.offload:
      grads, metrics = self._gradients(state.params, batch, *constants)
      part, metrics = self._apply(part, grads, metrics, learning_rate)
    else:
      part, metrics = self._step(part, frozen, batch, learning_rate, *constants)
    return state_lib.with_frozen(part, frozen), metrics

  def shapes(self, batch: Batch) -> tuple[TrainState, Batch, Any]:
    """Abstract arguments, with shardings.

    Args:
      batch: a `Batch` of arrays or shapes.

    Returns:
      the `TrainState`, the batch and the learning rate, of
      `jax.ShapeDtypeStruct`s.
    """
    model, optimizer, mesh = self._model, self._optimizer, self._mesh
    state = sharding.placed_shapes(
      state_lib.shapes(model, optimizer),
      state_lib.shardings(model, optimizer, mesh),
    )
    return state, batch_shapes(batch, mesh), jax.ShapeDtypeStruct((), "float32")

  def lower(
    self, state: TrainState, batch: Batch, learning_rate: Any, *constants: Any
  ) -> dict[str, jax.stages.Lowered]:
    """The programs for such arguments, arrays or shapes.

    Returns:
      dict of `Lowered`: "step", or with `offload` "gradients" and "apply".
    """
    trained, frozen = state_lib.split(self._model, state.params)
    part = state._replace(params=trained)
    if not self._optimizer.offload:
      arguments = part, frozen, batch, learning_rate, *constants
      return {"step": self._step.lower(*arguments)}
    gradients = self._gradients.lower(state.params, batch, *constants)
    grads, metrics = gradients.out_info
    return {
      "gradients": gradients,
      "apply": self._apply.lower(part, grads, metrics, learning_rate),
    }


def _gradients(
  loss_fn, model, optimizer, mesh, trained, frozen, batch, *constants
):
  variables, ruled = state_lib.split_rules(model, trained)
  # The gradient rules of `matmul` and of the head also name gradients of
  # frozen weights. Nobody reads these, so XLA leaves out their computation.
  rest = state_lib.join(ruled, frozen)
  with meshes.on(mesh):
    return accumulate(
      lambda p, micro: loss_fn(state_lib.join(p, rest), micro, *constants),
      variables,
      batch,
      optimizer.accumulator,
      finite=True,
    )


def _apply(model, optimizer, mesh, old, grads, metrics, learning_rate):
  """The step of the optimizer and of the rules, on what is trained."""
  facts = state_lib.gradient_facts(model)
  if optimizer.offload:
    where = state_lib.shardings(model, optimizer, mesh).opt_state
    old = old._replace(opt_state=sharding.to_device(old.opt_state, where))
  norm = optax.global_norm(grads)
  applied = jnp.isfinite(norm) & jnp.isfinite(metrics["loss"])
  applied &= jnp.isfinite(learning_rate)
  signals = metrics.pop("signals", {})

  def step():
    variables, ruled = state_lib.split_rules(model, old.params)
    new, _ = optim.apply_gradients(
      optimizer, facts, old._replace(params=variables), grads, learning_rate
    )
    ruled = state_lib.apply_rules(model, ruled, signals)
    return new._replace(params=state_lib.join(new.params, ruled))

  # A choice of each number would hold both moments twice.
  new = jax.lax.cond(applied, step, lambda: old)
  checks = {
    "applied": applied,
    "losses": metrics.pop("finite"),
    "params": _all_finite(new.params),
  }
  return new, {**metrics, "grad_norm": norm, "checks": checks}


def _all_finite(tree):
  leaves = [jnp.isfinite(x).all() for x in jax.tree.leaves(tree)]
  return jnp.stack(leaves).all()


def batch_shapes(batch: Batch, mesh: meshes.Mesh) -> Batch:
  """A `Batch` of arrays or shapes as `jax.ShapeDtypeStruct`s, as `place`d."""
  rows, whole = sharding.rows(mesh, axis=1), sharding.replicated(mesh)
  where = jax.tree.map(lambda x: rows if x.ndim else whole, batch)
  return sharding.placed_shapes(batch, where)


def place(batch: Batch, mesh: meshes.Mesh) -> Batch:
  """Puts a `Batch` of numpy arrays on the mesh, rows over data and fsdp."""
  return sharding.put(batch, sharding.rows(mesh, axis=1))
