"""The transformer; the only package that knows Flax."""

from r1jax.model.config import ModelConfig
from r1jax.model.decoder import (
  Decoder,
  init,
  param_count,
  unembedding,
)
from r1jax.model.rope import RopeScaling
from r1jax.model.table import summing

__all__ = [
  "Decoder",
  "ModelConfig",
  "RopeScaling",
  "init",
  "param_count",
  "summing",
  "unembedding",
]
