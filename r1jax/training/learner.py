"""One optimiser step over packed micro-batches: jitted, sharded, donated.

Frozen parameters, those beside adapters, are an argument of it that it only
reads: they have neither gradients nor moments, and whoever else holds them,
such as a reference policy, holds the same arrays.
"""

import functools

import jax
import jax.numpy as jnp

from r1jax import meshes, sharding
from r1jax import model as model_lib
from r1jax.model import lora
from r1jax.training import optimizer as optim
from r1jax.types import Batch


def accumulate(loss_fn, params, batch, dtype=jnp.float32):
  """Gradient of the summed losses of a batch's micro-batches.

  Since the weights of the whole batch sum to one, the sum is the gradient of
  the batch in one piece, however it was cut. Each part of a gradient, of a
  layer or of a block of the vocabulary, is added to the sum when it is there:
  of several micro-batches, too, there is one set of gradients.

  Args:
    loss_fn: (params, micro-batch) -> (loss, dict of scalars), all weighted
      sums. A micro-batch has leaves [B, T].
    params: pytree.
    batch: `Batch` with leaves [M, B, T]; the first `count` are visited.
    dtype: of the sum of several micro-batches' gradients.

  Returns:
    gradients in float32 and the dict with "loss" added, summed.
  """
  several = batch.tokens.shape[0] > 1
  dtype = jnp.dtype(dtype if several else jnp.float32)
  zeros = jax.tree.map(lambda p: jnp.zeros(p.shape, dtype), params)
  sums = jax.tree.map(jax.new_ref, zeros)
  # Gradients are taken of arrays of the sum's type, since they have the type
  # of what they are of: of the parameters, or where these have another type,
  # of zeros that are added to them.
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
    return loss, {"loss": loss, **metrics}

  def add(i, metrics):
    loss, vjp, new = jax.vjp(lambda x: loss_of(x, i), variables, has_aux=True)
    # Adds each gradient to its sum, and returns none. What `summing` has added
    # already is none of them.
    vjp.with_refs(sums)(jnp.ones_like(loss))
    return jax.tree.map(jnp.add, metrics, new)

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


def micro_batch(batch, i):
  """The i-th micro-batch of a `Batch`, leaves [B, T]."""
  leaves = jax.tree.map(
    lambda x: jax.lax.dynamic_index_in_dim(x, i, 0, False), batch[:-1]
  )
  return Batch(*leaves, count=batch.count)


@functools.lru_cache
def init_fn(model, optimizer, mesh):
  """(key) -> `TrainState` with random parameters, sharded by the rules."""

  return jax.jit(
    functools.partial(_init, model, optimizer),
    out_shardings=state_shardings(model, optimizer, mesh),
  )


def _init(model, optimizer, key):
  params = model_lib.init(model, key)
  trained, _ = lora.split(params)
  return optim.init_state(optimizer, trained)._replace(params=params)


@functools.lru_cache
def restart_fn(model, optimizer, mesh):
  """(params) -> `TrainState` at step 0 with a copy of what is trained."""

  @functools.partial(
    jax.jit, out_shardings=_trained_shardings(model, optimizer, mesh)
  )
  def restart(trained):
    return optim.init_state(optimizer, jax.tree.map(jnp.copy, trained))

  def whole(params):
    trained, frozen = lora.split(params)
    return _with_frozen(restart(trained), frozen)

  return whole


def _with_frozen(state, frozen):
  """The whole `TrainState` from one of what is trained."""
  return state._replace(params=lora.join(state.params, frozen))


@functools.lru_cache
def adapters_fn(model, mesh):
  """(key) -> the adapters that `init_fn` makes of it, sharded by the rules."""

  def adapters(key):
    return lora.split(model_lib.init(model, key))[0]

  shapes = jax.eval_shape(adapters, jax.random.key(0))
  return jax.jit(adapters, out_shardings=sharding.tree_shardings(mesh, shapes))


def state_shapes(model, optimizer):
  """The `TrainState` as `jax.ShapeDtypeStruct`s."""
  return jax.eval_shape(
    functools.partial(_init, model, optimizer), jax.random.key(0)
  )


def state_shardings(model, optimizer, mesh):
  """A sharding for each leaf of the `TrainState`."""
  shapes = state_shapes(model, optimizer)
  found = sharding.tree_shardings(mesh, shapes)
  if not optimizer.offload:
    return found
  host = sharding.in_host_memory(mesh, shapes)
  return found._replace(opt_state=host.opt_state)


def _trained_shardings(model, optimizer, mesh):
  """As `state_shardings`, without frozen parameters."""
  found = state_shardings(model, optimizer, mesh)
  return found._replace(params=lora.split(found.params)[0])


def update_fn(loss_fn, model, optimizer, mesh):
  """Compiles (state, batch, learning rate, *constants) -> (state, metrics).

  Args:
    loss_fn: (params, micro-batch, *constants) -> (loss, dict of scalars).
    model, optimizer: their frozen configs.
    mesh: where it runs.

  Returns:
    A function that runs compiled ones; it donates `state` but for its frozen
    parameters. Metrics are replicated scalars, "grad_norm" among them.
  """
  if optimizer.offload:
    # Two programs: a single one would fetch the moments before it begins, and
    # have them on the devices beside the activations after all.
    gradients = gradients_fn(loss_fn, model, optimizer, mesh)
    apply = apply_fn(model, optimizer, mesh)

    def step(state, frozen, batch, learning_rate, *constants):
      grads, metrics = gradients(state.params, frozen, batch, *constants)
      return apply(state, grads, metrics, learning_rate)

  else:

    def one(state, frozen, batch, learning_rate, *constants):
      grads, metrics = _gradients(
        loss_fn, optimizer, mesh, state.params, frozen, batch, *constants
      )
      return _apply(optimizer, mesh, state, grads, metrics, learning_rate)

    step = _compiled(one, model, optimizer, mesh)

  def update(state, batch, learning_rate, *constants):
    trained, frozen = lora.split(state.params)
    state, metrics = step(
      state._replace(params=trained), frozen, batch, learning_rate, *constants
    )
    return _with_frozen(state, frozen), metrics

  return update


def gradients_fn(loss_fn, model, optimizer, mesh):
  """Compiles (trained, frozen, batch, *constants) -> (gradients, metrics).

  Args:
    As of `update_fn`; `lora.split` says which parameters are trained.
  """
  where = _trained_shardings(model, optimizer, mesh).params
  return jax.jit(
    functools.partial(_gradients, loss_fn, optimizer, mesh),
    out_shardings=(where, sharding.replicated(mesh)),
  )


def _gradients(loss_fn, optimizer, mesh, trained, frozen, batch, *constants):
  # What the rules of `matmul` and of the head say of a frozen weight nobody
  # reads: the compiler leaves its products and its sum out.
  with meshes.on(mesh):
    return accumulate(
      lambda p, micro: loss_fn(lora.join(p, frozen), micro, *constants),
      trained,
      batch,
      optimizer.accumulator,
    )


def apply_fn(model, optimizer, mesh):
  """Compiles (state, gradients, metrics, learning rate) -> (state, metrics).

  The state's parameters are those that are trained.
  """
  return _compiled(
    functools.partial(_apply, optimizer, mesh), model, optimizer, mesh
  )


def _apply(optimizer, mesh, state, grads, metrics, learning_rate):
  if optimizer.offload:
    state = state._replace(opt_state=sharding.to_device(mesh, state.opt_state))
  state, norm = optim.apply_gradients(optimizer, state, grads, learning_rate)
  return state, {**metrics, "grad_norm": norm}


def _compiled(update, model, optimizer, mesh):
  """A function to (state, metrics) that donates the state it is given."""
  where = _trained_shardings(model, optimizer, mesh), sharding.replicated(mesh)
  return jax.jit(update, donate_argnums=0, out_shardings=where)


def place(batch, mesh):
  """Puts a `Batch` of numpy arrays on the mesh, rows over data and fsdp."""
  return sharding.put(batch, sharding.rows(mesh, axis=1))


def place_params(params, mesh):
  """Puts parameters on the mesh, by the rules."""
  return jax.device_put(params, sharding.tree_shardings(mesh, params))


def new_state(model, optimizer, mesh, init, key):
  """A fresh `TrainState`: from another state's parameters, or random.

  Args:
    init: a `TrainState` or None. Where the model has adapters and its
      parameters have none, fresh ones join them, which change nothing yet.
    key: typed PRNG key for what is random.
  """
  if init is None:
    return init_fn(model, optimizer, mesh)(key)
  params = place_params(init.params, mesh)
  _, frozen = lora.split(params)
  if model.lora_rank and not frozen:
    params = lora.join(adapters_fn(model, mesh)(key), params)
  return restart_fn(model, optimizer, mesh)(params)
