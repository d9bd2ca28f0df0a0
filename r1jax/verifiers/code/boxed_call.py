"""Python in the box: calls a function of a program; see `boxed`."""

from __future__ import annotations

import builtins
import importlib
import posix
import sys

from r1jax.verifiers.code.boxed import load, prepare

TYPE_CHECKING = False
if TYPE_CHECKING:
  from collections.abc import Callable, Iterator
  from types import CodeType
  from typing import Any

# Module -> its names that programs for online judges use without an import,
# since those judges import them. "" stands for the modules themselves.
_GIVEN = {
  "typing": "Any Callable DefaultDict Deque Dict FrozenSet Generator Iterable"
  " Iterator List Mapping NamedTuple Optional Sequence Set Tuple Type TypeVar"
  " Union",
  "collections": "ChainMap Counter OrderedDict defaultdict deque namedtuple",
  "heapq": "heapify heappop heappush heappushpop heapreplace merge nlargest"
  " nsmallest",
  "bisect": "bisect bisect_left bisect_right insort insort_left insort_right",
  "math": "acos asin atan atan2 ceil comb cos dist exp fabs factorial floor"
  " fmod gcd hypot inf isclose isqrt lcm log log10 log2 nan perm pi prod sin"
  " sqrt tan trunc",
  "itertools": "accumulate chain combinations combinations_with_replacement"
  " count cycle dropwhile groupby islice pairwise permutations product repeat"
  " starmap takewhile zip_longest",
  "functools": "cache cmp_to_key lru_cache partial reduce wraps",
  "operator": "add itemgetter mul sub xor",
  "copy": "copy deepcopy",
  "string": "ascii_letters ascii_lowercase ascii_uppercase digits punctuation",
  "random": "choice randint shuffle",
  "datetime": "timedelta",
  "": "bisect collections copy datetime decimal fractions functools heapq"
  " itertools json math operator os random re statistics string sys time",
}
# Where a module and its function share a name, the module is meant.
_WHERE = {
  name: module for module, names in _GIVEN.items() for name in names.split()
}
MODULES = tuple(_GIVEN[""].split())


def used_names(code: CodeType) -> Iterator[str]:
  """The names of variables and attributes that occur in code."""
  yield from code.co_names
  for constant in code.co_consts:
    if isinstance(constant, type(code)):
      yield from used_names(constant)


def _bound_names(code: CodeType) -> Iterator[str]:
  """The names that a module's code imports, defines or assigns."""
  from opcode import EXTENDED_ARG, opmap

  high = 0
  for kind, low in zip(code.co_code[::2], code.co_code[1::2]):
    at = high | low
    high = at << 8 if kind == EXTENDED_ARG else 0
    if kind == opmap["STORE_NAME"]:
      yield code.co_names[at]


def given_names(parts: list[CodeType]) -> dict[str, Any]:
  """What a program may use without an import: name -> object.

  Args:
    parts: the program's code; only the names that occur in it are looked up.
  """
  found = {}
  used = {name for code in parts for name in used_names(code)}
  for name in used - {name for code in parts for name in _bound_names(code)}:
    if hasattr(builtins, name) or name not in _WHERE:
      continue
    if not _WHERE[name]:
      found[name] = importlib.import_module(name)
    else:
      module = importlib.import_module(_WHERE[name])
      found[name] = getattr(module, name)
  return found


def load_functions(name: str) -> tuple[dict[str, Any], dict[str, Any]]:
  """Runs the program as a module.

  Args:
    name: of the module.

  Returns:
    the names of the module; those of them that the program did not make.
  """
  module, parts = load(name)
  scope = module.__dict__
  known = given_names(parts)
  scope.update(known)
  for code in parts:
    exec(code, scope)
  return scope, {k: v for k, v in known.items() if scope.get(k) is v}


def function_of(
  scope: dict[str, Any], known: dict[str, Any], name: str
) -> Callable[..., Any]:
  """The program's function, or the method of its class Solution."""
  if name in scope and name not in known:
    return scope[name]
  if "Solution" in scope:
    return getattr(scope["Solution"](), name)
  raise NameError(f"the program has no function {name}")


def plain(value: Any) -> Any:
  """A number or array of numpy as Python's own; all else as it is."""
  if type(value).__module__ == "numpy" and hasattr(value, "tolist"):
    return value.tolist()
  return value


def text(value: Any) -> str:
  """A value as JSON; written by hand, since importing json takes longer.

  Numbers and texts must be of exactly Python's own types: others may be equal
  to anything.
  """
  value = plain(value)
  kind = type(value)
  if value is None or kind is bool:
    return {None: "null", True: "true", False: "false"}[value]
  if kind is int or kind is float:
    return repr(value)
  if kind is str:
    units = value.encode("utf-16-be", "surrogatepass").hex()
    units = [units[i : i + 4] for i in range(0, len(units), 4)]
    return '"' + "".join("\\u" + unit for unit in units) + '"'
  if isinstance(value, (list, tuple)):
    return "[" + ",".join([text(item) for item in value]) + "]"
  if isinstance(value, dict):
    if not all(type(key) in (str, int) for key in value):
      raise TypeError("a key is no str or int")
    if len({str(key) for key in value}) < len(value):
      raise TypeError("two keys are the same in JSON")
    pairs = [text(str(k)) + ":" + text(v) for k, v in value.items()]
    return "{" + ",".join(pairs) + "}"
  raise TypeError(f"{kind} is no JSON")


def send(channel: int, data: bytes) -> None:
  """Writes all of it to a file descriptor."""
  while data:
    data = data[posix.write(channel, data) :]


def call() -> None:
  """Calls the function that standard input names, and writes its result.

  Standard input is the Python literal (name, arguments). What the program
  prints goes to standard error.
  """
  name, args = eval(sys.stdin.read())
  channel = posix.dup(1)
  posix.dup2(2, 1)
  prepare()
  scope, known = load_functions("program")
  result = text(function_of(scope, known, name)(*args))
  send(channel, result.encode())
