"""Tensors in safetensors files: which there are, and how to read and write."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import safetensors
import safetensors.numpy

from r1jax import objects
from r1jax.errors import UserError

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
# Name of a dtype in safetensors -> numpy dtype.
DTYPES = {
  "F64": np.dtype("float64"),
  "F32": np.dtype("float32"),
  "F16": np.dtype("float16"),
  "BF16": np.dtype(ml_dtypes.bfloat16),
}


class Stored:
  """A tensor in a file, of which any slice can be read.

  Args:
    path: of the file.
    name: of the tensor.
    shape: of the tensor, a tuple.
    dtype: name of its dtype in safetensors.
  """

  def __init__(
    self, path: Path, name: str, shape: Sequence[int], dtype: Any
  ) -> None:
    self.path, self.name, self.shape, self.dtype = path, name, shape, dtype

  def read(self, index: tuple[slice, ...]) -> np.ndarray:
    """Reads a slice of the tensor.

    Args:
      index: tuple of slices.

    Returns:
      numpy array.
    """
    # Opened anew each time: pages of a mapped file count as used memory.
    with safetensors.safe_open(self.path, "numpy") as f:
      return f.get_slice(self.name)[index]


def find(directory: Path) -> dict[str, Stored]:
  """Finds the tensors of a checkpoint; only the headers are read.

  Args:
    directory: Path with one safetensors file, or several with their index.

  Returns:
    dict of name -> `Stored`.

  Raises:
    UserError: a file is absent or truncated, or has an unknown dtype; or there
      is no tensor.
  """
  index = directory / INDEX
  if index.exists():
    weights = objects.read(index).get("weight_map")
    if not isinstance(weights, dict) or not weights:
      raise UserError(f'{index}: the key "weight_map" is missing or empty')
    names = _file_names(weights, index)
  elif (directory / SINGLE).exists():
    names = [SINGLE]
  else:
    raise UserError(
      f"{directory} has neither {SINGLE} nor {INDEX}; a checkpoint in"
      " PyTorch's own format has to be converted to safetensors first"
    )
  found: dict[str, Stored] = {}
  for name in names:
    path = directory / name
    if not path.exists():
      raise UserError(f"{index} names the file {name}, which is absent")
    found |= _header(path)
  if not found:
    raise UserError(f"{directory}: its safetensors files hold no tensor")
  return found


def _file_names(weights, index):
  """The names of the files in an index, which lie beside it."""
  for name in weights.values():
    if not isinstance(name, str) or Path(name).name != name:
      raise UserError(f"{index}: {name!r:.60} is no name of a file beside it")
  return sorted(set(weights.values()))


def _header(path):
  """The tensors of one file, name -> `Stored`."""
  try:
    with safetensors.safe_open(path, "numpy") as f:
      slices = {name: f.get_slice(name) for name in f.keys()}  # noqa: SIM118
      found = {
        name: Stored(path, name, tuple(s.get_shape()), s.get_dtype())
        for name, s in slices.items()
      }
  except (safetensors.SafetensorError, OSError) as e:
    raise UserError(
      f"{path} cannot be read ({e}); it is truncated or damaged, fetch it again"
    ) from None
  for name, tensor in found.items():
    if tensor.dtype not in DTYPES:
      raise UserError(
        f"{path}: {name} has the dtype {tensor.dtype}; known:"
        f" {', '.join(DTYPES)}"
      )
  return found


def write(path: Path, arrays: dict[str, np.ndarray]) -> None:
  """Writes one safetensors file, with the permissions of a usual file.

  Args:
    path: of the file.
    arrays: name -> numpy array, contiguous.
  """
  safetensors.numpy.save_file(arrays, path, metadata={"format": "pt"})
  # The library makes the file readable to its owner only.
  path.chmod(0o644)
