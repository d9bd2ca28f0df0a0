"""Every test sees eight CPU devices and no silent rank promotion."""

import os

# Before the first import of jax: it reads them once.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
_COUNT = "--xla_force_host_platform_device_count"
if _COUNT not in os.environ.get("XLA_FLAGS", ""):
  os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {_COUNT}=8"

import jax  # noqa: E402

jax.config.update("jax_numpy_rank_promotion", "raise")
