"""Every test sees eight CPU devices and no silent rank promotion.

XLA compiles the tests' programs without optimizing them, which takes a fourth
of the time. A test whose finding depends on which operations are fused asks
for the fixture `fused`. Tests and the processes they start share compiled
programs.
"""

import gc
import os
import signal
import tempfile
from importlib.util import find_spec
from pathlib import Path

import jaxlib.version
import pytest

# Each sets one flag of XLA, unless the environment sets that flag.
FLAGS = [
  "--xla_force_host_platform_device_count=8",
  # Eight devices share the cores: a device that waits for the others longer
  # than the default of 40 s would be taken for a deadlock and end the process.
  "--xla_cpu_collective_call_terminate_timeout_seconds=300",
  "--xla_backend_optimization_level=0",
]
FUSION = "--xla_cpu_use_fusion_emitters=false"
if jaxlib.version.__version_info__ < (0, 11) and not find_spec("libtpu"):
  # Later versions and libtpu do not know this flag: they end a process that
  # sets it.
  FLAGS.append(FUSION)

# Before the first import of jax, which reads them once.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
for _flag in FLAGS:
  if _flag.partition("=")[0] not in os.environ.get("XLA_FLAGS", ""):
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {_flag}"
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
  # Workers of pytest-xdist inherit it; it goes with the process that made it.
  _programs = tempfile.TemporaryDirectory(prefix="r1jax-tests-")
  os.environ["JAX_COMPILATION_CACHE_DIR"] = _programs.name
  os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
  os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"

import jax  # noqa: E402
from jax._src import compiler  # noqa: E402

jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config):
  """The whole suite runs on all cores, a file alone in one process.

  Unless -n says how many.
  """
  worker = hasattr(config, "workerinput")
  named = config.args_source is pytest.Config.ArgsSource.ARGS
  if getattr(config.option, "numprocesses", 0) is None and not (
    worker or named
  ):
    config.option.numprocesses = "auto"
    config.option.maxprocesses = config.option.maxprocesses or 8
    config.option.dist = "worksteal"


@pytest.fixture
def fused(monkeypatch):
  """Operations of this test's programs are fused as in users' programs.

  What depends on it: how much memory a program takes, and which bits differ
  between two programs of one meaning.
  """
  if FUSION not in FLAGS:
    yield
    return
  options = compiler.get_compile_options

  def get_compile_options(*args, **kwargs):
    found = options(*args, **kwargs)
    fusion = (FUSION.strip("-").partition("=")[0], True)
    found.env_option_overrides = [*found.env_option_overrides, fusion]
    return found

  with monkeypatch.context() as patch:
    patch.setattr(compiler, "get_compile_options", get_compile_options)
    jax.clear_caches()
    yield
  jax.clear_caches()


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


@pytest.fixture
def unignored():
  """Signals act as in a terminal: a job in the background ignores some."""
  default = {
    signal.SIGTERM: signal.SIG_DFL,
    signal.SIGHUP: signal.SIG_DFL,
    signal.SIGINT: signal.default_int_handler,
  }
  before = {number: signal.signal(number, x) for number, x in default.items()}
  yield
  for number, handler in before.items():
    signal.signal(number, handler)
