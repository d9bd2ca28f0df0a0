"""The train state: how it begins, what training changes of it, where it lives.

Facts of the parameters say which of them training changes (`model.facts`). By
default that is all of them; where the model has adapters, these alone. Most
change by their gradients; a parameter with a rule changes by that rule.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict

from r1jax import meshes, sharding
from r1jax import model as model_lib
from r1jax.model import Model
from r1jax.training import optimizer as optim
from r1jax.training.optimizer import OptimizerConfig
from r1jax.types import TrainState


def split(model: Model, params: Any) -> tuple[Any, Any]:
  """The parameters that training changes, and those that are frozen.

  Args:
    model: the `Model` whose parameters they are.
    params: nested dict like its parameters, whatever the leaves; adapters may
      be absent.

  Returns:
    two nested dicts, each with its own leaves only.
  """
  return _divide(model, params, lambda f: f.trained)


def split_rules(model: Model, trained: Any) -> tuple[Any, Any]:
  """The trained parameters that change by gradients, and by rules.

  Args:
    model: the `Model`.
    trained: what `split` returns first.

  Returns:
    two nested dicts, as of `split`.
  """
  return _divide(model, trained, lambda f: f.rule is None)


def _divide(model, params, condition):
  """A tree's leaves whose facts meet the condition, and the others."""
  flat = flatten_dict(params)
  facts = flatten_dict(model_lib.part(model_lib.facts_of(model), params))
  first = {k: x for k, x in flat.items() if condition(facts[k])}
  second = {k: x for k, x in flat.items() if k not in first}
  return unflatten_dict(first), unflatten_dict(second)


def join(*parts: Any) -> Any:
  """The tree that was split into these parts."""
  flat = {}
  for tree in parts:
    flat |= flatten_dict(tree)
  return unflatten_dict(flat)


def apply_rules(model: Model, ruled: Any, signals: Any) -> Any:
  """The new values of the parameters that change by a rule.

  Args:
    model: the `Model`.
    ruled: what `split_rules` returns second.
    signals: the same of arrays, what the rules go by.
  """
  facts = model_lib.part(model_lib.facts_of(model), ruled)
  return jax.tree.map(lambda f, x, s: f.rule(x, s), facts, ruled, signals)


@functools.lru_cache
def gradient_facts(model: Model) -> Any:
  """The `Facts` of the parameters that change by their gradients, a tree."""
  trained, _ = split(model, model_lib.facts_of(model))
  return split_rules(model, trained)[0]


def _random(model, optimizer, key):
  return _at_start(model, optimizer, model_lib.init(model, key))


def _at_start(model, optimizer, params):
  """The `TrainState` at step 0; frozen parameters may be absent."""
  trained, _ = split(model, params)
  variables, _ = split_rules(model, trained)
  state = optim.init_state(optimizer, gradient_facts(model), variables)
  return state._replace(params=params)


@functools.lru_cache
def shapes(model: Model, optimizer: OptimizerConfig) -> TrainState:
  """The `TrainState` as `jax.ShapeDtypeStruct`s."""
  key = jax.eval_shape(lambda: jax.random.key(0))
  return jax.eval_shape(functools.partial(_random, model, optimizer), key)


def shardings(
  model: Model, optimizer: OptimizerConfig, mesh: meshes.Mesh
) -> TrainState:
  """A sharding for each leaf of the `TrainState`.

  The optimizer's arrays live as the parameters that they belong to; with
  `offload`, in the memory of the hosts. Numbers are on every device.

  Raises:
    UserError: the mesh does not fit a parameter.
  """
  facts, opt_state = gradient_facts(model), shapes(model, optimizer).opt_state
  found = along(facts, opt_state, mesh)
  if optimizer.offload:
    found = jax.tree.map(
      lambda s, x: sharding.in_host_memory(s) if x.ndim else s,
      found, opt_state,
    )  # fmt: skip
  return TrainState(
    step=sharding.replicated(mesh),
    params=model_lib.shardings(model, mesh),
    opt_state=found,
  )


def along(facts: Any, opt_state: Any, mesh: meshes.Mesh) -> Any:
  """A sharding for each array of an optimizer's state.

  Args:
    facts: nested dict of `Facts`, one for each parameter that it updates.
    opt_state: of optax. Trees in it that look like the parameters belong to
      them leaf by leaf; everything else every device holds whole.
    mesh: the `meshes.Mesh`.
  """

  def is_like_params(x):
    return isinstance(x, dict) and x.keys() == facts.keys()

  def of_leaf(path, f, kept):
    name = sharding.path_name(path)
    return jax.tree.map(
      lambda x: sharding.parameter(name, f.axes, x.shape, mesh, f.units), kept
    )

  def of_tree(x):
    if not is_like_params(x):
      return sharding.replicated(mesh)
    return jax.tree_util.tree_map_with_path(of_leaf, facts, x)

  return jax.tree.map(of_tree, opt_state, is_leaf=is_like_params)


def trained_shardings(
  model: Model, optimizer: OptimizerConfig, mesh: meshes.Mesh
) -> TrainState:
  """As `shardings`, without the frozen parameters."""
  found = shardings(model, optimizer, mesh)
  return found._replace(params=split(model, found.params)[0])


@functools.lru_cache
def random_fn(
  model: Model, optimizer: OptimizerConfig, mesh: meshes.Mesh
) -> Callable:
  """Compiles (key) -> `TrainState` with random parameters."""
  return jax.jit(
    functools.partial(_random, model, optimizer),
    out_shardings=shardings(model, optimizer, mesh),
  )


@functools.lru_cache
def restart_fn(
  model: Model, optimizer: OptimizerConfig, mesh: meshes.Mesh
) -> Callable:
  """Compiles (params) -> `TrainState` at step 0.

  It holds a copy of what is trained, and the frozen parameters themselves.
  """

  @functools.partial(
    jax.jit, out_shardings=trained_shardings(model, optimizer, mesh)
  )
  def restart(trained):
    return _at_start(model, optimizer, jax.tree.map(jnp.copy, trained))

  def whole(params):
    trained, frozen = split(model, params)
    return with_frozen(restart(trained), frozen)

  return whole


def with_frozen(state: TrainState, frozen: Any) -> TrainState:
  """The whole `TrainState` from one that lacks the frozen parameters."""
  return state._replace(params=join(state.params, frozen))


@functools.lru_cache
def trained_fn(model: Model, mesh: meshes.Mesh) -> Callable:
  """Compiles (key) -> what `random_fn` makes of it that is trained."""

  def trained(key):
    return split(model, model_lib.init(model, key))[0]

  where, _ = split(model, model_lib.shardings(model, mesh))
  return jax.jit(trained, out_shardings=where)


def new_state(
  model: Model,
  optimizer: OptimizerConfig,
  mesh: meshes.Mesh,
  init: TrainState | None,
  key: jax.Array,
) -> TrainState:
  """A fresh `TrainState`: from another state's parameters, or random.

  Args:
    model: the `Model`.
    optimizer: the `OptimizerConfig`.
    mesh: the `meshes.Mesh`.
    init: a `TrainState`, of which only the parameters are used, or None. If
      they lack the model's adapters, new ones are added, which change nothing
      yet.
    key: typed PRNG key for what is random.
  """
  if init is None:
    return random_fn(model, optimizer, mesh)(key)
  params = model_lib.place(model, init.params, mesh)
  trained, _ = split(model, params)
  if not trained:
    params = join(trained_fn(model, mesh)(key), params)
  return restart_fn(model, optimizer, mesh)(params)
