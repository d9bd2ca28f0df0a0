"""Checks of the arrays that a caller gives to an equation.

A wrong array is one line that names the argument and the shape it should have,
whether or not the caller compiles.
"""

from typing import Any

from r1jax.errors import UserError


def tokens(**arrays: Any) -> None:
  """Raises `UserError` unless all arrays have one shape, as a rule [B, T].

  Args:
    **arrays: by the names of the arguments, a value for each token.
  """
  axes = "[B, T], a value for each token"
  shapes = {name: _shape(name, axes, x) for name, x in arrays.items()}
  (first, wanted), *others = shapes.items()
  for name, shape in others:
    if shape != wanted:
      way = ""
      if name == "advantages":
        way = "; of [N, G], jnp.broadcast_to(a.reshape(-1, 1), [C, T]) makes it"
      raise UserError(
        f"{name} has the shape {shape}, but {first} has {wanted}; both must be"
        f" {axes}{way}"
      )


def matrix(axes: str, **arrays: Any) -> None:
  """Raises `UserError` unless every array has two axes.

  Args:
    axes: the shape, in words, such as "[N, G]".
    **arrays: by the names of the arguments.
  """
  for name, x in arrays.items():
    shape = _shape(name, axes, x)
    if len(shape) != 2:
      raise UserError(f"{name} has the shape {shape}; it must be {axes}")


def given(axes: str, why: str, **arrays: Any) -> None:
  """Raises `UserError` if an array is missing.

  Args:
    axes: its shape, in words.
    why: what needs it, the beginning of a sentence such as "a KL term".
    **arrays: by the names of the arguments; None is missing.
  """
  for name, x in arrays.items():
    if x is None:
      raise UserError(f"{name} is missing: {why} needs it, {axes}")


def known(values: Any, **named: Any) -> None:
  """Raises `UserError` unless each named value is one of `values`."""
  for name, x in named.items():
    if x not in values:
      raise UserError(f"{name}={x!r} is unknown; known: {', '.join(values)}")


def _shape(name, axes, x):
  """The shape of an array or a number."""
  if x is None:
    raise UserError(f"{name} is missing; it must be an array {axes}")
  if isinstance(x, bool | int | float):
    return ()
  if not hasattr(x, "shape"):
    raise UserError(
      f"{name} must be an array {axes}, not a {type(x).__name__}; jnp.asarray"
      " makes one"
    )
  return tuple(x.shape)
