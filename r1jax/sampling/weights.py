"""The learner's parameters as the sampler's decoding steps read them."""

import functools
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax

from r1jax import meshes, sharding
from r1jax import model as model_lib
from r1jax.model import ModelConfig, decoder, facts_of, layers_of, lora, part


class Weights(NamedTuple):
  """The learner's parameters, laid out for decoding.

  Attributes:
    embedding: [V, d].
    layers: L dicts like the parameters of a layer; the matrices are [out, in].
    norm: the parameters of the final norm, a dict.
    head: [V, d]; None if it is the embedding.
  """

  embedding: jax.Array
  layers: tuple
  norm: Any
  head: jax.Array | None


@functools.partial(jax.jit, static_argnums=0)
def lay_out(config: ModelConfig, params: Any) -> Weights:
  """`Weights` of a model's parameters: in the compute dtype, layer by layer.

  This is done once for each new set of parameters and not in every step.
  Adapters are merged into their matrices in float32. Gains keep their dtype,
  since norms compute in float32.
  """
  dtype = config.compute_dtype
  layers = []
  for own, facts in zip(layers_of(config, params), _layer_facts(config)):
    plain = lora.merge(config, own[-1])
    layers.append(
      jax.tree.map(
        lambda x, f: x if f.kind == "gain" else _swapped(x.astype(dtype), f),
        plain,
        part(facts, plain),
      )  # fmt: skip
    )
  return Weights(
    decoder.embedding(params).astype(dtype),
    tuple(layers),
    decoder.final_norm(params),
    None if config.tied else decoder.head(params, config).astype(dtype).T,
  )


def shapes(config: ModelConfig, mesh: meshes.Mesh | None) -> Weights:
  """`Weights` of `jax.ShapeDtypeStruct`s, placed where `lay_out` leaves them.

  Args:
    config: the `ModelConfig`.
    mesh: the `meshes.Mesh` of the parameters; None for one device.
  """
  weights = jax.eval_shape(
    lambda params: lay_out(config, params), model_lib.shapes(config)
  )
  if mesh is None:
    return weights
  every = facts_of(config)
  layers = zip(_layer_facts(config), weights.layers)
  facts = Weights(
    decoder.embedding(every),
    tuple(part(facts, layer) for facts, layer in layers),
    decoder.final_norm(every),
    None if config.tied else decoder.head(every, config),
  )

  def placed(path, x, f):
    pairs = [p for p in zip(f.axes, f.units) if p[0] != "layer"]
    if f.kind == "matrix" or path[0].name == "head":
      pairs[-2:] = pairs[:-3:-1]
    axes, units = zip(*pairs)
    where = sharding.parameter(
      sharding.path_name(path), axes, x.shape, mesh, units
    )
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=where)

  return jax.tree_util.tree_map_with_path(placed, weights, facts)


def layers_to_apply(config: ModelConfig, weights: Any) -> Iterator[Any]:
  """Yields each layer's dict as `layer.Layer` takes it.

  Inside of jit: the compiler reads a matrix that is swapped back in the order
  in which it is stored.
  """
  for own, facts in zip(weights.layers, _layer_facts(config)):
    yield jax.tree.map(_swapped, own, part(facts, own))


def _layer_facts(config):
  """The `Facts` of each layer's parameters: L dicts."""
  facts = facts_of(config)
  return [facts[s.name] for s in config.stacks for _ in range(s.length)]


def _swapped(x, facts):
  """A matrix with its last two axes swapped; anything else as it is."""
  return x.swapaxes(-1, -2) if facts.kind == "matrix" else x
