"""Adam whose two moments are kept in fewer bits than they are computed in.

Each is read into float32, updated, and written back rounded at random to one
of its two neighbours, so that what is kept is right on average: increments
too small for the format are not lost, as they are by rounding to the nearest
once the decay is slow. The noise depends on the step alone, so a resumed run
is the same run.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

KINDS = ("float32", "bfloat16", "int8")
# Codes of int8 are a logarithm: so many a factor of two.
_PER_OCTAVE = 8.0


class State(NamedTuple):
  """Of the transformation.

  Attributes:
    count: [] int32, steps taken.
    mu, nu: first and second moments, trees like the parameters of arrays or,
      for "int8", of `Codes`.
  """

  count: Any
  mu: Any
  nu: Any


class Codes(NamedTuple):
  """An array in eight bits an entry.

  Attributes:
    codes: int8 for what has signs, uint8 for what has none; 0 is 0.
    scale: float32, the greatest magnitude along the last axis, which it keeps
      with one entry. The code of the magnitude scale * 2^(-k / 8) is the
      greatest code less k.
  """

  codes: Any
  scale: Any


def scale_by_adam(
  b1: float, b2: float, eps: float, kind: str
) -> optax.GradientTransformation:
  """Adam's direction (Kingma and Ba 2015), its moments kept as `kind`.

  Args:
    b1, b2, eps: of Adam.
    kind: "bfloat16": 4 bytes a parameter instead of 8; "int8": 2, in
      logarithmic codes scaled by row (after Dettmers et al. 2022, arXiv
      2110.02861, whose codes are dynamic and whose blocks have 2,048 entries).

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
  """The float32 array of what `write` made."""
  if not isinstance(stored, Codes):
    return stored.astype(jnp.float32)
  codes, scale = stored
  top = jnp.iinfo(codes.dtype).max
  size = _magnitude(jnp.abs(codes.astype(jnp.float32)), top)
  if codes.dtype == jnp.int8:
    return jnp.sign(codes).astype(jnp.float32) * size * scale
  # Too small a second moment would make a step too long: never below the
  # least that a code can say.
  return jnp.maximum(size, _magnitude(1.0, top)) * scale


def write(x: jax.Array, key: jax.Array, kind: str, signed: bool) -> Any:
  """Rounds an array of float32 at random, right on average.

  Args:
    x: the array. key: PRNG key, or None for an array of zeros.
    kind: "bfloat16" or "int8". signed: whether x has negative entries.

  Returns:
    an array of bfloat16, or `Codes`.
  """
  if kind == "bfloat16":
    if key is None:
      return x.astype(jnp.bfloat16)
    # Its upper half is a bfloat16: the lower one is the odds to the next.
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
  """What a code stands for, of a scale of 1."""
  size = jnp.exp2((code - top) / _PER_OCTAVE)
  return jnp.where(code > 0, size, 0.0)
