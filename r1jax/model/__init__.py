"""The transformer; the only package that knows Flax."""

from r1jax.model.config import ModelConfig
from r1jax.model.decoder import Decoder, unembedding
from r1jax.model.facts import Facts
from r1jax.model.parameters import (
  Model,
  axes,
  facts_of,
  init,
  layers_of,
  param_count,
  part,
  place,
  placed_shapes,
  shapes,
  shardings,
)
from r1jax.model.rope import RopeScaling
from r1jax.model.table import summing

__all__ = [
  "Decoder",
  "Facts",
  "Model",
  "ModelConfig",
  "RopeScaling",
  "axes",
  "facts_of",
  "init",
  "layers_of",
  "param_count",
  "part",
  "place",
  "placed_shapes",
  "shapes",
  "shardings",
  "summing",
  "unembedding",
]
