"""Python in the box: loads a program and runs it as `python FILE` would.

`programs` gives the text of this file to the interpreter in the box; it must
import nothing of ours there. Little is imported at all, since a box lives for
some 30 ms only. A program can replace everything here: nothing of it decides.
"""

from __future__ import annotations

import builtins
import posix
import sys

TYPE_CHECKING = False  # importing typing would take as long as all the rest
if TYPE_CHECKING:
  from types import CodeType, ModuleType

SOURCE = "/program"
# As much as the stack of a thread has elsewhere.
_THREAD_BYTES = 8 << 20
# Programs ask for as much as a judge may give; here it counts as memory.
_MOST_THREAD_BYTES = 256 << 20
_M_ARENA_MAX = -8  # malloc.h
# The frames below a program's own, which its limit of recursion must not count.
_FRAMES = 3


class _SelfPipes:
  """Finds asyncio's event loop, and gives it pipes instead of sockets."""

  @staticmethod
  def find_spec(name, path=None, target=None):
    if name != "asyncio.selector_events":
      return None
    sys.meta_path.remove(_SelfPipes)  # type: ignore[arg-type]
    finder = sys.modules["_frozen_importlib_external"].PathFinder
    spec = finder.find_spec(name, path)
    load = spec.loader.exec_module

    def exec_module(module):
      load(module)
      module.BaseSelectorEventLoop._make_self_pipe = _make_self_pipe

    spec.loader.exec_module = exec_module
    return spec


class _End:
  """One end of a pipe, with the methods of a socket that asyncio needs."""

  def __init__(self, fd):
    posix.set_blocking(fd, False)
    self._fd = fd

  def fileno(self):
    return self._fd

  def recv(self, size):
    return posix.read(self._fd, size)

  def send(self, data):
    return posix.write(self._fd, data)

  def close(self):
    if self._fd >= 0:
      posix.close(self._fd)
    self._fd = -1


def _make_self_pipe(loop):
  loop._ssock, loop._csock = map(_End, posix.pipe())
  loop._internal_fds += 1
  loop._add_reader(loop._ssock.fileno(), loop._read_from_self)


def _limited(stack_size):
  """`threading.stack_size`; more than there can be becomes what there can."""

  def limited(size=0):
    return stack_size(min(size, _MOST_THREAD_BYTES))

  return limited


def _few_arenas_before(start):
  """`start`, which first limits arenas: each takes 64 MiB of address space."""

  def started(*args, **pairs):
    import ctypes

    ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 2)
    return start(*args, **pairs)

  return started


def prepare() -> None:
  """Makes the interpreter what programs expect: exit, asyncio, threads."""
  import _sitebuiltins
  import _thread

  for name in ("exit", "quit"):
    quitter = _sitebuiltins.Quitter(name, "Ctrl-D (i.e. EOF)")
    setattr(builtins, name, quitter)
  _thread.stack_size(_THREAD_BYTES)
  _thread.stack_size = _limited(_thread.stack_size)
  for name in ("start_new_thread", "start_joinable_thread"):
    if hasattr(_thread, name):
      setattr(_thread, name, _few_arenas_before(getattr(_thread, name)))
  sys.meta_path.insert(0, _SelfPipes)  # type: ignore[arg-type]
  sys.setrecursionlimit(sys.getrecursionlimit() + _FRAMES)


def load(name: str) -> tuple[ModuleType, list[CodeType]]:
  """A new module, and the code that is to run in it.

  Args:
    name: of the module.

  Returns:
    the module; the code of the problem's preamble, if any, and the program's.
  """
  with open(SOURCE, "rb") as file:
    source = file.read()
  first = int(sys.argv[1])
  sys.argv[:] = [SOURCE]
  module = sys.modules[name] = type(sys)(name)
  module.__file__ = SOURCE
  module.__dict__["__builtins__"] = builtins
  parts = [source[:first], source[first:]]
  return module, [
    compile(part, SOURCE, "exec", dont_inherit=True) for part in parts if part
  ]


def run() -> None:
  """Runs the program as the main one."""
  prepare()
  # The module that runs now must outlive the program.
  here = sys.modules["__main__"]
  module, parts = load("__main__")
  for code in parts:
    exec(code, module.__dict__)
  del here
