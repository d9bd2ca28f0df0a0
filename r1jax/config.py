"""Typed configs: a frozen dataclass declares the keys of a config.

A field is a key, its annotation the type of the value, its default the value
of a key that the config does not set. `__post_init__` checks ranges and what
depends on several keys; r1jax/checks.py makes such checks short.

Known annotations: int, float, str, bool, Any, Literal, X | None, unions of
these, tuple[X, ...], tuple[X, Y], Mapping[str, X], a dataclass, and a union of
dataclasses. In such a union each class has a field `kind`, a Literal, and the
key `kind` of the config selects the class.
"""

import collections.abc
import dataclasses
import functools
import json
import math
import numbers
import re
import types
import typing
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple, TypeVar, cast

from r1jax.errors import UserError, nearest

_WORDS: dict[Any, str] = {
  int: "a whole number",
  float: "a finite number",
  str: "text",
  bool: "True or False",
  types.NoneType: "None",
  Any: "any value",
}


T = TypeVar("T")


class Written(NamedTuple):
  """A value that the config wrote in another place than where it is used.

  Attributes:
    where: the dotted key in the config.
    value: what was written there.
  """

  where: str
  value: Any


def filled(written: Any = None, default: str | None = None) -> Any:
  """A field that the launcher fills in.

  Args:
    written: annotation of the key of that name in a config; None if a config
      has no such key.
    default: what the launcher fills in where a config has no such key, in
      words.
  """
  return dataclasses.field(metadata={"written": written, "default": default})


@functools.cache
def keys(cls: Any) -> dict[str, Any]:
  """The keys that a config may set.

  Args:
    cls: a dataclass.

  Returns:
    dict from each key to its annotation.
  """
  hints = typing.get_type_hints(cls)
  found = {
    f.name: f.metadata.get("written", hints[f.name])
    for f in dataclasses.fields(cls)
  }
  return {name: hint for name, hint in found.items() if hint is not None}


def build(
  cls: type[T],
  values: Mapping[str, Any],
  where: str = "",
  given: Mapping[str, Any] | None = None,
) -> T:
  """An instance of a dataclass from the keys that a config sets.

  Args:
    cls: a dataclass.
    values: mapping from keys to values of plain Python types.
    where: the dotted key of `values` in the config; it starts every message.
    given: values of the fields that `filled` declares.

  Returns:
    `cls`.

  Raises:
    UserError: a key is unknown or missing, or a value is of a wrong type or
      out of range. The message names the dotted key.
  """
  if not isinstance(values, Mapping):
    raise UserError(f"{where}={shown(values)} must be a group of keys")
  given = given or {}
  hints = keys(cast(Any, cls))
  for key in values:
    if key not in hints or key in given:
      raise _unknown(cls, key, where)
  for field in dataclasses.fields(cast(Any, cls)):
    if _required(field) and field.name not in (*values, *given):
      raise UserError(f"{_join(where, field.name)} is missing; set this key")
  arguments = {
    key: convert(hints[key], value, _join(where, key))
    for key, value in values.items()
  }
  try:
    return cls(**arguments, **given)
  except UserError as e:
    raise UserError(placed(str(e), cls, where)) from None


def convert(hint: Any, value: Any, where: str) -> Any:
  """A value as its annotation wants it.

  Args:
    hint: the annotation.
    value: of plain Python types, or `Written`.
    where: the dotted key.

  Raises:
    UserError: the value does not suit; the message names the key.
  """
  if isinstance(value, Written):
    where, value = value
  origin = typing.get_origin(hint)
  if hint is Any or (dataclasses.is_dataclass(hint) and type(value) is hint):
    return value
  if origin in (typing.Union, types.UnionType):
    return _convert_union(typing.get_args(hint), value, where)
  if dataclasses.is_dataclass(hint):
    return build(cast(Any, hint), value, where)
  if origin is Literal:
    return _convert_choice(typing.get_args(hint), value, where)
  if origin is tuple and isinstance(value, list | tuple):
    return _convert_tuple(hint, value, where)
  if _is_mapping(hint) and isinstance(value, Mapping):
    inner = typing.get_args(hint)[1]
    return {
      _text(k, where): convert(inner, v, f"{where}.{k}")
      for k, v in value.items()
    }
  if not _fits(hint, value):
    raise UserError(f"{where}={shown(value)} must be {words(hint)}")
  return hint(value)


def kind_of(cls: Any) -> str | None:
  """What the key `kind` must be to select a class, or None."""
  hint = keys(cls).get("kind")
  return (
    typing.get_args(hint)[0] if typing.get_origin(hint) is Literal else None
  )


def words(hint: Any) -> str:
  """An annotation in plain words, such as "a whole number"."""
  origin, inner = typing.get_origin(hint), typing.get_args(hint)
  if origin in (typing.Union, types.UnionType):
    return " or ".join(dict.fromkeys(words(h) for h in inner))
  if origin is Literal:
    return " or ".join(map(shown, inner))
  if origin is tuple:
    plain = [h for h in inner if h is not Ellipsis]
    if len(plain) == len(inner):
      return f"a pair of {_plural(plain[0])}"
    return f"a list of {_plural(plain[0])}"
  if _is_mapping(hint):
    return f"a dict of {_plural(inner[1])}"
  if dataclasses.is_dataclass(hint):
    return "a group of keys"
  return _WORDS[hint]


def shown(value: Any) -> str:
  """A value as a message quotes it."""
  text = json.dumps(value) if isinstance(value, str) else repr(value)
  return text if len(text) <= 60 else text[:57] + "..."


def placed(message: str, cls: Any, where: str) -> str:
  """The message of a check, with the dotted key before it.

  Args:
    message: that begins with a key of `cls`, as a rule.
    cls: the dataclass that was checked.
    where: its dotted key in the config.
  """
  # Before the key the class may have its own name for `where`.
  for part in (message, message.partition(": ")[2], message.partition(".")[2]):
    key = re.match(r"\w+(?=[=.: \[])", part)
    if key and key[0] in keys(cls):
      return _join(where, part)
  return f"{where}: {message}" if where else message


def nearest_key(cls: Any, key: str) -> str | None:
  """The key that was probably meant, or None.

  Args:
    cls: a dataclass.
    key: a misspelt key, or one that belongs into a group of `cls`.
  """
  inside = {
    name: f"{group}.{name}"
    for group, hint in keys(cls).items()
    for c in groups_of(hint)
    for name in keys(c)
  }
  if key in inside:
    return inside[key]
  return nearest(key, keys(cls)) or inside.get(nearest(key, inside) or "")


def groups_of(hint: Any) -> list[Any]:
  """The dataclasses that an annotation allows."""
  union = typing.get_origin(hint) in (typing.Union, types.UnionType)
  hints = typing.get_args(hint) if union else (hint,)
  return [h for h in hints if dataclasses.is_dataclass(h)]


def _fits(hint, value):
  if hint is bool or isinstance(value, bool):
    return hint is bool and isinstance(value, bool)
  if hint is int:
    return isinstance(value, numbers.Integral)
  if hint is float:
    return isinstance(value, numbers.Real) and math.isfinite(value)
  return hint is str and isinstance(value, str)


def _convert_union(hints, value, where):
  if value is None and types.NoneType in hints:
    return None
  groups = [h for h in hints if dataclasses.is_dataclass(h)]
  if type(value) in groups:
    return value
  if isinstance(value, Mapping):
    if len(groups) > 1:
      return build(_selected(groups, value, where), value, where)
    groups = groups or [h for h in hints if _is_mapping(h)]
    if groups:
      return convert(groups[0], value, where)
  hints = [h for h in hints if h is not types.NoneType]
  for hint in hints:
    try:
      return convert(hint, value, where)
    except UserError as e:
      error = e
  if len(hints) == 1:
    raise error
  wanted = " or ".join(dict.fromkeys(map(words, hints)))
  raise UserError(f"{where}={shown(value)} must be {wanted}")


def _selected(classes, value, where):
  """The class that the key `kind` selects."""
  known = [kind_of(c) for c in classes]
  if "kind" not in value:
    raise UserError(f"{where}.kind is missing; known: {', '.join(known)}")
  kind = _convert_choice(known, value["kind"], f"{where}.kind")
  return classes[known.index(kind)]


def _convert_choice(choices, value, where):
  if any(value == c and type(value) is type(c) for c in choices):
    return value
  close = nearest(value, [c for c in choices if isinstance(c, str)])
  hint = f'did you mean "{close}"? ' if close else ""
  raise UserError(
    f"{where}={shown(value)} is unknown; {hint}known:"
    f" {', '.join(map(str, choices))}"
  )


def _convert_tuple(hint, value, where):
  inner = typing.get_args(hint)
  if Ellipsis in inner:
    inner = inner[:1] * len(value)
  if len(inner) != len(value):
    raise UserError(f"{where}={shown(value)} must be {words(hint)}")
  return tuple(
    convert(h, v, f"{where}[{i}]") for i, (h, v) in enumerate(zip(inner, value))
  )


def _is_mapping(hint):
  return typing.get_origin(hint) is collections.abc.Mapping


def _required(field):
  return (
    field.default is dataclasses.MISSING
    and field.default_factory is dataclasses.MISSING
  )


def _unknown(cls, key, where):
  close = nearest_key(cls, key)
  hint = f'did you mean "{close}"?' if close else ""
  hint = hint or f"known: {', '.join(sorted(keys(cls)))}"
  return UserError(f"{_join(where, key)} is no key; {hint}")


def _join(where, key):
  return f"{where}.{key}" if where else str(key)


def _text(key, where):
  if not isinstance(key, str):
    raise UserError(f"{where}: the key {shown(key)} must be text")
  return key


def _plural(hint):
  names = {
    int: "whole numbers", float: "finite numbers", str: "names",
    Any: "any values",
  }  # fmt: skip
  return names.get(hint) or f"values, each {words(hint)}"
