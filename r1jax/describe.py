"""The keys of a config, from the dataclasses that declare them."""

import ast
import collections.abc
import dataclasses
import functools
import inspect
import re
import textwrap
import typing
from collections.abc import Iterable
from typing import Any, NamedTuple

from r1jax import config as config_lib


class Key(NamedTuple):
  """A key of a config.

  Attributes:
    name: dotted, from the group that is described.
    kind: of the tasks or tokenizers that have this key; "" if all do.
    type: in plain words.
    default: as Python writes it; None if the key must be set.
    comment: what it means.
  """

  name: str
  kind: str
  type: str
  default: str | None
  comment: str


def keys(cls: Any, prefix: str = "", kind: str = "") -> list[Key]:
  """The keys of a dataclass and of the groups inside it.

  Args:
    cls: a dataclass.
    prefix: of the names.
    kind: of `Key`.

  Returns:
    list of `Key`, in the order of the dataclass.
  """
  said, found = comments(cls), []
  fields = {f.name: f for f in dataclasses.fields(cls)}
  for name, hint in config_lib.keys(cls).items():
    if kind and name == "kind":
      continue
    at = prefix + name
    found.append(
      Key(
        at,
        kind,
        config_lib.words(hint),
        _default(fields[name]),
        _capital(said.get(name, "")),
      )  # fmt: skip
    )
    if typing.get_origin(hint) is collections.abc.Mapping:
      at, hint = f"{at}.NAME", typing.get_args(hint)[1]
    found += _inside(at, config_lib.groups_of(hint), kind)
  return found


def _inside(name, groups, kind):
  """The keys of a group, which may be of several kinds."""
  if len(groups) == 1:
    return keys(groups[0], f"{name}.", kind)
  kinds = {config_lib.kind_of(group): group for group in groups}
  if not kinds:
    return []
  said = [f"{k}: {g.__doc__.splitlines()[0]}" for k, g in kinds.items()]
  types = " or ".join(map(config_lib.shown, kinds))
  found = [Key(f"{name}.kind", "", types, None, " ".join(said))]
  for k, group in kinds.items():
    found += keys(group, f"{name}.", k)
  return found


@functools.cache
def comments(cls: Any) -> dict[str, str]:
  """What the source of a dataclass says of its fields.

  Args:
    cls: a dataclass. A field's comment is in the lines above it, or in the
      section "Attributes:" of the docstring.

  Returns:
    dict from the name of a field to its comment.
  """
  found: dict[str, str] = {}
  for base in reversed(cls.__mro__):
    if dataclasses.is_dataclass(base):
      found |= _in_docstring(base) | _above(base)
  return found


def text(title: str, found: Iterable[Key]) -> str:
  """Keys as plain text of 80 columns.

  Args:
    title: what has these keys.
    found: list of `Key`.
  """
  lines = [f"Keys of {title}:"]
  for key in found:
    lines += ["", f"  {_signature(key)}"]
    lines += textwrap.wrap(
      key.comment, 80, initial_indent="      ", subsequent_indent="      "
    )
  return "\n".join(lines)


def _capital(text):
  return text[:1].upper() + text[1:]


def _signature(key):
  kind = f" (kind {key.kind})" if key.kind else ""
  default = " [required]" if key.default is None else f" = {key.default}"
  return f"{key.name}{kind}: {key.type}{default}"


def _default(field):
  if "default" in field.metadata:
    return field.metadata["default"]
  if field.default_factory is not dataclasses.MISSING:
    return repr(field.default_factory())
  if dataclasses.is_dataclass(field.default):
    return "{}"
  if field.default is dataclasses.MISSING:
    return None
  return repr(field.default)


def _above(cls):
  """Comments in the lines above the fields."""
  lines = textwrap.dedent(inspect.getsource(cls)).splitlines()
  (tree,) = ast.parse("\n".join(lines)).body
  found = {}
  for node in tree.body:
    if isinstance(node, ast.AnnAssign):
      first = at = node.lineno - 1
      while at and lines[at - 1].lstrip().startswith("#"):
        at -= 1
      said = [
        line.strip().removeprefix("#").strip() for line in lines[at:first]
      ]
      if said:
        found[node.target.id] = " ".join(said)
  return found


def _in_docstring(cls):
  """The entries of the section "Attributes:" of a docstring."""
  section = inspect.cleandoc(cls.__doc__ or "").partition("Attributes:\n")[2]
  # An entry starts at the section's own indent, what follows it is deeper.
  section = textwrap.dedent(section.split("\n\n")[0])
  found = {}
  for entry in re.split(r"\n(?! )", section):
    names, colon, said = entry.partition(": ")
    if colon:
      found |= {n.strip(): " ".join(said.split()) for n in names.split(",")}
  return found
