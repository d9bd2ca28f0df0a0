"""Runs the points of a config's sweep, one after another.

  python -m experiments.sweep --config=configs/X.py --workdir=DIR
      [--list] [--metric=pass@1]

The config file defines `sweep(add)`, which calls `add` once a point with the
keys to override:

  def sweep(add):
    for seed in range(3):
      add(**{"seed": seed, "r1_zero.lr": 3e-4})

Each point is a run of `experiments.launch` in DIR/seed=0,r1_zero.lr=0.0003,
so the same command goes on with a sweep that was stopped. All points are
checked before the first one runs. In the end a table has the last evaluation
of each point and names the best of them; DIR/sweep.json has the same.
"""

import json
import re
import runpy
import shlex
import signal
import subprocess
import sys
from pathlib import Path

from absl import flags

from experiments import commandline, plan
from r1jax import files, stopping
from r1jax.errors import UserError
from r1jax.phases import PHASES
from r1jax.run import layout, report

flags.adopt_module_key_flags(commandline)
_LIST = flags.DEFINE_bool("list", False, "Print the commands, run nothing.")
_METRIC = flags.DEFINE_string(
  "metric", "pass@1", "Column of the evaluations; the best point is highest."
)


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
    if run(command):
      failed.append(name)
  if not _LIST.value:
    finish(commandline.WORKDIR.value, sweep, _METRIC.value)
  if failed:
    print(f"error: failed: {', '.join(failed)}", file=sys.stderr)
    sys.exit(1)


def run(command, **options):
  """Runs a command, which gets the signals that this process gets.

  Args:
    command: list of its words.
    **options: of `subprocess.Popen`.

  Returns:
    its exit status.

  Raises:
    Stopped, KeyboardInterrupt: a signal came, and the command has ended.
  """
  process, asked = subprocess.Popen(command, **options), None
  while True:
    try:
      status = process.wait()
    except (stopping.Stopped, KeyboardInterrupt) as e:
      asked = e
      process.send_signal(getattr(e, "number", signal.SIGINT))
      continue
    if asked:
      raise asked
    return status


def finish(root, sweep, metric):
  """Prints the table of a sweep's results and writes it.

  Args:
    root: directory of the sweep.
    sweep: list of (name of a point, dict of its keys).
    metric: column of the evaluations by which the points are compared.

  Returns:
    the name of the best point, or None if no point has the metric.
  """
  rows, best = [], None
  for name, keys in sweep:
    results = Path(root) / name / layout.RESULTS
    found = json.loads(results.read_text()) if results.exists() else []
    last = found[-1] if found else {}
    rows.append({"point": name, **last})
    value = last.get(metric)
    if value is not None and (best is None or value > best[0]):
      best = value, name, keys
  known = list(dict.fromkeys(key for row in rows for key in row))
  whole = {"metric": metric, "best": best and best[1], "points": rows}
  files.write_atomically(
    Path(root) / layout.SWEEP, json.dumps(whole, indent=1) + "\n"
  )
  print(report.table(rows))
  if best is None:
    columns = [k for k in known if k not in ("point", "checkpoint")]
    print(
      f"no point has {metric}; --metric names one of:"
      f" {', '.join(columns) or 'none, since no point was evaluated'}"
    )
    return None
  value, name, keys = best
  flags_of = " ".join(f"--config.{k}={v}" for k, v in keys.items())
  print(f"best: {metric} {value:.3f} with {flags_of or name}")
  return name


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
