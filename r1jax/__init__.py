"""r1jax: the DeepSeek-R1 pipeline in JAX."""

__version__ = "0.1.0"
