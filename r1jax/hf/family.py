"""What a family of Hugging Face models has to declare about itself.

A family is a file in `r1jax/hf/families/`. It defines a subclass of `Family`
for each architecture and lists their instances in `FAMILIES`. The reader and
the writer of weights know no names of tensors and no architecture.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from r1jax.model import ModelConfig


class Form:
  """How tensors of a checkpoint combine into a part of a parameter of ours.

  This class is for one tensor that is the part itself. A subclass may
  transpose it, or make the part of several tensors.
  """

  def shapes(self, shape: Sequence[int]) -> list[tuple[int, ...]]:
    """The shapes that the tensors must have.

    Args:
      shape: of the part.

    Returns:
      list of shapes, one for each tensor.
    """
    return [tuple(shape)]

  def read(
    self, tensors: Sequence[Any], index: tuple[slice, ...]
  ) -> np.ndarray:
    """Reads a slice of the part from the tensors.

    Args:
      tensors: list of `tensors.Stored`, which have `shape`, `dtype` and
        `read(index)`.
      index: tuple of slices, one for each axis of the part; a slice may be
        `slice(None)`.

    Returns:
      the slice as numpy array, in the dtype of the checkpoint.
    """
    return tensors[0].read(index)

  def write(self, part: np.ndarray, tensors: Sequence[np.ndarray]) -> None:
    """Writes the part into the tensors.

    Args:
      part: numpy array.
      tensors: list of numpy arrays of `shapes(part.shape)`, to be filled.
        Other parts may fill the rest of a tensor.
    """
    tensors[0][...] = part


class Transposed(Form):
  """One tensor [out, in], which is our kernel [in, out]."""

  def shapes(self, shape: Sequence[int]) -> list[tuple[int, ...]]:
    """The shapes that the tensors must have; see `Form`."""
    return [tuple(shape[::-1])]

  def read(
    self, tensors: Sequence[Any], index: tuple[slice, ...]
  ) -> np.ndarray:
    """Reads a slice of the part from the tensors; see `Form`."""
    return np.ascontiguousarray(tensors[0].read(index[::-1]).T)

  def write(self, part: np.ndarray, tensors: Sequence[np.ndarray]) -> None:
    """Writes the part into the tensors; see `Form`."""
    tensors[0][...] = part.T


PLAIN, TRANSPOSED = Form(), Transposed()


class Part(NamedTuple):
  """A part of a parameter of ours, and the tensors that it is made of.

  Attributes:
    leaf: path of the parameter, such as "layers/q/kernel".
    at: index of the part along the first axes of the parameter: () for the
      whole parameter, (3,) for layer 3, (3, 7) for expert 7 of layer 3.
    tensors: names of the tensors. Several parts may name the same tensor.
    form: how the tensors combine.
  """

  leaf: str
  at: tuple
  tensors: tuple
  form: Form = PLAIN


class Family:
  """One architecture: its config.json and its tensors.

  Attributes:
    architecture: the entry of "architectures" in config.json.
    model_type: the entry "model_type" in config.json.
    features: field of `ModelConfig` -> the value that this architecture has.
      Fields that are not listed have their defaults.
    stored: further fields of `ModelConfig` that its config.json holds. Those
      that only other families store have their defaults.
  """

  architecture: str
  model_type: str
  features: Mapping = MappingProxyType({})
  stored: tuple[str, ...] = ()

  def fields(self, raw: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The fields of the `ModelConfig` for a config.json.

    Args:
      raw: the dict of config.json.
      where: name of the file, for messages.

    Returns:
      dict of keyword arguments.

    Raises:
      UserError: a key is missing, or asks for something that the decoder does
        not compute.
    """
    raise NotImplementedError

  def raw(self, model: ModelConfig) -> dict[str, Any]:
    """The dict of config.json for a `ModelConfig` with this family's features.

    Args:
      model: the `ModelConfig`.
    """
    raise NotImplementedError

  def parts(self, leaf: str, shape: Sequence[int]) -> list[Part]:
    """The parts that a parameter is made of.

    Args:
      leaf: path of the parameter.
      shape: of the parameter.

    Returns:
      list of `Part` that together cover the parameter; empty if this family
      has no such parameter.
    """
    raise NotImplementedError

  def ignores(self, tensor: str, model: ModelConfig) -> bool:
    """Whether a checkpoint may hold this tensor though no parameter needs it.

    Args:
      tensor: name of the tensor.
      model: the `ModelConfig`.
    """
    return False

  def copies(self, model: ModelConfig) -> Mapping[str, str]:
    """Tensors that a checkpoint may hold as copies of others.

    Args:
      model: the `ModelConfig`.

    Returns:
      mapping from the name of a tensor to the one that it must equal.
    """
    return {}
