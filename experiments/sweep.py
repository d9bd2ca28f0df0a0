"""Runs the points of a config's sweep, one after another.

  python -m experiments.sweep --config=configs/X.py --workdir=DIR [--list]

The config file defines `sweep(add)`, which calls `add` once a point with the
keys to override:

  def sweep(add):
    for seed in range(3):
      add(**{"seed": seed, "r1_zero.lr": 3e-4})

Each point is a run of `experiments.launch` in DIR/seed=0,r1_zero.lr=0.0003,
so the same command goes on with a sweep that was stopped. All points are
checked before the first one runs.
"""

import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path

from absl import flags

from experiments import commandline, plan
from r1jax.errors import UserError
from r1jax.phases import PHASES

flags.adopt_module_key_flags(commandline)
_LIST = flags.DEFINE_bool("list", False, "Print the commands, run nothing.")


def main():
  """Runs or lists the points; exits with 1 if one of them failed."""
  config = commandline.CONFIG.value
  sweep, failed = [], []
  for name, keys in points(commandline.find(config.partition(":")[0])):
    keys = commandline.OVERRIDES | {k: str(v) for k, v in keys.items()}
    plan.resolve(commandline.read(config, keys), PHASES)
    sweep.append((name, keys))
  for name, keys in sweep:
    workdir = Path(commandline.WORKDIR.value) / name
    command = [
      *(sys.executable, "-m", "experiments.launch"),
      *(f"--config={config}", f"--workdir={workdir}"),
      *(f"--config.{k}={v}" for k, v in keys.items()),
    ]
    print(shlex.join(command), flush=True)
    if _LIST.value:
      continue
    if subprocess.run(command).returncode:
      failed.append(name)
  if failed:
    print(f"error: failed: {', '.join(failed)}", file=sys.stderr)
    sys.exit(1)


def points(path):
  """The points of a config file's sweep.

  Args:
    path: of the config file.

  Returns:
    list of (name of a directory, key -> value).

  Raises:
    UserError: the file has no sweep, or two of its points are the same.
  """
  sweep = runpy.run_path(path).get("sweep")
  if sweep is None:
    raise UserError(f"{path} defines no sweep(add)")
  found = {}

  def add(**overrides):
    name = ",".join(f"{k}={v}" for k, v in overrides.items())
    name = re.sub(r"[^\w.,=+-]+", "_", name) or "default"
    if name in found:
      raise UserError(f"{path}: sweep adds the point {name} twice")
    found[name] = overrides

  sweep(add)
  return list(found.items())


if __name__ == "__main__":
  commandline.start(main)
