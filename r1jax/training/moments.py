"""Adam with moments that are stored in fewer bits than float32.

A moment is read into float32, updated, and rounded at random to one of its two
neighbours in the format. So the stored value is right on average. Rounding to
the nearest would lose increments that are too small for the format, as they are
when the decay is slow. The noise depends only on the step, so a resumed run is
the same run.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

KINDS = ("float32", "bfloat16", "int8")
# Codes of int8 are logarithms; this many codes are a factor of two.
_PER_OCTAVE = 8.0


class State(NamedTuple):
  """The state of the optax transformation.

  Attributes:
    count: [] int32, steps taken.
    mu: first moments, a tree like the parameters; its leaves are arrays, or
      `Codes` for "int8".
    nu: second moments, likewise.
  """

  count: Any
  mu: Any
  nu: Any


class Codes(NamedTuple):
  """An array with eight bits per entry.

  Attributes:
    codes: int8 for signed values, uint8 for others; code 0 is the value 0. The
      magnitude scale * 2^(-k / 8) has the greatest code minus k.
    scale: float32, the greatest magnitude along the last axis; that axis has
      size 1.
  """

  codes: Any
  scale: Any


def scale_by_adam(
  b1: float, b2: float, eps: float, kind: str
) -> optax.GradientTransformation:
  """Adam's direction (Kingma and Ba 2015), its moments kept as `kind`.

  Args:
    b1: decay of the first moment.
    b2: decay of the second moment.
    eps: added to the root of the second moment.
    kind: "bfloat16" takes 4 bytes a parameter instead of 8. "int8" takes 2, in
      logarithmic codes with one scale for each row (after Dettmers et al. 2022,
      arXiv 2110.02861; they use dynamic codes and a scale for each 2,048
      entries).

  Returns:
    an optax transformation.
  """

  def init(params):
    zeros = lambda signed: jax.tree.map(  # noqa: E731
      lambda p: write(jnp.zeros(p.shape, jnp.float32), None, kind, signed),
      params,
    )
    return State(jnp.int32(0), zeros(True), zeros(False))

  def update(grads, state, params=None):
    count = state.count + 1
    leaves, structure = jax.tree.flatten(grads)
    mus = structure.flatten_up_to(state.mu)
    nus = structure.flatten_up_to(state.nu)
    key = jax.random.fold_in(jax.random.key(0), count)
    updates, new_mus, new_nus = [], [], []
    for i, (g, mu, nu) in enumerate(zip(leaves, mus, nus)):
      g = g.astype(jnp.float32)
      mu = b1 * read(mu) + (1 - b1) * g
      nu = b2 * read(nu) + (1 - b2) * g * g
      mean, square = mu / (1 - b1**count), nu / (1 - b2**count)
      updates.append(mean / (jnp.sqrt(square) + eps))
      first, second = jax.random.split(jax.random.fold_in(key, i))
      new_mus.append(write(mu, first, kind, signed=True))
      new_nus.append(write(nu, second, kind, signed=False))
    unflatten = structure.unflatten
    state = State(count, unflatten(new_mus), unflatten(new_nus))
    return unflatten(updates), state

  return optax.GradientTransformation(init, update)


def read(stored: Any) -> jax.Array:
  """Reads what `write` stored, as a float32 array."""
  if not isinstance(stored, Codes):
    return stored.astype(jnp.float32)
  codes, scale = stored
  top = jnp.iinfo(codes.dtype).max
  size = _magnitude(jnp.abs(codes.astype(jnp.float32)), top)
  if codes.dtype == jnp.int8:
    return jnp.sign(codes).astype(jnp.float32) * size * scale
  # A second moment that is too small makes the step too long. So it is at least
  # the smallest value that a code can represent.
  return jnp.maximum(size, _magnitude(1.0, top)) * scale


def write(x: jax.Array, key: jax.Array, kind: str, signed: bool) -> Any:
  """Stores a float32 array; the random rounding is right on average.

  Args:
    x: the array. key: PRNG key, or None for an array of zeros.
    kind: "bfloat16" or "int8". signed: whether x has negative entries.

  Returns:
    an array of bfloat16, or `Codes`.
  """
  if kind == "bfloat16":
    if key is None:
      return x.astype(jnp.bfloat16)
    # The upper half of a float32 is a bfloat16; the lower half is the
    # probability of rounding up.
    noise = jax.random.bits(key, x.shape, jnp.uint16).astype(jnp.uint32)
    bits = jax.lax.bitcast_convert_type(x, jnp.uint32) + noise
    kept = jax.lax.bitcast_convert_type(bits >> 16 << 16, jnp.float32)
    return kept.astype(jnp.bfloat16)
  dtype = jnp.int8 if signed else jnp.uint8
  scale = jnp.abs(x).max(axis=-1, keepdims=True, initial=0.0)
  if key is None:
    return Codes(jnp.zeros(x.shape, dtype), scale)
  top = jnp.iinfo(dtype).max
  size = jnp.abs(x) / jnp.where(scale > 0, scale, 1.0)
  below = jnp.floor(top + _PER_OCTAVE * jnp.log2(jnp.maximum(size, 1e-30)))
  below = jnp.clip(below, 0, top)
  low, high = _magnitude(below, top), _magnitude(below + 1, top)
  up = jax.random.uniform(key, x.shape) * (high - low) < size - low
  codes = jnp.minimum(below + up, top)
  return Codes((jnp.sign(x) * codes).astype(dtype), scale)


def _magnitude(code, top):
  """The magnitude that a code represents if the scale is 1."""
  size = jnp.exp2((code - top) / _PER_OCTAVE)
  return jnp.where(code > 0, size, 0.0)
