"""Reading the decode ring: the TPU kernel, interpreted, and plain XLA."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from r1jax import meshes
from r1jax.model import attention
from r1jax.model.attention import Kept
from r1jax.sampling import cache, kernels, ragged


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
        lambda *x: kernels.join_ring(*x, interpret=interpret)
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
