"""The manners of the command lines: one clear line for bad input."""

import contextlib
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import jax

from r1jax import stopping
from r1jax.errors import UserError


def fail(message: object) -> NoReturn:
  """Prints one line to stderr and exits with status 2."""
  print("error: " + " ".join(str(message).split()), file=sys.stderr)
  sys.exit(2)


@contextlib.contextmanager
def one_line_errors() -> Iterator[None]:
  """Turns bad input and signals into one line and an exit status.

  The status is 2 for bad input, 128 and its number for a signal.
  """
  for number in (signal.SIGTERM, signal.SIGHUP):
    if signal.getsignal(number) != signal.SIG_IGN:
      signal.signal(number, _stop)
  try:
    yield
  except UserError as e:
    fail(e)
  except stopping.Stopped as e:
    sys.exit(e.code)
  except KeyboardInterrupt:
    sys.exit(128 + signal.SIGINT)


def _stop(number, _):
  raise stopping.Stopped(number)


def compilation_cache() -> None:
  """Keeps compiled programs from one start to the next.

  They lie in JAX_COMPILATION_CACHE_DIR, by default ~/.cache/r1jax/xla.
  """
  named = os.environ.get("JAX_COMPILATION_CACHE_DIR")
  path = Path(named) if named else Path.home() / ".cache/r1jax/xla"
  try:
    path.mkdir(parents=True, exist_ok=True)
  except OSError:
    return  # It saves time, no more: a home that is read-only is no error.
  jax.config.update("jax_compilation_cache_dir", str(path))
  # The defaults leave out all that a CPU compiles for a small model.
  jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
  jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
