"""The manners of the command lines: one clear line for bad input."""

import contextlib
import os
import re
import signal
import sys
import traceback
from pathlib import Path

import jax
from absl import app, flags, logging
from ml_collections import config_flags

from r1jax.errors import UserError

CONFIG = config_flags.DEFINE_config_file(
  "config", None, "The experiment, a Python file; required."
)
WORKDIR = flags.DEFINE_string(
  "workdir", None, "Where all is written; required."
)


def start(main):
  """Runs a program that takes --config and --workdir.

  Args:
    main: called without arguments, when the flags are parsed.
  """

  def guarded(_):
    if not flags.FLAGS["verbosity"].present:
      # Orbax tells of every file it writes.
      logging.set_verbosity(logging.WARNING)
    with one_line_errors():
      main()

  flags.mark_flags_as_required([CONFIG, WORKDIR])
  app.run(guarded, flags_parser=parse)


def parse(argv):
  """Parses flags, to be given to `app.run`; a bad one ends the program.

  Args:
    argv: the command line.

  Returns:
    what is left of it.
  """
  try:
    rest = flags.FLAGS(argv)
  except Exception as e:
    fail(_explain(e, argv))
  if len(rest) > 1:
    fail(f'"{rest[1]}" is no flag; config keys are --config.PHASE.KEY=VALUE')
  # A missing file would only be noticed at the config's first use.
  path = flags.FLAGS["config"].config_filename.partition(":")[0]
  if not Path(path).is_file():
    fail(f"--config={path}: there is no such file")
  return rest


def fail(message):
  """Prints one line to stderr and exits with status 2."""
  print("error: " + " ".join(str(message).split()), file=sys.stderr)
  sys.exit(2)


@contextlib.contextmanager
def one_line_errors():
  """Turns bad input and signals into one line and an exit status."""
  # What a scheduler sends before it kills; the same as Ctrl-C.
  signal.signal(signal.SIGTERM, _interrupt)
  try:
    yield
  except UserError as e:
    fail(e)
  except KeyboardInterrupt:
    sys.exit(130)


def _interrupt(*_):
  raise KeyboardInterrupt


def compilation_cache():
  """Keeps compiled programs from one start to the next.

  They lie in JAX_COMPILATION_CACHE_DIR, by default ~/.cache/r1jax/xla.
  """
  path = os.environ.get("JAX_COMPILATION_CACHE_DIR")
  path = Path(path) if path else Path.home() / ".cache/r1jax/xla"
  try:
    path.mkdir(parents=True, exist_ok=True)
  except OSError:
    return  # It saves time, no more: a home that is read-only is no error.
  jax.config.update("jax_compilation_cache_dir", str(path))
  # The defaults leave out all that a CPU compiles for a small model.
  jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
  jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def _explain(e, argv):
  """One line for whatever parsing flags or running a config file raises."""
  if isinstance(e, flags.Error | UserError):
    # A ValueError of a config file comes with its traceback in the message.
    return str(e).splitlines()[-1] if "Traceback" in str(e) else e
  # A KeyError shows the repr of its message.
  text = str(e.args[0] if e.args else e)
  given = [a.partition("=")[2] for a in argv if a.startswith("--config=")]
  path = os.path.abspath(given[-1].partition(":")[0]) if given else ""
  frames = traceback.extract_tb(e.__traceback__)
  if any(os.path.abspath(f.filename) == path for f in frames):
    where = f"{frames[-1].filename}:{frames[-1].lineno}"
    return f"{where}: {type(e).__name__}: {e}"
  for arg in argv:
    first, *parts = arg.partition("=")[0].split(".")
    if first == "--config" and any(re.search(rf"\b{p}\b", text) for p in parts):
      close = re.search('Did you mean "(.*?)"', text)
      hint = f'; did you mean "{close[1]}"?' if close else ""
      return f"{arg}: the config has no such key{hint}"
  return f"{type(e).__name__}: {e}"
