"""Loading streams: a host never holds much more than the parameters."""

import functools
import subprocess
import sys

import jax
import numpy as np
import pytest
import safetensors.numpy

from r1jax import hf, sharding
from r1jax import model as model_lib
from r1jax.hf import families
from r1jax.hf.tensors import INDEX
from r1jax.model import ModelConfig

CONFIG = ModelConfig(
  vocab_size=40_000, d_model=1536, n_layers=16, n_heads=12, n_kv_heads=12,
  head_dim=128, d_ff=4096, max_length=512, tied=True,
)  # fmt: skip

# The most that the process ever held, in bytes; Linux tells it in KiB.
LOAD = """
import sys
from r1jax import hf
model, params = hf.load(sys.argv[1])
for line in open("/proc/self/status"):
  if line.startswith("VmHWM"):
    print(int(line.split()[1]) * 1024)
"""


def write(directory):
  """A checkpoint of 2 GB of noise in eight files; its sizes in bytes."""
  import json

  directory.mkdir()
  raw = hf.to_hf(CONFIG)
  (directory / "config.json").write_text(json.dumps(raw))
  init = functools.partial(model_lib.init, CONFIG)
  shapes = jax.eval_shape(init, jax.random.key(0))
  family, plan = families.of_model(CONFIG), {}
  for path, leaf in jax.tree_util.tree_leaves_with_path(shapes):
    for part in family.parts(sharding.path_name(path), leaf.shape):
      sizes = part.form.shapes(leaf.shape[len(part.at) :])
      plan |= dict(zip(part.tensors, sizes))
  names = list(plan)
  rng, index = np.random.default_rng(0), {}
  for shard in range(8):
    arrays = {n: rng.random(plan[n], np.float32) for n in names[shard::8]}
    file = f"model-{shard + 1:05}-of-00008.safetensors"
    safetensors.numpy.save_file(arrays, directory / file)
    index |= dict.fromkeys(arrays, file)
  (directory / INDEX).write_text(json.dumps({"weight_map": index}))
  sizes = [4 * int(np.prod(s)) for s in plan.values()]
  return sum(sizes), max(sizes)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_peak_memory_of_a_2_gb_checkpoint(tmp_path):
  total, largest = write(tmp_path / "model")
  assert total > 2e9
  done = subprocess.run(
    [sys.executable, "-c", LOAD, str(tmp_path / "model")],
    check=True,
    capture_output=True,
    text=True,
  )
  peak = int(done.stdout.split()[-1])
  print(f"{total=:,} {largest=:,} {peak=:,}", jax.__version__)
  assert peak < total + 1.5 * largest + 10**9
