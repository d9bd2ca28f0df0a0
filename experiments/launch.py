"""Runs the phases of a config, or goes on with a run that was stopped.

  python -m experiments.launch --config=configs/X.py --workdir=DIR
      [--config.PHASE.KEY=VALUE ...]

The same command resumes: finished phases are skipped, an unfinished one goes
on from its newest checkpoint. In DIR:

  config.json        the config, overrides applied; DIR belongs to it
  PHASE/done.json    written last, when a phase is finished
  PHASE/params/      the parameters it made
  PHASE/model.json   the shape of their model
  PHASE/data.jsonl   the examples it made
  results.json       the table that is printed at the end
  report.png         how the RL phases went
  ...                and what `r1jax.run.phase_io` lists

What one phase hands to the next always passes through these files, so a
resumed run cannot differ from one that was left alone.
"""

import contextlib
import fcntl
import json
import time
from pathlib import Path

import jax
from absl import flags
from ml_collections import ConfigDict

from experiments import plan
from r1jax import cli, hf, hosts, meshes
from r1jax.data import jsonl
from r1jax.errors import UserError
from r1jax.files import write_atomically
from r1jax.run import checkpoint, report
from r1jax.run.phase_io import PhaseIO
from r1jax.types import TrainState

flags.adopt_module_key_flags(cli)
_DISTRIBUTED = flags.DEFINE_bool(
  "distributed", False, "One of several processes, as on a TPU pod."
)


def main():
  """Runs the config of the command line."""
  if _DISTRIBUTED.value:
    jax.distributed.initialize()
  cli.compilation_cache()
  run(cli.CONFIG.value, cli.WORKDIR.value)


def run(config, workdir, phases=None):
  """Runs what is left to run of a config.

  Args:
    config: the experiment, a ConfigDict or a mapping.
    workdir: the directory of the run.
    phases: kind -> phase function; `r1jax.phases.PHASES` where None.

  Returns:
    the rows of the closing table, a list of dicts.

  Raises:
    UserError: the config, the directory or what is in it is unfit; nothing
      on disk is changed then.
  """
  config, workdir = ConfigDict(config), Path(workdir)
  if phases is None:
    from r1jax.phases import PHASES as phases
    from r1jax.phases import check

    blocks = plan.resolve(config, phases)
    for i, block in enumerate(blocks):
      if not (workdir / block.name / "done.json").exists():
        with _missing_keys_named(block):
          check(block, [b.name for b in blocks[:i]])
  else:
    blocks = plan.resolve(config, phases)
  with _claim(workdir, config, blocks):
    records = {}
    for block in blocks:
      path = workdir / block.name / "done.json"
      if path.exists():
        records[block.name] = json.loads(path.read_text())
        _say(f"{block.name}: done")
      else:
        record = _run_phase(block, phases[block.phase], workdir, records)
        records[block.name] = record
      hosts.barrier(f"launch.{block.name}")
    return _finish(config, workdir, records)


def _run_phase(block, phase, workdir, records):
  """Runs one phase and writes its outputs; returns what done.json holds."""
  state = _state(workdir, block, records)
  data = _data(workdir, block.data, records)
  begin = time.monotonic()
  io = PhaseIO(workdir, block.name)
  _say(f"{block.name}: {block.phase}")
  try:
    with _missing_keys_named(block):
      new_state, new_data = phase(block, state, data, io)
  except KeyboardInterrupt:
    _say(
      f"\n{block.name}: stopped; the same command goes on from step {io.saved}"
    )
    raise
  finally:
    io.close()

  if new_state is None or new_state is state:
    origin = records[block.init]["state"] if block.init else ""
  else:
    origin = block.name
    checkpoint.save(io.dir / "params", new_state.params)
    if hosts.is_first():
      # What a tool needs to know about them.
      model = json.dumps(block.model.to_dict(), indent=1) + "\n"
      write_atomically(io.dir / "model.json", model)
  row = new_data if isinstance(new_data, dict) else None
  has_data = new_data is not None and row is None
  if has_data:
    io.write("data", new_data)
  record = {
    "phase": block.phase,
    "state": origin,
    "data": has_data,
    "row": row,
    "seconds": round(time.monotonic() - begin, 1),
    "resumed_at": io.first,
    "jax": jax.__version__,
    "device": jax.devices()[0].device_kind,
  }
  if hosts.is_first():
    write_atomically(io.dir / "done.json", json.dumps(record, indent=1) + "\n")
  return record


@contextlib.contextmanager
def _missing_keys_named(block):
  try:
    yield
  except AttributeError as e:
    if isinstance(e.obj, ConfigDict):
      raise plan.missing_key(block, e) from e
    raise


def _state(workdir, block, records):
  """What a phase starts from: the parameters of another, or of a model."""
  if block.get("weights"):
    model = dict(block.model)
    dtype = model.pop("param_dtype", "float32")
    mesh = meshes.make_mesh(**block.get("mesh", {"data": -1}))
    _, params = hf.load(block.weights, dtype=dtype, mesh=mesh, **model)
    return TrainState(step=None, params=params, opt_state=None)
  name = block.init
  if not name or not records[name]["state"]:
    return None
  origin = workdir / records[name]["state"]
  params = checkpoint.load(
    origin / "params", f"remove {origin / 'done.json'} to make it again"
  )
  return TrainState(step=None, params=params, opt_state=None)


def _data(workdir, name, records):
  """The examples of a finished phase, or the name of a source as it is."""
  if name not in records:
    return name
  if not records[name]["data"]:
    raise UserError(
      f'data="{name}": the phase {name} ({records[name]["phase"]}) makes no'
      " examples; name another one"
    )
  return jsonl.read_examples(workdir / name / "data.jsonl")


@contextlib.contextmanager
def _claim(workdir, config, blocks):
  """Makes a directory ours, if it is new or belongs to this very config."""
  here = json.loads(json.dumps(config.to_dict(), default=str))
  path = workdir / "config.json"
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
  elif any((workdir / block.name).exists() for block in blocks):
    raise UserError(
      f"workdir {workdir} holds phases but no config.json; use another"
      " --workdir"
    )
  hosts.barrier("launch.claim")
  with contextlib.ExitStack() as stack:
    if hosts.is_first():
      try:
        workdir.mkdir(parents=True, exist_ok=True)
        lock = stack.enter_context(open(workdir / ".lock", "w"))
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not path.exists():
          write_atomically(path, json.dumps(here, indent=1) + "\n")
      except BlockingIOError:
        raise UserError(
          f"workdir {workdir} is in use by another process; wait for it, or"
          " use another --workdir"
        ) from None
      except OSError as e:
        raise UserError(
          f"workdir {workdir} cannot be written ({e.strerror}); use another"
          " --workdir"
        ) from None
    yield


def _finish(config, workdir, records):
  """Prints the table and writes it, with the plot, next to the phases."""
  rows = [r["row"] for r in records.values() if r["row"]]
  if not hosts.is_first():
    return rows
  report.write_results(workdir / "results.json", rows)
  default = [k for k, r in records.items() if r["phase"] == "grpo"]
  plotted = list(config.get("report", {}).get("plot", default))
  if plotted:
    try:
      report.plot(workdir, plotted, workdir / "report.png")
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
  cli.start(main)
