"""The mesh of devices, and the table that maps a parameter's axes to it.

The mesh has three axes. `data` and `fsdp` both split rows; `fsdp` also splits
every large parameter, and with it the optimizer's moments; `tensor` splits
heads and hidden units. One device is the mesh (1, 1, 1): the same code.
"""

import contextlib
import contextvars
import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType

from r1jax import checks, hosts
from r1jax.errors import UserError

AXES = ("data", "fsdp", "tensor")

# Axis of a parameter, named where the model makes it -> the mesh axis that
# splits it. None: every device holds the axis whole. A config overrides single
# rows: `c.mesh = dict(tensor=4, axes=dict(kv_heads=None))`.
TABLE = {
  "vocab": "tensor",  # tokens of the vocabulary
  "embed": "fsdp",  # width of the residual stream
  "heads": "tensor",  # query heads
  "kv_heads": "tensor",  # key and value heads
  "mlp": "tensor",  # hidden units
  "expert": None,
  "layer": None,  # the stack of layers, which a scan reads one at a time
  "rank": None,  # of adapters
  "norm": None,  # gains of norms are small
  "head_dim": None,  # one head's dimensions
}


@dataclasses.dataclass(frozen=True)
class Mesh:
  """Devices on named axes, and how they split the axes of parameters.

  Attributes:
    grid: the `jax.sharding.Mesh`, which JAX's own functions take.
    axes: rows of the axis table, ((axis of a parameter, mesh axis or None),
      ...).
  """

  grid: jax.sharding.Mesh
  axes: tuple = tuple(TABLE.items())

  @property
  def shape(self) -> Mapping[str, int]:
    """Devices along each axis, a mapping from its name."""
    return self.grid.shape

  @property
  def size(self) -> int:
    """Number of devices."""
    return self.grid.size

  @property
  def devices(self) -> np.ndarray:
    """[data, fsdp, tensor] numpy array of devices."""
    return self.grid.devices

  @property
  def table(self) -> dict[str, str | None]:
    """The axis table as a dict, see `TABLE`."""
    return dict(self.axes)


@dataclasses.dataclass(frozen=True)
class MeshConfig:
  """The sizes of the mesh axes and changes to the axis table.

  One of `data`, `fsdp` and `tensor` may be -1: the devices that the others
  leave.
  """

  # Devices that hold copies of the parameters; None takes the devices that the
  # other axes leave.
  data: int | None = None
  # Devices that split the parameters and the rows.
  fsdp: int = 1
  # Devices that split heads, hidden units and the vocabulary.
  tensor: int = 1
  # Changes to the axis table: axis of a parameter -> mesh axis that splits it,
  # or None to keep it whole on every device. Example: dict(kv_heads=None).
  axes: Mapping[str, str | None] = dataclasses.field(
    default_factory=dict, hash=False
  )

  def __post_init__(self):
    checks.types(self)
    for name in AXES:
      size = getattr(self, name)
      if size is not None and size < 1 and size != -1:
        raise UserError(
          f"{name}={size} must be a number of devices, 1 or more, or -1 for the"
          " devices that the other axes leave"
        )
    for name, target in self.axes.items():
      if name not in TABLE:
        raise UserError(
          f"axes.{name}: no parameter has the axis {name}; known:"
          f" {', '.join(TABLE)}"
        )
      if target not in (None, *AXES):
        raise UserError(
          f'axes.{name}="{target}" is no axis of the mesh; known:'
          f" {', '.join(AXES)}, and None to keep {name} whole"
        )

  @property
  def count(self) -> int | None:
    """Number of devices, or None if it depends on how many there are."""
    if self.data is None or -1 in (self.data, self.fsdp, self.tensor):
      return None
    return self.data * self.fsdp * self.tensor

  def make(self, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """The `Mesh` over these devices; None is all of them.

    Raises:
      UserError: the sizes do not multiply to the number of devices.
    """
    devices = jax.devices() if devices is None else devices
    others = -1 in (self.fsdp, self.tensor)
    data = (1 if others else -1) if self.data is None else self.data
    sizes = [data, self.fsdp, self.tensor]
    if sizes.count(-1) == 1:
      rest = math.prod(s for s in sizes if s != -1)
      sizes[sizes.index(-1)] = max(1, len(devices) // rest)
    if math.prod(sizes) != len(devices) or min(sizes) < 1:
      raise UserError(
        f"mesh: data={data}, fsdp={self.fsdp}, tensor={self.tensor} does not"
        f" cover {len(devices)} devices; set one axis to -1"
      )
    # Explicit axes, the default of newer JAX, would want every op annotated.
    grid = jax.make_mesh(
      sizes, AXES, axis_types=(AxisType.Auto,) * 3, devices=devices
    )
    return Mesh(grid, tuple((TABLE | dict(self.axes)).items()))


def make_mesh(
  devices: Sequence[jax.Device] | None = None, **fields: Any
) -> Mesh:
  """The `Mesh` that the fields of `MeshConfig` describe."""
  return MeshConfig(**fields).make(devices)


def apart(
  learner: MeshConfig,
  sampler: MeshConfig | None,
  devices: Sequence[jax.Device] | None = None,
) -> tuple[Mesh, Mesh]:
  """The meshes of a learner and of a sampler that has devices of its own.

  Args:
    learner: `MeshConfig`.
    sampler: `MeshConfig`; None shares the mesh of the learner. At least one of
      the two must have fixed sizes.
    devices: to be divided; None is all of them.

  Returns:
    the mesh of the learner, the mesh of the sampler.

  Raises:
    UserError: the sizes do not fit the devices.
  """
  devices = jax.devices() if devices is None else devices
  if sampler is None:
    mesh = learner.make(devices)
    return mesh, mesh
  count = sampler.count
  if count is None and learner.count is not None:
    count = len(devices) - learner.count
  if count is None:
    raise UserError(
      "sampler_mesh: set data, fsdp and tensor to numbers of devices, here or"
      " in mesh; otherwise it is unknown which devices the sampler takes"
    )
  try:
    first, last = hosts.split_devices(devices, count)
    return learner.make(first), sampler.make(last)
  except UserError as e:
    raise UserError(f"sampler_mesh: {e}") from None


_MESH: contextvars.ContextVar[Mesh | None] = contextvars.ContextVar(
  "mesh", default=None
)


@contextlib.contextmanager
def on(mesh: Mesh | None) -> Iterator[None]:
  """Code traced in this context runs on `mesh`: see `current`, `platform`."""
  token = _MESH.set(mesh)
  try:
    yield
  finally:
    _MESH.reset(token)


def current() -> Mesh | None:
  """The `Mesh` that the code being traced will run on, or None."""
  return _MESH.get()


def device() -> jax.Device:
  """The first device on which the code being traced will run."""
  mesh = current()
  return jax.devices()[0] if mesh is None else mesh.devices.flat[0]


def platform() -> str:
  """ "cpu", "gpu" or "tpu": where the code being traced will run."""
  return device().platform
