"""Hugging Face checkpoints, in and out."""

from r1jax.hf.families import from_hf, to_hf
from r1jax.hf.weights import COMPANIONS, load, read_config, save

__all__ = ["COMPANIONS", "from_hf", "load", "read_config", "save", "to_hf"]
