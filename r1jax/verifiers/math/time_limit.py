"""A deadline on what a thread computes, in any thread.

An alarm would work in the main thread only. Here another thread has the
interpreter raise an exception between two instructions.
"""

import contextlib
import ctypes
import sys
import threading
import time

SECONDS = 0.5


class TimedOut(BaseException):
  """The deadline has passed; no handler of a library may swallow this."""


class _Watchdog:
  """A thread that raises `TimedOut` in the threads whose time is up."""

  def __init__(self):
    self.changed = threading.Condition()
    self.due = {}  # thread -> when, on its own clock
    self.thread = None

  def watch(self, seconds):
    with self.changed:
      thread = threading.get_ident()
      self.due[thread] = _clock(thread) + seconds
      # A forked process has no thread but the one that forked.
      if self.thread is None or not self.thread.is_alive():
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()
      self.changed.notify()

  def release(self):
    thread = threading.get_ident()
    with self.changed:
      del self.due[thread]
    # One that was on its way.
    _raise_in(thread, None)

  def _run(self):
    with self.changed:
      while True:
        left = []
        for thread, when in self.due.items():
          now = _clock(thread)
          if when <= now and not _enters_or_leaves(thread):
            _raise_in(thread, TimedOut)
            # Again, as a destructor may swallow it.
            self.due[thread] = when = now + 0.05
          left.append(when - now)
        # A thread that waits for a core computes nothing meanwhile.
        self.changed.wait(max(0.01, min(left)) if left else None)


def _enters_or_leaves(thread):
  """Whether it is in `deadline` itself, which is not to be cut short.

  The exception is raised where the thread stands now: it gave up the
  interpreter there.
  """
  frame = sys._current_frames().get(thread)
  modules = (__name__, contextlib.__name__, threading.__name__)
  return frame is not None and frame.f_globals.get("__name__") in modules


def _clock(thread):
  """Seconds that a thread has computed: a busy machine costs no answer."""
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
def deadline(seconds=SECONDS):
  """Raises `TimedOut` once this thread has computed for so many seconds.

  Not to be nested. None is raised after the block.

  Raises:
    TimedOut
  """
  _watchdog.watch(seconds)
  try:
    yield
  finally:
    _watchdog.release()
