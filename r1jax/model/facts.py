"""Facts of a parameter, stated where the model makes it.

A module wraps the initializer: `self.param("kernel", named(init, ("embed",
"heads"), "matrix"), ...)`. Sharding, weight decay, Muon, adapters and the
sampler's layout read these facts and no names.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import flax.struct

KINDS = ("matrix", "table", "gain", "bias", "adapter")


@dataclasses.dataclass(frozen=True)
class Facts:
  """What is known of one parameter.

  Attributes:
    axes: name of each axis, a key of `meshes.TABLE`.
    kind: one of `KINDS`. A "matrix" is the weight of a product, its last two
      axes in and out; a "table" has a row or column for each token; a "gain"
      multiplies and a "bias" is added; an "adapter" is a factor of LoRA.
    units: for each axis, how many neighbouring entries stay on one device:
      the dimensions of a head, or 1.
    trained: whether training changes it; False is frozen.
    rule: (value, signal) -> value, which changes it after an optimizer step;
      None where its gradient does. See `training.learner.Update`.
  """

  axes: tuple
  kind: str
  units: tuple
  trained: bool = True
  rule: Callable | None = None

  @property
  def decays(self) -> bool:
    """Whether weight decay applies: to weights, not to gains and biases."""
    return self.kind in ("matrix", "table", "adapter")

  @property
  def is_layer_matrix(self) -> bool:
    """Whether it holds matrices of layers, on its last two axes."""
    return self.kind in ("matrix", "adapter") and "layer" in self.axes


class Boxed(flax.struct.PyTreeNode, nn.meta.AxisMetadata):
  """A parameter with its facts, as its initializer returns it."""

  value: Any
  facts: Facts = flax.struct.field(pytree_node=False)

  def unbox(self) -> Any:
    return self.value

  def replace_boxed(self, value: Any) -> "Boxed":
    return self.replace(value=value)

  def add_axis(self, index: int, params: Any) -> "Boxed":
    """Flax calls this where it stacks layers."""
    axes, units = list(self.facts.axes), list(self.facts.units)
    axes.insert(index, params[nn.PARTITION_NAME])
    units.insert(index, 1)
    return self._with(axes, units)

  def remove_axis(self, index: int, params: Any) -> "Boxed":
    del params
    axes, units = list(self.facts.axes), list(self.facts.units)
    del axes[index], units[index]
    return self._with(axes, units)

  def _with(self, axes, units):
    facts = dataclasses.replace(
      self.facts, axes=tuple(axes), units=tuple(units)
    )
    return self.replace(facts=facts)


def named(
  init: Callable,
  axes: Sequence[str],
  kind: str,
  units: Sequence[int] | None = None,
  rule: Callable | None = None,
) -> Callable:
  """An initializer whose parameter has these facts.

  Args:
    init: (key, shape, dtype) -> array.
    axes, kind, units, rule: of `Facts`; units None is 1 for all.

  Returns:
    a function of the same arguments that returns the array `Boxed`.
  """
  if kind not in KINDS:
    raise ValueError(f'kind "{kind}" is none of {", ".join(KINDS)}')
  facts = Facts(tuple(axes), kind, tuple(units or (1,) * len(axes)), rule=rule)

  def boxed(*args):
    return Boxed(init(*args), facts)

  return boxed
