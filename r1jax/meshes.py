"""The mesh: its axes, which one is traced for, and on what platform.

The mesh has three axes. `data` and `fsdp` both split rows; `fsdp` also splits
every large parameter, and with it the optimiser's moments; `tensor` splits
heads and hidden units. One device is the mesh (1, 1, 1): the same code.
"""

import contextlib
import contextvars
import math

import jax
from jax.sharding import AxisType

from r1jax.errors import UserError

AXES = ("data", "fsdp", "tensor")


def make_mesh(data=1, fsdp=1, tensor=1, devices=None):
  """A mesh over all devices; one axis may be -1, "what is left".

  Raises:
    UserError: the sizes do not multiply to the number of devices.
  """
  devices = jax.devices() if devices is None else devices
  sizes = [data, fsdp, tensor]
  if sizes.count(-1) == 1:
    rest = max(1, math.prod(s for s in sizes if s != -1))
    sizes[sizes.index(-1)] = max(1, len(devices) // rest)
  if math.prod(sizes) != len(devices) or min(sizes) < 1:
    raise UserError(
      f"mesh: data={data}, fsdp={fsdp}, tensor={tensor} does not cover"
      f" {len(devices)} devices; set one axis to -1"
    )
  # Explicit axes, the default of newer JAX, would want every op annotated.
  return jax.make_mesh(
    sizes, AXES, axis_types=(AxisType.Auto,) * 3, devices=devices
  )


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
