"""A deadline on a computation, in any thread.

An alarm signal would work in the main thread only. Here another thread makes
the interpreter raise an exception between two instructions.
"""

import contextlib
import ctypes
import sys
import threading
import time
from collections.abc import Iterator

# What `guard` accepts takes a third of it at most, so that a busy machine, on
# which a second of CPU does less, changes no verdict.
SECONDS = 0.9


class TimedOut(BaseException):
  """The deadline has passed.

  A `BaseException`, so that no handler of a library catches it.
  """


class _Watchdog:
  """A thread that raises `TimedOut` in threads whose deadline has passed."""

  def __init__(self):
    self.changed = threading.Condition()
    self.due = {}  # thread -> deadline, on the thread's own clock
    self.thread = None

  def watch(self, seconds):
    with self.changed:
      thread = threading.get_ident()
      self.due[thread] = _clock(thread) + seconds
      # A forked process has only the thread that forked.
      if self.thread is None or not self.thread.is_alive():
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()
      self.changed.notify()

  def release(self):
    thread = threading.get_ident()
    with self.changed:
      del self.due[thread]
    # Cancels an exception that is not yet raised.
    _raise_in(thread, None)

  def _run(self):
    with self.changed:
      while True:
        left = []
        for thread, when in self.due.items():
          now = _clock(thread)
          if when <= now and not _enters_or_leaves(thread):
            _raise_in(thread, TimedOut)
            # Repeated, since a destructor may swallow it.
            self.due[thread] = when = now + 0.05
          left.append(when - now)
        # The clock of a thread stands still while it waits for a core.
        self.changed.wait(max(0.01, min(left)) if left else None)


def _enters_or_leaves(thread):
  """Whether a thread is in the code of `deadline` itself.

  That code must not be interrupted. The exception is raised at the point where
  the thread gave up the interpreter, which is where it is now.
  """
  frame = sys._current_frames().get(thread)
  modules = (__name__, contextlib.__name__, threading.__name__)
  return frame is not None and frame.f_globals.get("__name__") in modules


def _clock(thread):
  """CPU seconds of a thread, which do not depend on the machine's load."""
  if not hasattr(time, "pthread_getcpuclockid"):
    return time.monotonic()
  return time.clock_gettime(time.pthread_getcpuclockid(thread))


def _raise_in(thread, exception):
  ctypes.pythonapi.PyThreadState_SetAsyncExc(
    ctypes.c_ulong(thread),
    None if exception is None else ctypes.py_object(exception),
  )


_watchdog = _Watchdog()


@contextlib.contextmanager
def deadline(seconds: float = SECONDS) -> Iterator[None]:
  """Raises `TimedOut` when this thread has computed for too long.

  Deadlines cannot be nested. Nothing is raised after the `with` statement.

  Args:
    seconds: CPU seconds of this thread.

  Raises:
    TimedOut: the deadline has passed.
  """
  _watchdog.watch(seconds)
  try:
    yield
  finally:
    _watchdog.release()
