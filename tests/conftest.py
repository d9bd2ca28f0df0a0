"""Every test sees eight CPU devices and no silent rank promotion."""

import gc
import os
from pathlib import Path

import pytest

# Before the first import of jax: it reads them once.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
for _flag in (
  "--xla_force_host_platform_device_count=8",
  # Eight devices on two cores: where these stand still for a while, a wait of
  # the default 40 s would be taken for a deadlock, and end the process.
  "--xla_cpu_collective_call_terminate_timeout_seconds=300",
):
  if _flag.partition("=")[0] not in os.environ.get("XLA_FLAGS", ""):
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {_flag}"

import jax  # noqa: E402

jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture(autouse=True, scope="module")
def not_too_many_programs():
  """Compiled programs of earlier files go when there are very many.

  Each takes some mappings of memory, of which Linux gives a process 65,530:
  beyond, the next compilation aborts it.
  """
  maps = Path("/proc/self/maps")
  if maps.exists() and maps.read_text().count("\n") > 20_000:
    jax.clear_caches()
    gc.collect()


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
