"""The transformer; the only package that knows Flax."""

from r1jax.model.config import ModelConfig
from r1jax.model.decoder import (
  Decoder,
  head_matrix,
  init,
  param_count,
)
from r1jax.model.rope import RopeScaling

__all__ = [
  "Decoder",
  "ModelConfig",
  "RopeScaling",
  "head_matrix",
  "init",
  "param_count",
]
