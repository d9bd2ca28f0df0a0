"""Kernels against plain attention; those of other platforms interpreted."""

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
from r1jax.model.attention import Kept
from r1jax.sampling import cache, ragged
from r1jax.sampling import kernels as decode_kernels


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
  ("none", 1), ("products", 1), ("block", 2),
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


def gqa(width):
  """What grouped-query attention keeps."""
  return (
    Kept("k", 2, width, key=True, value=False, tokens_last=True),
    Kept("v", 2, width, key=False, value=True, tokens_last=False),
  )


# Values that are twice as wide as keys; and a latent array that is both, with
# a narrower one beside it, as MLA keeps them.
WIDE = (gqa(64)[0], gqa(128)[1])
LATENT = (
  Kept("c", 2, 128, key=True, value=True, tokens_last=False),
  Kept("r", 2, 64, key=True, value=False, tokens_last=True),
)


def a_ring(rng, chunks, slots, heads, group, kept=None, size=128):
  """A part, queries and a `cache.Ring`, whatever its number of heads."""

  def normal(*shape):
    return jnp.asarray(rng.normal(size=shape), jnp.float32)

  kept = tuple(k._replace(heads=heads) for k in kept or gqa(64))
  (width,) = (k.width for k in kept if k.value)
  part = attention.Partial(
    normal(slots, heads, group, width), jnp.exp(normal(slots, heads, group)),
    normal(slots, heads, group),
  )  # fmt: skip
  q = normal(slots, heads * group, 1, sum(k.width for k in kept if k.key))
  arrays = {k.name: normal(chunks, slots, *k.shape(size)) for k in kept}
  return part, q, cache.Ring(arrays, kept)


interpreted = jax.jit(functools.partial(ragged.join_kernel, interpret=True))


def close(got, want):
  for a, b in zip(got, want):
    np.testing.assert_allclose(a, b, atol=2e-5, rtol=2e-5)


@settings(max_examples=12, deadline=None)
@given(st.data())
def test_all_ways_to_read_a_ring_agree(data):
  """The kernel, the loop and chunks apart, the newest of them first.

  On a ring at any column, for slots of any age; of none where idle.
  """
  # Few shapes, as each is compiled; any ages and columns.
  chunks, slots, group, kept = data.draw(
    st.sampled_from(
      [(2, 1, 3, gqa(64)), (3, 3, 1, gqa(128)), (3, 3, 3, WIDE),
       (4, 5, 2, LATENT)]
    )
  )  # fmt: skip
  columns = chunks * 128
  ages = st.one_of(st.just(0), st.integers(0, columns - 1))
  age = data.draw(st.lists(ages, min_size=slots, max_size=slots))
  column = data.draw(st.integers(0, columns - 1))
  rng = np.random.default_rng(column)
  part, q, ring = a_ring(rng, chunks, slots, 2, group, kept)
  marks = jnp.asarray(age, jnp.int32), jnp.int32(column)
  got = interpreted(part, q, ring, *marks)
  close(got, jax.jit(ragged.join_loop)(part, q, ring, *marks))
  order = (column // 128 - np.arange(chunks)) % chunks
  apart = cache.Apart(tuple(ring.take(c * 128) for c in order))
  close(got, jax.jit(ragged.join_apart)(part, q, apart, *marks))
  # Against none: a softmax over what each slot wrote, one by one.
  k, v = one_by_one(ring)
  for s in range(slots):
    own = (column - np.arange(1, age[s] + 1)) % columns
    own = own[own // 128 != column // 128]
    z = q[s].reshape(2, group, -1) @ k[s][:, own].swapaxes(1, 2)
    z /= np.sqrt(k.shape[-1])
    w = np.exp(z - np.asarray(got.peak[s])[..., None])
    before = np.exp(part.peak[s] - got.peak[s])
    close(
      (got.total[s], got.out[s]),
      (part.total[s] * before + w.sum(-1),
       part.out[s] * before[..., None] + w @ v[s][:, own]),
    )  # fmt: skip


def one_by_one(ring):
  """Keys and values of a ring, [S, K, columns of the ring, .] each."""

  def columns(k):
    x = np.asarray(ring.arrays[k.name])
    x = x.swapaxes(3, 4) if k.tokens_last else x
    x = np.moveaxis(x, 0, 2)
    return x.reshape(*x.shape[:2], -1, k.width)

  keys = [columns(k) for k in ring.kept if k.key]
  (values,) = (columns(k) for k in ring.kept if k.value)
  return np.concatenate(keys, axis=-1), values


def test_the_ragged_kernel_skips_what_no_slot_needs():
  """One visit for each chunk that a slot needs; the rest is not even read."""
  age, column = jnp.array([0, 5, 6, 134, 600, 639]), jnp.int32(5)
  visits = ragged.work(age, column, 5, 128)
  needed = [0, 0, 1, 2, 4, 4]
  assert visits.count == sum(needed) == 11
  slot = np.repeat(np.arange(6), needed)
  np.testing.assert_array_equal(visits.slot[:11], slot)
  np.testing.assert_array_equal(visits.first, np.cumsum([0, *needed[:-1]]))
  part, q, ring = a_ring(np.random.default_rng(0), 5, 6, 1, 2)
  want = jax.jit(ragged.join_loop)(part, q, ring, age, column)
  arrays = ring.arrays
  for s, n in enumerate(needed):
    # Column 5 is in chunk 0, before which come 4, 3, 2 and 1.
    idle = np.arange(5)[: 5 - n]
    arrays = {k: x.at[idle, s].set(jnp.nan) for k, x in arrays.items()}
  ring = cache.Ring(arrays, ring.kept)
  close(interpreted(part, q, ring, age, column), want)


@pytest.mark.parametrize("kv", [2, 3])
def test_the_ragged_kernel_on_a_mesh(kv):
  """Slots by rows and key heads by the tensor axis, where it divides them."""
  mesh = meshes.make_mesh(data=2, fsdp=1, tensor=2, devices=jax.devices()[:4])
  arrays = a_ring(np.random.default_rng(0), 3, 4, kv, 2)
  marks = jnp.array([300, 0, 129, 20]), jnp.int32(20)
  for interpret in (False, True):
    with meshes.on(mesh):
      out = jax.jit(
        lambda *x: decode_kernels.join_ring(*x, interpret=interpret)
      )(*arrays, *marks)  # fmt: skip
    close(out, ragged.join_loop(*arrays, *marks))
    assert len(out.out.sharding.device_set) == 4


def test_what_the_ragged_kernel_takes():
  def takes(dtype=jnp.bfloat16, chunks=3, size=128, kept=None, q=None):
    kept = kept or gqa(128)
    shapes = {k.name: (chunks, 64, *k.shape(size)) for k in kept}
    ring = cache.Ring(
      {k: jax.ShapeDtypeStruct(x, dtype) for k, x in shapes.items()}, kept
    )
    width = sum(k.width for k in kept if k.key)
    return ragged.fits(
      jax.ShapeDtypeStruct((64, 4, 1, width), q or dtype), ring
    )

  assert takes() and takes(jnp.float32, size=256, kept=gqa(64))
  assert takes(kept=WIDE) and takes(kept=LATENT)
  assert not takes(size=64) and not takes(kept=gqa(32))
  assert not takes(q=jnp.float32) and not takes(jnp.float16)
  assert not takes(chunks=1026)  # too many visits for the scalar memory
  assert not takes(size=8192)  # one head of a chunk is too much
  int8 = {k.name: attention.Int8(None, None) for k in gqa(64)}
  assert not ragged.fits(None, cache.Ring(int8, gqa(64)))


def test_the_mesh_names_the_platform():
  assert meshes.platform() == "cpu" and meshes.current() is None
  mesh = meshes.make_mesh(devices=jax.devices()[:1])
  with pytest.raises(ZeroDivisionError), meshes.on(mesh):
    assert meshes.current() is mesh and meshes.platform() == "cpu"
    1 / 0  # noqa: B018
  assert meshes.current() is None
