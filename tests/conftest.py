"""Every test sees eight CPU devices and no silent rank promotion."""

import gc
import os

import pytest

# Before the first import of jax: it reads them once.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
_COUNT = "--xla_force_host_platform_device_count"
if _COUNT not in os.environ.get("XLA_FLAGS", ""):
  os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {_COUNT}=8"

import jax  # noqa: E402

jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture
def own_garbage():
  """What other tests left is not collected while this one takes the time.

  In a whole run that is millions of objects, a second in one call; where
  verifiers work, in processes of their own, there are none.
  """
  gc.collect()
  gc.freeze()
  yield
  gc.unfreeze()
