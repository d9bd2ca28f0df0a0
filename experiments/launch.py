"""Runs the phases of a config, or goes on with a run that was stopped.

  python -m experiments.launch --config=configs/X.py --workdir=DIR
      [--config.PHASE.KEY=VALUE ...]
  python -m experiments.launch --help-config[=KIND_OF_PHASE]

The first command also resumes: it skips finished phases and continues an
unfinished one from its newest checkpoint. docs/start.md lists the files in DIR,
docs/resume.md says which keys may change in between. The second command prints
every key that a config may set.

One phase gets the results of another from these files only, so a resumed run
cannot differ from a run that was never stopped.
"""

import functools
import json
import time
from pathlib import Path

import jax
from absl import flags

from experiments import commandline, plan
from experiments import workdir as workdir_lib
from r1jax import cli, hosts, origin, stopping
from r1jax.data import examples
from r1jax.errors import UserError
from r1jax.files import write_atomically
from r1jax.phases import PHASES
from r1jax.run import checkpoint, checksums, layout, report, stored
from r1jax.run.logs import say
from r1jax.run.phase_io import PhaseIO
from r1jax.run.trackers import Trackers
from r1jax.types import TrainState

flags.adopt_module_key_flags(commandline)
_DISTRIBUTED = flags.DEFINE_bool(
  "distributed", False, "One of several processes, as on a TPU pod."
)


def main():
  """Runs the config of the command line."""
  stopping.listen()
  if _DISTRIBUTED.value:
    jax.distributed.initialize()
    stopping.listen()  # it has a handler of its own
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
      on disk is changed then. Or the disk is full.
    Stopped: a signal stopped the run; what it had is saved.
  """
  values, workdir = plan.plain(config), Path(workdir)
  stopping.defer(not hosts.is_alone())
  experiment, phases = plan.resolve(values, kinds)
  plan.check(phases, workdir)
  with workdir_lib.claim(workdir, values, phases):
    records = {}
    for phase in phases:
      path = workdir / phase.name / layout.DONE
      if path.exists():
        records[phase.name] = _read_record(path)
        _say(f"{phase.name}: done")
      else:
        keys = workdir_lib.record(phase, phases)
        function = kinds[phase.phase][1]
        trackers = Trackers(experiment.trackers, workdir, phase.name)
        state = _state(phase, phases, workdir, records)
        records[phase.name] = _run_phase(
          phase, keys, function, workdir, records, state, trackers
        )
      hosts.barrier(f"launch.{phase.name}")
      _stop_between(phase, phases)
    return _finish(experiment, phases, workdir, records)


def _stop_between(phase, phases):
  """Ends the run after a phase if a signal came too late for its last save."""
  number = hosts.greatest(stopping.asked())
  if number and phase is not phases[-1]:
    stopped = stopping.Stopped(number)
    _say(f"{phase.name}: done; {stopped}; the same command goes on after it")
    raise stopped


def _read_record(path):
  """What a done.json holds."""
  try:
    return dict(json.loads(path.read_text()))
  except ValueError:
    raise UserError(
      f"{path} is damaged; remove it, and the phase is finished again"
    ) from None


def _run_phase(phase, keys, function, workdir, records, state, trackers):
  """Runs one phase and writes its outputs.

  Args:
    phase: the phase.
    keys: what keys.json is to hold.
    function: of its kind.
    workdir: Path of the run.
    records: name of each phase before -> what its done.json holds.
    state: as of `_state`.
    trackers: `Trackers` of the phase.

  Returns:
    what done.json holds.
  """
  data = _data(phase, workdir, records)
  begin = time.monotonic()
  io = _phase_io(phase, workdir, records, trackers)
  _say(f"{phase.name}: {phase.phase}; the first step also compiles programs")
  if hosts.is_first():
    text = json.dumps(keys, indent=1) + "\n"
    write_atomically(io.dir / layout.KEYS, text)
  try:
    new_state, new_data = function(phase, state, data, io)
  except (KeyboardInterrupt, stopping.Stopped) as e:
    io.close()
    _say(
      f"{phase.name}: {str(e) or 'stopped'}; the same command goes on from step"
      f" {io.saved}"
    )
    raise
  finally:
    io.close()

  if new_state is None or new_state is state:
    maker = records[phase.init]["state"] if phase.init else ""
  else:
    maker = phase.name
    io.write_params(new_state.params)
  row = new_data if isinstance(new_data, dict) else None
  has_data = new_data is not None and row is None
  if has_data:
    io.write(layout.EXAMPLES, new_data)
  made = [n for n in (layout.MODEL, layout.EXAMPLES) if (io.dir / n).exists()]
  record = {
    "phase": phase.phase,
    "state": maker,
    "data": has_data,
    "row": row,
    "seconds": round(time.monotonic() - begin, 1),
    "resumed_at": io.first,
    "jax": jax.__version__,
    "device": jax.devices()[0].device_kind,
    "sha256": {name: checksums.of_file(io.dir / name) for name in made},
  }
  if hosts.is_first():
    text = json.dumps(record, indent=1) + "\n"
    write_atomically(io.dir / layout.DONE, text)
    (io.dir / layout.KEPT).unlink(missing_ok=True)  # data.jsonl has it now
  return record


def _phase_io(phase, workdir, records, trackers):
  """The `PhaseIO` of a phase; arguments as of `_run_phase`."""
  parents = {}
  for key, name in phase.parents.items():
    maker = records[name]["state"]
    if not maker:
      raise UserError(
        f"{phase.name}.parents.{key}: the phase {name} made no parameters, nor"
        " did one that it starts from; name a phase that trains"
      )
    _check_made(workdir / maker, records[maker])
    parents[key] = workdir / maker
  describe = functools.partial(
    stored.describe,
    model=phase.model,
    tokenizer=getattr(phase, "tokenizer", None),
  )
  return PhaseIO(workdir, phase.name, parents, describe, trackers)


def _state(phase, phases, workdir, records):
  """The `TrainState` that a phase starts from, with parameters only, or None.

  The parameters are another phase's, or those of the model's origin.
  """
  if phase.weights:
    return origin.initial(phase.weights, phase.model, phase.meshes()[0])
  if not phase.init:
    return None
  maker = records[phase.init]["state"]
  if not maker:
    # That phase, an evaluation, left what it began with as it was.
    (start,) = [p for p in phases if p.name == phase.init]
    return _state(start, phases, workdir, records)
  _check_made(workdir / maker, records[maker])
  params = checkpoint.load_params(workdir / maker)
  return TrainState(step=None, params=params, opt_state=None)


def _data(phase, workdir, records):
  """The examples of a finished phase, or the name of a source as it is."""
  name = getattr(phase, "data", "")
  if name not in records:
    return name
  _check_made(workdir / name, records[name])
  return examples.read_written(workdir / name / layout.EXAMPLES)


def _check_made(directory, record):
  """Raises `UserError` if a file of a finished phase was changed."""
  for name, written in record.get("sha256", {}).items():
    path = directory / name
    if not path.exists() or checksums.of_file(path) != written:
      raise UserError(
        f"{path} is not what was written; remove {directory / layout.DONE} to"
        " make it again"
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
      say(f"no plot: {e}")
  say(report.seconds({k: r["seconds"] for k, r in records.items()}))
  if rows:
    say(report.table(rows))
  return rows


def _say(text):
  if hosts.is_first():
    say(text)


if __name__ == "__main__":
  commandline.start(main)
