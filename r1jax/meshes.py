"""The mesh: its axes, which one is traced for, and on what platform.

The mesh has three axes. `data` and `fsdp` both split rows; `fsdp` also splits
every large parameter, and with it the optimiser's moments; `tensor` splits
heads and hidden units. One device is the mesh (1, 1, 1): the same code.
"""

import contextlib
import contextvars
import dataclasses
import math

import jax
from jax.sharding import AxisType

from r1jax import hosts
from r1jax.errors import UserError

AXES = ("data", "fsdp", "tensor")


@dataclasses.dataclass(frozen=True)
class MeshConfig:
  """The sizes of the mesh axes.

  One of `data`, `fsdp` and `tensor` may be -1: the devices that the others
  leave.

  Attributes:
    data: devices that hold copies of the parameters; None takes the devices
      that the other axes leave.
    fsdp: devices that split the parameters and the rows.
    tensor: devices that split heads, hidden units and the vocabulary.
  """

  data: int | None = None
  fsdp: int = 1
  tensor: int = 1

  def __post_init__(self):
    for name in AXES:
      size = getattr(self, name)
      if size is not None and size < 1 and size != -1:
        raise UserError(
          f"mesh: {name}={size} must be a number of devices, 1 or more, or"
          " -1 for the devices that the other axes leave"
        )

  @property
  def count(self):
    """Number of devices, or None if it depends on how many there are."""
    sizes = (self.data, self.fsdp, self.tensor)
    return None if None in sizes or -1 in sizes else math.prod(sizes)

  def make(self, devices=None):
    """The mesh over these devices; None is all of them.

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
    return jax.make_mesh(
      sizes, AXES, axis_types=(AxisType.Auto,) * 3, devices=devices
    )


def make_mesh(devices=None, **fields):
  """The mesh that the fields of `MeshConfig` describe."""
  return MeshConfig(**fields).make(devices)


def apart(learner, sampler, devices=None):
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


_MESH = contextvars.ContextVar("mesh", default=None)


@contextlib.contextmanager
def on(mesh):
  """What is traced inside runs on this mesh: see `current`, `platform`."""
  token = _MESH.set(mesh)
  try:
    yield
  finally:
    _MESH.reset(token)


def current():
  """The mesh that is traced for, or None."""
  return _MESH.get()


def device():
  """The first of the devices on which what is traced will run."""
  mesh = current()
  return jax.devices()[0] if mesh is None else mesh.devices.flat[0]


def platform():
  """ "cpu", "gpu" or "tpu": where what is traced will run."""
  return device().platform
