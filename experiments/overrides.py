"""Keys of a config that the command line sets: --config.PHASE.KEY=VALUE.

Every key that a dataclass declares can be set, whether or not the config file
sets it. Its annotation says how the text is read.
"""

import ast
import collections.abc
import re
import types
import typing
from collections.abc import Mapping
from typing import Any, Literal

from experiments import plan
from r1jax import config as config_lib
from r1jax.errors import UserError, nearest

_FLAG = re.compile(r"--?(no)?config\.([^=]+)(?:=(.*))?", re.DOTALL)


def split(argv):
  """Takes the overrides out of a command line.

  Args:
    argv: list of arguments.

  Returns:
    the other arguments; dict from dotted keys to texts.
  """
  rest, found, argv = [], {}, list(argv)
  while argv:
    argument = argv.pop(0)
    match = _FLAG.fullmatch(argument)
    if not match:
      rest.append(argument)
      continue
    negated, key, text = match.groups()
    if negated:
      text = "false"
    elif text is None:
      # A flag without a value is a bool; its value may also follow it.
      text = argv.pop(0) if argv and argv[0][:1] != "-" else "true"
    found[key] = text
  return rest, found


def apply(values, overrides, kinds):
  """Sets keys of a config.

  Args:
    values: nested dict, the whole config; it is changed.
    overrides: dict from dotted keys to texts.
    kinds: kind of phase -> (dataclass of its keys, function).

  Raises:
    UserError: there is no such key, or the text is no value of its type.
  """
  # The kind of a group decides which other keys it has.
  order = ("kind", "phase")
  items = sorted(overrides.items(), key=lambda x: _last(x[0]) not in order)
  for key, text in items:
    _set(values, key, text, kinds)


def _set(values, key, text, kinds):
  path = key.split(".")
  _adopt(values, path)
  try:
    hint = hint_at(_whole(values, path, kinds), path[1:], values.get(path[0]))
  except KeyError as e:
    close = f'; did you mean "{e.args[0]}"?' if e.args[0] else ""
    raise UserError(
      f"--config.{key}={text}: the config has no such key{close}"
    ) from None
  try:
    value = parse(hint, text)
  except (ValueError, KeyError):
    raise UserError(
      f"--config.{key}={text} must be {config_lib.words(hint)}"
    ) from None
  inside = values
  for name in path[:-1]:
    if not isinstance(inside.get(name), dict):
      inside[name] = {}
    inside = inside[name]
  inside[path[-1]] = value


def _adopt(values, path):
  """Before a shared group of a phase is changed, the phase gets its own."""
  if len(path) > 2 and path[1] in plan.SHARED and path[0] in values:
    group = values[path[0]]
    if isinstance(group, dict) and isinstance(values.get(path[1]), dict):
      group.setdefault(path[1], dict(values[path[1]]))


def _whole(values, path, kinds):
  """The annotation of a top-level key."""
  name = path[0]
  own = config_lib.keys(plan.Experiment)
  if name in own:
    return own[name]
  classes = [cls for cls, _ in kinds.values()]
  if name in plan.SHARED:
    for cls in classes:
      if name in config_lib.keys(cls):
        return config_lib.keys(cls)[name]
  if plan.is_phase(values, name) and values[name]["phase"] in kinds:
    return kinds[values[name]["phase"]][0]
  if path[1:] == ["phase"]:
    return Mapping[str, Literal[tuple(kinds)]]
  groups = [k for k in values if plan.is_phase(values, k)]
  raise KeyError(nearest(name, (*own, *plan.SHARED, *groups)))


def hint_at(hint, path, value):
  """The annotation of a key inside a config.

  Args:
    hint: annotation of the whole.
    path: list of the keys that lead to it.
    value: what the config has there so far; its `kind` selects a class.

  Raises:
    KeyError: there is no such key; its argument is the nearest known, or None.
  """
  if not path:
    return hint
  key, *rest = path
  value = value if isinstance(value, Mapping) else {}
  if hint is Any:
    return Any
  for each in _arms(hint):
    if typing.get_origin(each) is collections.abc.Mapping:
      inner = typing.get_args(each)[1]
      return hint_at(inner, rest, value.get(key))
  groups = config_lib.groups_of(hint)
  kind = value.get("kind")
  groups = [c for c in groups if config_lib.kind_of(c) == kind] or groups
  for cls in groups:
    if key in config_lib.keys(cls):
      return hint_at(config_lib.keys(cls)[key], rest, value.get(key))
  close = [n for c in groups if (n := config_lib.nearest_key(c, key))]
  raise KeyError(close[0] if close else None)


def parse(hint, text):
  """A value from the text of a command line.

  Args:
    hint: the annotation.
    text: what follows the "=".

  Returns:
    a value of plain Python types, which `config.convert` checks.

  Raises:
    ValueError or KeyError: the text is no such value.
  """
  origin, inner = typing.get_origin(hint), typing.get_args(hint)
  if origin in (typing.Union, types.UnionType):
    return _parse_union(inner, text)
  if hint is str or origin is Literal:
    return text
  if hint in (int, float):
    return hint(text)
  if hint is bool:
    return {"true": True, "false": False}[text.lower()]
  if hint is types.NoneType:
    return {"none": None}[text.lower()]
  if origin is tuple:
    parts = [part.strip() for part in text.strip("()[] ").split(",")]
    return tuple(parse(inner[0], part.strip("'\"")) for part in parts if part)
  try:
    return ast.literal_eval(text)
  except (ValueError, SyntaxError):
    if hint is Any:
      return text
    raise ValueError(text) from None


def _parse_union(hints, text):
  # "none" may also be text or a list of one name, so None comes first; every
  # text is a str, so that comes last.
  order = {types.NoneType: 0, str: 2}
  for hint in sorted(hints, key=lambda h: order.get(h, 1)):
    try:
      return parse(hint, text)
    except (ValueError, KeyError):
      continue
  raise ValueError(text)


def _arms(hint):
  union = typing.get_origin(hint) in (typing.Union, types.UnionType)
  return typing.get_args(hint) if union else (hint,)


def _last(key):
  return key.rsplit(".", 1)[-1]
