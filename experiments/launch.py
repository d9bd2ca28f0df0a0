"""Runs the phases of a config, or goes on with a run that was stopped.

  python -m experiments.launch --config=configs/X.py --workdir=DIR
      [--config.PHASE.KEY=VALUE ...]
  python -m experiments.launch --help-config[=KIND_OF_PHASE]

The first command also resumes: it skips finished phases and continues an
unfinished one from its newest checkpoint. `r1jax/run/layout.py` lists the
files in DIR. The second prints every key that a config may set.

One phase gets the results of another from these files only, so a resumed run
cannot differ from a run that was never stopped.
"""

import contextlib
import fcntl
import json
import time
from pathlib import Path

import jax
from absl import flags

from experiments import commandline, plan
from r1jax import cli, hosts
from r1jax.data import examples
from r1jax.errors import UserError
from r1jax.files import write_atomically
from r1jax.hf import source
from r1jax.phases import PHASES
from r1jax.run import checkpoint, layout, report
from r1jax.run.phase_io import PhaseIO
from r1jax.types import TrainState

flags.adopt_module_key_flags(commandline)
_DISTRIBUTED = flags.DEFINE_bool(
  "distributed", False, "One of several processes, as on a TPU pod."
)


def main():
  """Runs the config of the command line."""
  if _DISTRIBUTED.value:
    jax.distributed.initialize()
  cli.compilation_cache()
  config = commandline.read(commandline.CONFIG.value, commandline.OVERRIDES)
  run(config, commandline.WORKDIR.value)


def run(config, workdir, kinds=PHASES):
  """Runs what is left to run of a config.

  Args:
    config: the experiment, as `get_config` of a config file returns it.
    workdir: the directory of the run.
    kinds: kind of phase -> (dataclass of its keys, function).

  Returns:
    the rows of the closing table, a list of dicts.

  Raises:
    UserError: the config, the directory or what is in it is unfit; nothing
      on disk is changed then.
  """
  values, workdir = plan.plain(config), Path(workdir)
  experiment, phases = plan.resolve(values, kinds)
  plan.check(phases, workdir)
  with _claim(workdir, values, phases):
    records = {}
    for phase in phases:
      path = workdir / phase.name / layout.DONE
      if path.exists():
        records[phase.name] = json.loads(path.read_text())
        _say(f"{phase.name}: done")
      else:
        function = kinds[phase.phase][1]
        records[phase.name] = _run_phase(phase, function, workdir, records)
      hosts.barrier(f"launch.{phase.name}")
    return _finish(experiment, phases, workdir, records)


def _run_phase(phase, function, workdir, records):
  """Runs one phase and writes its outputs; returns what done.json holds."""
  state = _state(phase, workdir, records)
  data = _data(phase, workdir, records)
  begin = time.monotonic()
  parents = {
    key: workdir / records[name]["state"] for key, name in phase.parents.items()
  }
  io = PhaseIO(workdir, phase.name, parents)
  _say(f"{phase.name}: {phase.phase}")
  try:
    new_state, new_data = function(phase, state, data, io)
  except KeyboardInterrupt:
    _say(
      f"\n{phase.name}: stopped; the same command goes on from step {io.saved}"
    )
    raise
  finally:
    io.close()

  if new_state is None or new_state is state:
    origin = records[phase.init]["state"] if phase.init else ""
  else:
    origin = phase.name
    io.write_params(new_state.params, phase.model)
  row = new_data if isinstance(new_data, dict) else None
  has_data = new_data is not None and row is None
  if has_data:
    io.write(layout.EXAMPLES, new_data)
  record = {
    "phase": phase.phase,
    "state": origin,
    "data": has_data,
    "row": row,
    "seconds": round(time.monotonic() - begin, 1),
    "resumed_at": io.first,
    "jax": jax.__version__,
    "device": jax.devices()[0].device_kind,
  }
  if hosts.is_first():
    text = json.dumps(record, indent=1) + "\n"
    write_atomically(io.dir / layout.DONE, text)
  return record


def _state(phase, workdir, records):
  """The `TrainState` that a phase starts from, with parameters only, or None.

  The parameters are another phase's, or a Hugging Face model's.
  """
  if phase.weights:
    return source.initial(phase.weights, phase.model, phase.meshes()[0])
  origin = records[phase.init]["state"] if phase.init else ""
  if not origin:
    return None
  params = checkpoint.load_params(workdir / origin)
  return TrainState(step=None, params=params, opt_state=None)


def _data(phase, workdir, records):
  """The examples of a finished phase, or the name of a source as it is."""
  name = getattr(phase, "data", "")
  if name not in records:
    return name
  return examples.read_written(workdir / name / layout.EXAMPLES)


@contextlib.contextmanager
def _claim(workdir, values, phases):
  """Makes a directory ours, if it is new or belongs to this very config."""
  here = json.loads(json.dumps(values, default=str))
  _check_owner(workdir, here, phases)
  hosts.barrier("launch.claim")
  with hosts.entered_on_first(_locked(workdir, here)):
    yield


@contextlib.contextmanager
def _locked(workdir, here):
  """Makes a directory with its config.json and keeps other runs out of it.

  Raises:
    UserError: another run is in it, or it cannot be written.
  """
  with contextlib.ExitStack() as stack:
    try:
      workdir.mkdir(parents=True, exist_ok=True)
      lock = stack.enter_context(open(workdir / layout.LOCK, "w"))
      fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
      if not (workdir / layout.CONFIG).exists():
        text = json.dumps(here, indent=1) + "\n"
        write_atomically(workdir / layout.CONFIG, text)
    except BlockingIOError:
      raise UserError(
        f"workdir {workdir} is in use by another process; wait for it, or use"
        " another --workdir"
      ) from None
    except OSError as e:
      raise UserError(
        f"workdir {workdir} cannot be written ({e.strerror}); use another"
        " --workdir"
      ) from None
    yield


def _check_owner(workdir, here, phases):
  """Raises `UserError` if a directory belongs to another config."""
  path = workdir / layout.CONFIG
  if path.exists():
    try:
      there = dict(json.loads(path.read_text()))
    except ValueError:
      raise UserError(f"{path} is damaged; use another --workdir") from None
    changes = plan.differences(there, here)
    if changes:
      raise UserError(
        f"workdir {workdir} belongs to another config: {'; '.join(changes)};"
        " use another --workdir or the same config, or delete the directory"
      )
  elif any((workdir / phase.name).exists() for phase in phases):
    raise UserError(
      f"workdir {workdir} holds phases but no {layout.CONFIG}; use another"
      " --workdir"
    )


def _finish(experiment, phases, workdir, records):
  """Prints the table and writes it, with the plot, next to the phases."""
  rows = [r["row"] for r in records.values() if r["row"]]
  if not hosts.is_first():
    return rows
  report.write_results(workdir / layout.RESULTS, rows)
  plotted = [phase.name for phase in phases if phase.IS_PLOTTED]
  if experiment.report.plot is not None:
    plotted = [name for name in experiment.report.plot if name in plotted]
  if plotted:
    try:
      report.plot(workdir, plotted, workdir / layout.REPORT)
    except UserError as e:
      print(f"no plot: {e}")
  print(report.seconds({k: r["seconds"] for k, r in records.items()}))
  if rows:
    print(report.table(rows))
  return rows


def _say(text):
  if hosts.is_first():
    print(text, flush=True)


if __name__ == "__main__":
  commandline.start(main)
