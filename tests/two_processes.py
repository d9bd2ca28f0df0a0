"""A program that two processes run together, and how a test starts them.

Each process prints one JSON line with what it found.
"""

import json
import os
import socket
import subprocess
import sys

from r1jax.types import Verdict

SECONDS = 900


def start(directory, *parts, devices=2):
  """Runs functions of this file in two processes.

  Args:
    directory: of both; what they write is below it.
    *parts: names of the functions.
    devices: of each process.

  Returns:
    two dicts from each name to what the function returned.
  """
  with socket.socket() as free:
    free.bind(("localhost", 0))
    address = f"localhost:{free.getsockname()[1]}"
  flags = os.environ.get("XLA_FLAGS", "")  # The last of two counts.
  environment = {
    **os.environ,
    "JAX_PLATFORMS": "cpu",
    "XLA_FLAGS": f"{flags} --xla_force_host_platform_device_count={devices}",
    "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
  }
  running = [
    subprocess.Popen(
      [sys.executable, __file__, address, str(i), str(directory), *parts],
      env=environment, stdout=subprocess.PIPE, text=True,
    )
    for i in range(2)
  ]  # fmt: skip
  try:
    outputs = [process.communicate(timeout=SECONDS)[0] for process in running]
  finally:
    for process in running:
      process.kill()
  assert [process.returncode for process in running] == [0, 0]
  return [json.loads(output.splitlines()[-1]) for output in outputs]


def main(address, index, directory, *parts):
  """What one of the two processes does."""
  from pathlib import Path

  import jax

  jax.distributed.initialize(address, 2, int(index))
  directory = Path(directory)
  found = {"process": jax.process_index(), "devices": jax.device_count()}
  for part in parts:
    found[part] = globals()[part](directory)
  print(json.dumps(found))


def talk(directory):
  """Shares, gathers and broadcasts."""
  import jax

  from r1jax import hosts

  own = hosts.share(range(7))
  me = jax.process_index()
  return {
    "first": hosts.is_first(),
    "own": list(own),
    "gathered": hosts.gather([f"{i} by {me}" for i in own]),
    "of none": hosts.gather(hosts.share([])),
    "of one": hosts.gather([me for _ in hosts.share([0])]),
    "large": len(hosts.gather(["x" * 100_000 * (1 + me)])[1]),
    "broadcast": hosts.broadcast({"by": me}),
    "on first": hosts.on_first(lambda: me + 10),
  }


def fail(directory):
  """An error of the first process is everybody's."""
  from r1jax import files, hosts
  from r1jax.errors import UserError

  (directory / "full" / "file").mkdir(parents=True, exist_ok=True)
  hosts.barrier("made")
  errors = []
  for context in (
    files.whole_directory(directory / "full"),
    files.whole_directory(directory / "absent"),
  ):
    try:
      # The second one is entered; leaving it fails, since nothing was made.
      with hosts.entered_on_first(context):
        pass
    except (UserError, OSError) as e:
      errors.append(type(e).__name__)
  return errors


def write(directory):
  """A sharded array, to disk and back."""
  import jax
  import numpy as np
  from jax.sharding import AxisType, NamedSharding
  from jax.sharding import PartitionSpec as P

  from r1jax import hosts
  from r1jax.run import checkpoint

  mesh = jax.make_mesh((4,), ("x",), axis_types=(AxisType.Auto,))
  values = np.arange(8, dtype=np.float32)
  array = jax.make_array_from_callback(
    (8,), NamedSharding(mesh, P("x")), lambda i: values[i]
  )
  checkpoint.save_step(directory / "steps", 3, {"a": array})
  again = checkpoint.restore(directory / "steps" / "3", {"a": array})["a"]
  return {
    "whole": hosts.whole(again).tolist(),
    "own": len(again.addressable_shards),
    "left": sorted(path.name for path in (directory / "steps").iterdir()),
  }


def stop(directory):
  """The second process is asked to stop; both stop after the same step."""
  import signal
  import time

  import jax
  import numpy as np

  from r1jax import stopping
  from r1jax.run.phase_io import PhaseIO

  stopping.listen()
  io = PhaseIO(directory, "stop")
  io.restore({"x": np.ones(2)})
  for step in range(9):
    if step == 3 and jax.process_index() == 1:
      os.kill(os.getpid(), signal.SIGTERM)
      while not stopping.asked():
        time.sleep(0.001)
    io.report(step, {})
    if io.due(step + 1, 100, 100):
      try:
        io.save(step + 1, {"x": np.ones(2)})
      except stopping.Stopped as e:
        return {"saved": io.saved, "code": e.code}
  return {}


def verdict_of_this_host(problem, completion):
  """A verifier that says something else on each host."""
  host = int(os.environ["HOST"])
  return Verdict(False, (1 + host) / 4, f"by {host}")


def judge(directory):
  """Rewards of a rollout of two groups of three; the last one was cut."""
  import types

  import jax
  import numpy as np

  from r1jax import meshes
  from r1jax.phases import actor
  from r1jax.phases.common import Setup
  from r1jax.types import Problem, Rollout

  os.environ["HOST"] = str(jax.process_index())  # for the workers
  verifier = "two_processes:verdict_of_this_host"
  problems = [
    Problem(f"p{i}", "own", "?", "", "en", {}, verifier) for i in range(2)
  ]
  made = Rollout(
    np.zeros((6, 1), int), np.zeros((6, 1)), np.ones(6, int),
    np.array([True] * 5 + [False]),
  )  # fmt: skip

  class Sampler:
    """Samples nothing."""

    def __init__(self, model, config, group, mesh, keep):
      self.group = group

    def sample(self, loaded, prompts, key, temperature, callbacks):
      callbacks.on_finished(np.arange(6), made)
      return made

  actor.Sampler = Sampler
  mesh = meshes.make_mesh()
  tokenizer = types.SimpleNamespace(
    encode=lambda text: [0], decode=lambda ids: "text"
  )
  config = types.SimpleNamespace(
    model=types.SimpleNamespace(max_length=9), temperature=1.0,
    sampler=types.SimpleNamespace(max_new_tokens=1, stop=()),
    decoder=lambda t: None,
  )  # fmt: skip
  setup = Setup(mesh, mesh, tokenizer, None)
  scored = actor.Actor(config, setup, 3, {"accuracy": 1.0}).rollout(problems)
  return {
    "rewards": scored.reward.tolist(),
    "reasons": [row["reason"] for row in scored.scores],
  }


def run(directory):
  """A run of three phases, all of whose arrays are spread over both."""
  import importlib.util

  from experiments import launch

  path = os.path.join(os.path.dirname(__file__), "../configs/quickstart.py")
  spec = importlib.util.spec_from_file_location("c", path)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  config = module.get_config("smoke")
  config.phases = ("base", "r1_zero", "eval_r1_zero")
  config.mesh = dict(fsdp=-1)
  config.models.base.update(n_layers=1, d_model=32, d_ff=64)
  return launch.run(config, directory / "run")


if __name__ == "__main__":
  main(*sys.argv[1:])
