"""Checks of a dataclass's fields, for its `__post_init__`.

The messages begin with the name of the field; `config.build` puts the rest of
the dotted key before it.
"""

from typing import Any, cast

from r1jax.config import convert, keys
from r1jax.errors import UserError


def types(config: Any) -> None:
  """Raises `UserError` unless every field has a value of its type.

  `config.build` checks this before it makes a dataclass; a program may make
  one without it.
  """
  known(config, *keys(cast(Any, type(config))))


def at_least(config: Any, least: float, *names: str) -> None:
  """Raises `UserError` unless the named fields are `least` or more.

  A field that is None is left out.
  """
  for name in names:
    value = getattr(config, name)
    if value is not None and not value >= least:
      raise UserError(f"{name}={value} must be at least {least}")


def above(config: Any, bound: float, *names: str) -> None:
  """Raises `UserError` unless the named fields are above `bound`.

  A field that is None is left out.
  """
  for name in names:
    value = getattr(config, name)
    if value is not None and not value > bound:
      raise UserError(f"{name}={value} must be above {bound}")


def below(config: Any, bound: float, *names: str) -> None:
  """Raises `UserError` unless the named fields are below `bound`."""
  for name in names:
    value = getattr(config, name)
    if not value < bound:
      raise UserError(f"{name}={value} must be below {bound}")


def known(config: Any, *names: str) -> None:
  """Raises `UserError` unless the named fields have a value of their type.

  Args:
    config: a dataclass, which a program may have made without `build`.
    names: of fields, such as those whose annotation is a Literal.
  """
  for name in names:
    convert(keys(cast(Any, type(config)))[name], getattr(config, name), name)


def shares(config: Any, *names: str) -> None:
  """Raises `UserError` unless the named fields are between 0 and 1."""
  for name in names:
    value = getattr(config, name)
    if not 0 <= value <= 1:
      raise UserError(f"{name}={value} must be between 0 and 1")
