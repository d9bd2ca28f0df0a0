"""Python in two boxes: assertions in one, the program they test in the other.

The box of the assertions sends calls through a pipe; the program's box answers
with values. Only values of Python's own types and the numbers of objects pass.
So a program sees what it is called with, but neither the assertions nor what
they expect, and its objects cannot say that they are equal to anything. See
`boxed` for how this file is used.
"""

from __future__ import annotations

import builtins
import importlib
import os
import sys
from collections import deque

from r1jax.verifiers.code.boxed import load, prepare
from r1jax.verifiers.code.boxed_call import (
  MODULES,
  function_of,
  load_functions,
  plain,
  send,
  used_names,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
  from typing import Any

_SCALARS = (type(None), bool, int, float, complex, str, bytes)
# Tag -> the type whose items are sent. The first that fits is used.
_ITEMS = {
  "list": list,
  "tuple": tuple,
  "set": set,
  "frozenset": frozenset,
  "deque": deque,
}
_VIEWS = (range, type({}.keys()), type({}.values()), type({}.items()))
# Iterators are sent as the list of their items, of which there may be so many.
_MOST_ITEMS = 100_000


def pack(value: Any, keep: Any) -> Any:
  """A value as tuples of tags, numbers and texts.

  Args:
    value: anything.
    keep: gives the number of an object that is not sent.

  Returns:
    tuple, whose `repr` is a literal.
  """
  value = plain(value)
  kind = type(value)
  if kind is float:
    return ("float", repr(value))
  if kind in _SCALARS:
    return ("is", value)
  if isinstance(value, dict):
    pairs = dict.items(value)
    return ("dict", [(pack(k, keep), pack(v, keep)) for k, v in pairs])
  for tag, container in _ITEMS.items():
    if isinstance(value, container):
      return (tag, [pack(item, keep) for item in container.__iter__(value)])
  own = kind.__module__ in ("builtins", "itertools")
  if kind in _VIEWS or (own and hasattr(kind, "__next__")):
    items = []
    for item in value:
      if len(items) == _MOST_ITEMS:
        raise ValueError("an iterator has too many items")
      items.append(pack(item, keep))
    return ("iterator", items)
  return keep(value)


def unpack(value: Any, find: Any) -> Any:
  """The value that `pack` packed.

  Args:
    value: tuple of a tag and more.
    find: gives the object for a tag that is none of those of `pack`.
  """
  tag, content = value
  if tag == "is":
    return content
  if tag == "float":
    return float(content)
  if tag == "dict":
    return {unpack(k, find): unpack(v, find) for k, v in content}
  if tag == "iterator":
    return iter([unpack(item, find) for item in content])
  if tag in _ITEMS:
    return _ITEMS[tag](unpack(item, find) for item in content)
  return find(tag, content)


def serve() -> None:
  """Runs the program, then answers one call a line until there are no more."""
  requests, channel = os.fdopen(os.dup(0)), os.dup(1)
  os.dup2(2, 1)
  os.dup2(os.open("/dev/null", os.O_RDONLY), 0)
  prepare()
  scope, known = load_functions("program")
  objects: list[Any] = []

  def keep(value):
    objects.append(value)
    return ("object", len(objects) - 1)

  def find(tag, content):
    if tag == "object":
      return objects[content]
    return function_of(scope, known, content)

  for line in requests:
    # It comes from the box of the assertions.
    action, target, *rest = eval(line)
    try:
      target = unpack(target, find)
      if action == "call":
        args, pairs = (unpack(some, find) for some in rest)
        value = target(*args, **pairs)
      elif action == "get":
        value = getattr(target, rest[0])
      else:
        setattr(target, rest[0], unpack(rest[1], find))
        value = None
      answer = ("value", pack(value, keep))
    except Exception as error:
      answer = ("error", (type(error).__name__, str(error)[:200]))
    send(channel, (ascii(answer) + "\n").encode())


class _Remote:
  """An object of the program, which only the program's box has."""

  def __init__(self, place, tag, content):
    self.__dict__["_place"] = place
    self.__dict__["_address"] = (tag, content)

  def __call__(self, *args, **pairs):
    place = self._place
    sent = [pack(some, place.keep) for some in (args, pairs)]
    return place.ask("call", self._address, *sent)

  def __getattr__(self, name):
    if name.startswith("__"):
      raise AttributeError(name)
    return self._place.ask("get", self._address, name)

  def __setattr__(self, name, value):
    place = self._place
    place.ask("set", self._address, name, pack(value, place.keep))


class _Place:
  """The pipe to the program's box."""

  def __init__(self):
    self._answers, self._channel = os.fdopen(os.dup(0)), os.dup(1)
    os.dup2(2, 1)
    os.dup2(os.open("/dev/null", os.O_RDONLY), 0)
    self.asked = 0

  def keep(self, value):
    """What stands for an object of the program, as `pack` needs it."""
    if isinstance(value, _Remote):
      return value._address
    raise TypeError(f"{type(value).__name__} cannot be sent to the program")

  def find(self, tag, content):
    """An object of the program, as `unpack` needs it."""
    return _Remote(self, tag, content)

  def ask(self, *request):
    """The answer of the program's box; without one, this box ends at once."""
    from ast import literal_eval

    self.asked += 1
    try:
      send(self._channel, (ascii(request) + "\n").encode())
      line = self._answers.readline()
      kind, content = literal_eval(line)
      if kind == "value":
        return unpack(content, self.find)
      name, message = content
    except BaseException:
      # Assertions that catch every exception must not go on.
      os._exit(3)
    error = getattr(builtins, str(name), None)
    if not isinstance(error, type) or not issubclass(error, Exception):
      error = RuntimeError
    if issubclass(error, (StopIteration, StopAsyncIteration)):
      error = RuntimeError  # it would end a loop of the assertions
    try:
      error = error(message)
    except TypeError:
      error = RuntimeError(message)
    raise error


def ask() -> None:
  """Runs the assertions; ends with the status 0 if all of them hold.

  The file of this box is the setup and the assertions. The second argument of
  the command is the name of a function that the setup does not replace, or "".
  """
  place = _Place()
  own = sys.argv[2]
  module, parts = load("tests")
  scope = module.__dict__
  for name in {name for code in parts for name in used_names(code)}:
    if name in MODULES:
      scope[name] = importlib.import_module(name)
    elif not hasattr(builtins, name):
      scope.setdefault(name, _Remote(place, "name", name))
  *setup, tests = parts
  for code in setup:
    exec(code, scope)
  if own:
    scope[own] = _Remote(place, "name", own)
  exec(tests, scope)
  if not place.asked:
    raise AssertionError("the assertions call no function of the program")
