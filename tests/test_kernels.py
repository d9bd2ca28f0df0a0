"""The kernels of other platforms, interpreted here, against plain XLA."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from r1jax import sharding
from r1jax.model import attention, kernels


def inputs(heads, kv, t=256, d=64):
  rng = np.random.default_rng(0)
  q = rng.normal(size=(2, heads, t, d))
  k = rng.normal(size=(2, kv, d, t))
  v = rng.normal(size=(2, kv, t, d))
  segments = np.zeros((2, t), np.int32)
  segments[0, :100], segments[0, 100:240], segments[1, :200] = 1, 2, 1
  arrays = (jnp.asarray(x, jnp.float32) for x in (q, k, v))
  return *arrays, jnp.asarray(segments)


def plain(q, k, v, segments):
  return attention.attend(q, k, v, attention.causal_mask(segments))


@pytest.mark.parametrize("heads, kv", [(4, 4), (6, 2)])
def test_splash_is_plain_attention(heads, kv):
  q, k, v, segments = inputs(heads, kv)
  real = (segments > 0)[:, None, :, None]

  def value(f):
    def total(q, k, v):
      out = jnp.where(real, f(q, k, v, segments), 0)
      return (out * jnp.cos(3 * out)).sum(), out

    return jax.jit(jax.grad(total, argnums=(0, 1, 2), has_aux=True))(q, k, v)

  got, out = value(lambda *x: kernels.splash_attend(*x, interpret=True))
  wanted, want = value(plain)
  np.testing.assert_allclose(out, want, atol=2e-5)
  for a, b in zip(got, wanted):
    np.testing.assert_allclose(a, b, atol=2e-4)


def test_splash_on_a_mesh():
  q, k, v, segments = inputs(4, 2)
  mesh = sharding.make_mesh(data=2, fsdp=1, tensor=2, devices=jax.devices()[:4])
  with sharding.on(mesh):
    out = jax.jit(
      lambda *x: kernels.splash_attend(*x, interpret=True)
    )(q, k, v, segments)  # fmt: skip
  real = np.asarray(segments) > 0
  want = plain(q, k, v, segments)
  for row in range(2):
    np.testing.assert_allclose(
      out[row][:, real[row]], want[row][:, real[row]], atol=2e-5
    )
  assert len(out.sharding.device_set) == 4


def test_the_mesh_names_the_platform():
  assert sharding.platform() == "cpu" and sharding.current() is None
  mesh = sharding.make_mesh(devices=jax.devices()[:1])
  with pytest.raises(ZeroDivisionError), sharding.on(mesh):
    assert sharding.current() is mesh and sharding.platform() == "cpu"
    1 / 0  # noqa: B018
  assert sharding.current() is None
