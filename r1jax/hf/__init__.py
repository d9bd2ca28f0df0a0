"""Hugging Face checkpoints, in and out."""

from r1jax.hf.reader import from_hf, load, read_config
from r1jax.hf.writer import copy_companions, save, to_hf

__all__ = [
  "copy_companions",
  "from_hf",
  "load",
  "read_config",
  "save",
  "to_hf",
]
