"""The command line of the launcher and of sweeps: --config and its keys."""

import os
import runpy
import sys
import traceback
from pathlib import Path

from absl import app, flags, logging

from experiments import overrides, plan
from r1jax import cli, describe
from r1jax.errors import UserError
from r1jax.phases import PHASES

CONFIG = flags.DEFINE_string(
  "config",
  None,
  "The experiment, a Python file with get_config(), as FILE or FILE:ARGUMENT;"
  " required. --config.PHASE.KEY=VALUE sets a key.",
)
WORKDIR = flags.DEFINE_string(
  "workdir", None, "The directory that the run writes to; required."
)
HELP = "--help-config"
# Dotted keys of the command line -> texts.
OVERRIDES = {}


def start(main):
  """Runs a program that takes --config and --workdir.

  Args:
    main: function without arguments, called when the flags are parsed.
  """

  def guarded(_):
    if not flags.FLAGS["verbosity"].present:
      # Orbax logs every file that it writes.
      logging.set_verbosity(logging.WARNING)
    with cli.one_line_errors():
      main()

  flags.mark_flags_as_required([CONFIG, WORKDIR])
  app.run(guarded, flags_parser=parse)


def parse(argv):
  """Parses flags, for `app.run`; a bad one ends the program.

  Args:
    argv: the command line.

  Returns:
    the program's name.
  """
  for argument in argv[1:]:
    flag, _, kind = argument.partition("=")
    if flag == HELP:
      with cli.one_line_errors():
        print(help_config(kind))
      sys.exit(0)
  argv, found = overrides.split(argv)
  OVERRIDES.clear()
  OVERRIDES.update(found)
  try:
    rest = flags.FLAGS(argv)
  except flags.Error as e:
    cli.fail(e)
  if len(rest) > 1:
    cli.fail(
      f'"{rest[1]}" is no flag; config keys are --config.PHASE.KEY=VALUE'
    )
  return rest


def help_config(kind=""):
  """The keys of a config as text.

  Args:
    kind: of a phase; "" is the whole config.

  Raises:
    UserError: there is no such kind.
  """
  if kind and kind not in PHASES:
    raise UserError(
      f"{HELP}={kind}: no phase is of this kind; known: {', '.join(PHASES)}"
    )
  sections = key_sections()
  title = f'a phase with phase="{kind}"'
  return "\n\n".join(
    describe.text(name, found)
    for name, found in sections.items()
    if not kind or name == title
  )


def key_sections():
  """All keys of configs, for `--help-config` and the documentation.

  Returns:
    dict from what has the keys to a list of `describe.Key`. The groups that
    phases may share are in the first entry only.
  """
  own = {kind: describe.keys(cls) for kind, (cls, _) in PHASES.items()}
  shared = {}
  for found in own.values():
    shared |= {k[:2]: k for k in found if _group(k) in plan.SHARED}
  # A phase names its model; the keys are those of c.models.
  shared = [k for k in shared.values() if not k.name.startswith("model.")]
  sections = {"the config": describe.keys(plan.Experiment) + shared}
  for kind, found in own.items():
    sections[f'a phase with phase="{kind}"'] = [
      k for k in found if _group(k) not in plan.SHARED or "." not in k.name
    ]
  return sections


def _group(key):
  return key.name.partition(".")[0]


def read(path, set_keys, kinds=PHASES):
  """A config with the keys of the command line.

  Args:
    path: FILE or FILE:ARGUMENT.
    set_keys: dict from dotted keys to texts.
    kinds: kind of phase -> (dataclass of its keys, function).

  Returns:
    nested dict.

  Raises:
    UserError: the file is absent or wrong, or a key is.
  """
  values = plan.plain(_load(path))
  overrides.apply(values, set_keys, kinds)
  return values


def find(file):
  """A config file, in the current directory or else among those of r1jax.

  Args:
    file: as the user names it.

  Returns:
    the path of a file.

  Raises:
    UserError: there is no such file.
  """
  for path in (Path(file), Path(__file__).parents[1] / file):
    if path.is_file():
      return str(path)
  raise UserError(f"--config={file}: there is no such file")


def _load(path):
  """What `get_config` of a file returns."""
  file, colon, argument = path.partition(":")
  file = find(file)
  try:
    get_config = runpy.run_path(file).get("get_config")
    if get_config is None:
      raise UserError(f"{file} defines no get_config()")
    return get_config(argument) if colon else get_config()
  except UserError:
    raise
  except Exception as e:
    raise UserError(_explain(e, os.path.abspath(file))) from None


def _explain(e, file):
  """One line for what running a config file raised."""
  frames = [
    frame
    for frame in traceback.extract_tb(e.__traceback__)
    if os.path.abspath(frame.filename) == file
  ]
  if isinstance(e, SyntaxError):
    return f"{file}:{e.lineno}: {e.msg}"
  # A ValueError is how a config file refuses its argument.
  if not frames or isinstance(e, ValueError):
    return f"{type(e).__name__}: {e}"
  return f"{frames[-1].filename}:{frames[-1].lineno}: {type(e).__name__}: {e}"
