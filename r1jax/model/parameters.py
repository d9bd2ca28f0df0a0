"""Trees of parameters: made, described, placed and cut by layer.

A tree is a nested dict of plain arrays. A `Model` is a `ModelConfig`, or any
Linen module that takes tokens [B, T] and names the axes of its parameters.
"""

import dataclasses
import functools
import operator
from collections.abc import Iterator
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from r1jax import meshes, sharding
from r1jax.errors import UserError
from r1jax.model.config import ModelConfig
from r1jax.model.decoder import Decoder
from r1jax.model.facts import Boxed

Model = ModelConfig | nn.Module


def init(model: Model, key: jax.Array) -> Any:
  """Random parameters, those of the layers stacked on the first axis."""
  return nn.meta.unbox(_boxed(model, key))


def _boxed(model, key):
  module = model if isinstance(model, nn.Module) else Decoder(model)
  return module.init(key, jnp.zeros((1, 2), jnp.int32))["params"]


@functools.lru_cache
def shapes(model: Model) -> Any:
  """The parameters as `jax.ShapeDtypeStruct`s; computes none of them."""
  return nn.meta.unbox(_abstract(model))


def _abstract(model):
  key = jax.eval_shape(lambda: jax.random.key(0))
  return jax.eval_shape(functools.partial(_boxed, model), key)


@functools.lru_cache
def facts_of(model: Model) -> Any:
  """The `Facts` of each parameter, a tree like the parameters.

  Where a model has adapters, these alone are trained.

  Raises:
    UserError: a parameter names no axes.
  """
  boxed = _abstract(model)
  is_box = lambda x: isinstance(x, Boxed)  # noqa: E731
  boxes = jax.tree.leaves(boxed, is_leaf=is_box)
  adapted = any(is_box(x) and x.facts.kind == "adapter" for x in boxes)

  def of(path, x):
    if not is_box(x):
      raise UserError(
        f"model: the parameter {sharding.path_name(path)} of shape"
        f" {list(x.shape)} names no axes; wrap its initializer in"
        " model.facts.named"
      )
    if adapted and x.facts.kind != "adapter":
      return dataclasses.replace(x.facts, trained=False, rule=None)
    return x.facts

  return jax.tree_util.tree_map_with_path(of, boxed, is_leaf=is_box)


def axes(model: Model) -> Any:
  """The names of each parameter's axes, a tree of tuples."""
  return jax.tree.map(lambda f: f.axes, facts_of(model))


@functools.lru_cache
def shardings(model: Model, mesh: meshes.Mesh) -> Any:
  """The `NamedSharding` of each parameter, by the mesh's axis table.

  Raises:
    UserError: a parameter names no axes, or the mesh does not fit it.
  """
  return jax.tree_util.tree_map_with_path(
    lambda path, f, x: sharding.parameter(
      sharding.path_name(path), f.axes, x.shape, mesh, f.units
    ),
    facts_of(model), shapes(model),
  )  # fmt: skip


def placed_shapes(model: Model, mesh: meshes.Mesh) -> Any:
  """The parameters as `jax.ShapeDtypeStruct`s with their shardings.

  Args:
    model: whose parameters they are.
    mesh: the `meshes.Mesh`.

  Raises:
    UserError: as `shardings`.
  """
  return sharding.placed_shapes(shapes(model), shardings(model, mesh))


def place(model: Model, params: Any, mesh: meshes.Mesh) -> Any:
  """Puts parameters on the devices of a mesh, by its axis table.

  Args:
    model: whose parameters they are; adapters may be absent.
    params: nested dict of arrays.
    mesh: the `meshes.Mesh`.
  """
  return jax.device_put(params, part(shardings(model, mesh), params))


def part(tree: Any, params: Any) -> Any:
  """The part of a tree like a model's parameters that `params` covers.

  Args:
    tree: nested dict with an entry for each parameter of the model.
    params: nested dict with some of them.

  Raises:
    UserError: `params` has a leaf that the model has not.
  """

  def cut(tree, params, path):
    if not isinstance(params, dict):
      return tree
    for k in params:
      if not isinstance(tree, dict) or k not in tree:
        raise UserError(
          f"model: the parameters have {'/'.join((*path, k))}, of which the"
          " model's config knows nothing"
        )
    return {k: cut(tree[k], x, (*path, k)) for k, x in params.items()}

  return cut(tree, params, ())


def layers_of(config: ModelConfig, params: Any) -> Iterator[Any]:
  """The layers' own parameters, in the order in which they run.

  Args:
    config: the `ModelConfig`.
    params: a tree like its parameters, of arrays.

  Yields:
    (name of the stack, index in the stack, the layer's nested dict).
  """
  for stack in config.stacks:
    for i in range(stack.length):
      take = operator.itemgetter(i)
      yield stack.name, i, jax.tree.map(take, params[stack.name])


def param_count(params: Any) -> int:
  """How many numbers a tree of arrays holds."""
  return sum(x.size for x in jax.tree.leaves(params))
