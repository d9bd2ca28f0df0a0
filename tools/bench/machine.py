"""Functions of all benchmarks: models, lengths, speeds of the machine."""

import argparse
import resource
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np

from r1jax import hf
from r1jax.hf import hub


def count(text):
  """Parses a flag whose value is a whole number of at least 1.

  Args:
    text: the value as written.

  Raises:
    argparse.ArgumentTypeError: the number is less than 1.
  """
  if int(text) < 1:
    raise argparse.ArgumentTypeError(f"{text} must be at least 1")
  return int(text)


def model_arguments(what):
  """Adds the flags that `load` reads.

  Args:
    what: `argparse.ArgumentParser`.
  """
  what.add_argument("--model", required=True, help="hf:DIR, or a hub id")
  what.add_argument(
    "--dtype", choices=("float32", "bfloat16"), default="float32",
    help="of the arithmetic; float32",
  )  # fmt: skip


def load(args):
  """Loads the model of `--model`, which computes in `--dtype`.

  Args:
    args: the parsed flags of `model_arguments`.

  Returns:
    `Decoder` and parameters in float32.
  """
  directory = hub.directory(args.model.removeprefix("hf:"))
  return hf.load(directory, dtype="float32", compute_dtype=args.dtype)


def lognormal_lengths(number, most):
  """Draws completion lengths with a heavy tail: median 48, at least 4.

  Args:
    number: of completions.
    most: tokens of the longest completion.

  Returns:
    [number] int array, always the same.
  """
  lengths = np.random.default_rng(7).lognormal(np.log(48), 1.0, number)
  return np.clip(np.round(lengths), 4, most).astype(int)


def product_rate(dtype):
  """Measures FLOP/s of a product of two matrices of 2048 x 2048.

  Args:
    dtype: of the matrices.
  """
  x = jnp.ones((2048, 2048), dtype)
  product = jax.jit(jnp.matmul)
  seconds = []
  for _ in range(6):
    begin = time.perf_counter()
    product(x, x).block_until_ready()
    seconds.append(time.perf_counter() - begin)
  return 2 * 2048**3 / min(seconds[1:])


def bandwidth():
  """Measures how many bytes a second are read from memory."""
  x = jnp.ones((4096, 2**16), jnp.float32)  # larger than any cache
  read = jax.jit(lambda x: x.max(axis=1))
  seconds = []
  for _ in range(4):
    begin = time.perf_counter()
    read(x).block_until_ready()
    seconds.append(time.perf_counter() - begin)
  return x.nbytes / min(seconds[1:])


def peak_memory():
  """Bytes of the device at most, or of the process if the device is silent.

  CPU devices do not report their memory.
  """
  stats = jax.devices()[0].memory_stats() or {}
  scale = 1 if sys.platform == "darwin" else 1024
  resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale
  return stats.get("peak_bytes_in_use", resident)
