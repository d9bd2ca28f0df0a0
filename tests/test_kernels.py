"""Kernels of whole sequences against plain attention.

Those of other platforms are interpreted, or only lowered.
"""

import functools
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from r1jax import meshes
from r1jax import model as model_lib
from r1jax.model import Decoder, ModelConfig, attention, kernels, tiles


def inputs(heads, kv, t=256, d=64, width=None):
  rng = np.random.default_rng(0)
  q = rng.normal(size=(2, heads, t, d))
  k = rng.normal(size=(2, kv, d, t))
  v = rng.normal(size=(2, kv, t, width or d))
  segments = np.zeros((2, t), np.int32)
  segments[0, :100], segments[0, 100:240], segments[1, :200] = 1, 2, 1
  arrays = (jnp.asarray(x, jnp.float32) for x in (q, k, v))
  return *arrays, jnp.asarray(segments)


def random_rows(rng, t):
  """[2, T] segments, and prefixes that some of them share."""
  segments, prefixes = (np.zeros((2, t), np.int32) for _ in range(2))
  for row, before in zip(segments, prefixes):
    at, end, number, prefix = 0, rng.integers(0, t), 0, 0
    while at < end:
      n = min(rng.integers(1, 120), end - at)
      number += 1
      row[at : at + n] = number
      if rng.random() < 0.3:
        prefix = number
      else:
        before[at : at + n] = prefix
      at += n
  return jnp.asarray(segments), jnp.asarray(prefixes)


def plain(q, k, v, segments, prefixes=None):
  mask = attention.causal_mask(segments, prefixes)
  return attention.attend(q, k, v, mask)


@functools.lru_cache
def gradients(f, mesh):
  """Of a sum over real tokens that is not linear; and outputs."""

  def total(q, k, v, *marks):
    out = f(q, k, v, *marks)
    out = jnp.where((marks[0] > 0)[:, None, :, None], out, 0)
    return (out * jnp.cos(3 * out)).sum(), out

  return jax.jit(jax.grad(total, argnums=(0, 1, 2), has_aux=True))


def agree(f, g, *arrays):
  mesh = meshes.current()
  got, out = gradients(f, mesh)(*arrays)
  wanted, want = gradients(g, mesh)(*arrays)
  np.testing.assert_allclose(out, want, atol=2e-5)
  for a, b in zip(got, wanted):
    np.testing.assert_allclose(a, b, atol=2e-4)


@pytest.mark.parametrize("heads, kv, width", [(4, 4, 64), (6, 2, 128)])
def test_splash_is_plain_attention(heads, kv, width):
  q, k, v, segments = inputs(heads, kv, width=width)
  agree(
    lambda *x: kernels.splash_attend(*x, interpret=True), plain, q, k, v,
    segments,
  )  # fmt: skip


@settings(max_examples=25, deadline=None)
@given(
  st.integers(0, 2**31),
  # Few shapes, as each is compiled; with values as wide as keys, and wider.
  st.sampled_from([(129, 8), (256, 12), (399, 8)]),
  st.booleans(),
)
def test_tiles_are_plain_attention(seed, shape, shared):
  """Rows of random segments, some opened by a prefix that others share."""
  rng, (t, width) = np.random.default_rng(seed), shape
  segments, prefixes = random_rows(rng, t)
  q, k, v = (
    jnp.asarray(rng.normal(size=s), jnp.float32)
    for s in ((2, 4, t, 8), (2, 2, 8, t), (2, 2, t, width))
  )
  marks = (segments, prefixes) if shared else (segments,)
  agree(tiles.attend, plain, q, k, v, *marks)


def test_tiles_visit_what_is_seen():
  """A prompt of 64 and four completions of 64: each sees both, no other."""
  marks = np.repeat(np.array([[1, 2, 3, 4, 5], [0, 1, 1, 1, 1]]), 64, axis=1)
  pairs = tiles.tile_pairs(*marks.astype(np.int32).reshape(2, 5, 1, 64))
  got = set(zip(*np.asarray(pairs[:2])[:, : pairs.count].tolist()))
  want = {(i, i) for i in range(5)} | {(i, 0) for i in range(5)}
  assert got == want and pairs.count == 9


@pytest.mark.usefixtures("fused")
def test_tile_memory_is_linear():
  """Twice the row, twice the memory of the gradient's temporaries."""

  def temporaries(t):
    shapes = ((1, 4, t, 32), (1, 2, 32, t), (1, 2, t, 32))
    q, k, v = (jax.ShapeDtypeStruct(s, jnp.float32) for s in shapes)
    segments = jax.ShapeDtypeStruct((1, t), jnp.int32)

    def loss(q, k, v, segments):
      return tiles.attend(q, k, v, segments).sum()

    grad = jax.jit(jax.grad(loss, argnums=(0, 1, 2)))
    compiled = grad.lower(q, k, v, segments).compile()
    return compiled.memory_analysis().temp_size_in_bytes

  assert temporaries(8192) < 2.2 * temporaries(4096)


@pytest.mark.parametrize("t", [100, 256])
def test_attention_on_a_mesh(t):
  q, k, v, segments = inputs(4, 2, t)
  mesh = meshes.make_mesh(data=2, fsdp=1, tensor=2, devices=jax.devices()[:4])
  prefixes = jnp.where(segments == 2, 1, 0)
  with meshes.on(mesh):
    agree(kernels.attend, plain, q, k, v, segments, prefixes)


def test_splash_on_a_mesh():
  q, k, v, segments = inputs(4, 2)
  mesh = meshes.make_mesh(data=2, fsdp=1, tensor=2, devices=jax.devices()[:4])
  with meshes.on(mesh):
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


def as_cudnn(*arrays):
  return kernels.cudnn_attend(*arrays, implementation="xla")


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**31), st.sampled_from([1, 2, 4]), st.booleans())
def test_what_cudnn_is_asked_for_is_plain_attention(seed, kv, shared):
  """By JAX's own reference of it; padding and its gradients are finite."""
  rng = np.random.default_rng(seed)
  q, k, v, _ = inputs(4, kv, 136, 8)
  marks = random_rows(rng, 136)[: 1 + shared]
  agree(as_cudnn, plain, q, k, v, *marks)
  assert jnp.isfinite(as_cudnn(q, k, v, *marks)).all()


def test_what_cudnn_is_asked_for_on_a_mesh():
  q, k, v, segments = inputs(4, 2)
  mesh = meshes.make_mesh(data=2, fsdp=1, tensor=2, devices=jax.devices()[:4])
  with meshes.on(mesh):
    agree(as_cudnn, plain, q, k, v, segments, jnp.where(segments == 2, 1, 0))


@pytest.fixture
def gpu(monkeypatch):
  """A GPU that what is traced believes in; JAX asks for cuDNN's version."""
  from jax._src.cudnn import fused_attention_stablehlo

  device = SimpleNamespace(platform="gpu", compute_capability="9.0")
  monkeypatch.setattr(meshes, "device", lambda: device)
  monkeypatch.setattr(
    fused_attention_stablehlo, "check_cudnn_version", lambda: 91900
  )
  return device


def for_cuda(f, *arrays):
  """The program that a GPU would get; none is needed."""
  traced = jax.jit(f).trace(*arrays)
  return traced.lower(lowering_platforms=("cuda",)).as_text()


FORWARD = "@__cudnn$fmhaScaleBiasSoftmax("
BACKWARD = "@__cudnn$fmhaScaleBiasSoftmaxBackward("


@pytest.mark.parametrize("tensor", [None, 1, 2])
@pytest.mark.parametrize("shared", [False, True])
def test_a_gpu_gets_cudnn(gpu, tensor, shared):
  q, k, v, segments = inputs(4, 2)
  q, k, v = (x.astype(jnp.bfloat16) for x in (q, k, v))
  mesh = None
  if tensor:
    devices = jax.devices()[: 2 * tensor]
    mesh = meshes.make_mesh(data=2, fsdp=1, tensor=tensor, devices=devices)

  def loss(q, k, v):
    prefixes = segments if shared else None
    return kernels.attend(q, k, v, segments, prefixes).sum()

  with meshes.on(mesh):
    text = for_cuda(jax.grad(loss, argnums=(0, 1, 2)), q, k, v)
    assert FORWARD in text and BACKWARD in text
    assert FORWARD in for_cuda(loss, q, k, v)
    whole = (x.astype(jnp.float32) for x in (q, k, v))
    assert "__cudnn" not in for_cuda(loss, *whole)


@pytest.mark.parametrize("remat, forwards", [
  ("none", 1), ("products", 1), ("layer", 2),
])  # fmt: skip
def test_what_is_kept_of_cudnn(gpu, remat, forwards):
  """Its results, but where nothing is; the mask not for each layer."""
  config = ModelConfig(
    vocab_size=32, d_model=32, n_layers=3, n_heads=4, n_kv_heads=2, head_dim=8,
    d_ff=64, max_length=256, compute_dtype="bfloat16", remat=remat,
  )  # fmt: skip
  params = jax.eval_shape(lambda: model_lib.init(config, jax.random.key(0)))
  ints = jax.ShapeDtypeStruct((1, 256), jnp.int32)

  def loss(params, *batch):
    return Decoder(config).apply({"params": params}, *batch).sum()

  text = for_cuda(jax.grad(loss), params, ints, ints, ints)
  assert text.count(FORWARD) == forwards and text.count(BACKWARD) == 1
  assert "<1x1x256x256x" in text and "<3x1x1x256x256x" not in text


def test_what_cudnn_takes(gpu):
  def takes(dtype=jnp.bfloat16, t=1024, d=64, width=None):
    q, v = (jax.ShapeDtypeStruct((2, 4, t, n), dtype) for n in (d, width or d))
    return kernels.cudnn_takes(q, v)

  assert takes() and takes(jnp.float16, 8192, 128)
  assert not takes(jnp.float32)
  assert not takes(t=8200) and not takes(t=1023)
  assert not takes(d=136) and not takes(d=60) and not takes(width=128)
  for capability, right in (("8.0", True), ("12.0", True), ("7.5", False)):
    gpu.compute_capability = capability
    assert takes() == right
  gpu.compute_capability = "gfx942"
  assert not takes()


def test_the_mesh_names_the_platform():
  assert meshes.platform() == "cpu" and meshes.current() is None
  mesh = meshes.make_mesh(devices=jax.devices()[:1])
  with pytest.raises(ZeroDivisionError), meshes.on(mesh):
    assert meshes.current() is mesh and meshes.platform() == "cpu"
    1 / 0  # noqa: B018
  assert meshes.current() is None
