"""Signals that stop a run: SIGTERM, SIGHUP and SIGINT (Ctrl-C).

A scheduler sends SIGTERM before it takes a machine away; a terminal that
closes sends SIGHUP. A run then ends by itself. A phase that saves finishes its
step and saves first (`defer`). Anything else ends at once, since nothing on
disk is ever half-written. A second signal always ends the process at once.

A thread answers the signals. Python's own handlers run in the main thread only,
which a compilation may hold for minutes.
"""

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from typing import TextIO

SIGNALS = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
# `timeout`, shells and terminals may send the same signal twice. Within so many
# seconds of the first one it is no second request.
_ECHO_SECONDS = 0.5


class Stopped(BaseException):
  """A signal asked this run to stop, and what it had is saved.

  No `Exception`, so that nothing on the way takes it for a fault.

  Args:
    number: of the signal.

  Attributes:
    number: of the signal.
    code: the exit status, 128 and the number, as shells have it.
    name: of the signal.
  """

  def __init__(self, number: int) -> None:
    self.number, self.code = number, 128 + number
    self.name = signal.Signals(number).name
    super().__init__(f"stopped by {self.name}")


class _Requests:
  """What was asked so far, in this process."""

  number = 0
  since = 0.0
  deferred = False
  listening = False


def asked() -> int:
  """The number of the signal that asked this process to stop, or 0."""
  return _Requests.number


def check() -> None:
  """Raises `Stopped` if a signal asked this process to stop."""
  if _Requests.number:
    raise Stopped(_Requests.number)


def defer(deferred: bool) -> None:
  """Sets whether the first signal waits for the next `check`.

  Args:
    deferred: True where the program calls `check` soon and has something to
      save before. False: the first signal ends the process at once.
  """
  _Requests.deferred = deferred


def listen() -> None:
  """Answers `SIGNALS` from now on, until the process ends.

  A signal that is ignored stays ignored: `nohup` ignores SIGHUP. Call it in
  the main thread, again after a library has set its own handlers.
  """
  for number in SIGNALS:
    if signal.getsignal(number) != signal.SIG_IGN:
      # It does nothing: the pipe below has the number already.
      signal.signal(number, lambda *_: None)
  if not _Requests.listening:
    _Requests.listening = True
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    threading.Thread(target=_watch, args=(reader,), daemon=True).start()


@contextlib.contextmanager
def listening() -> Iterator[None]:
  """Answers `SIGNALS` within a block, and forgets them after it; for tests."""
  handlers = {number: signal.getsignal(number) for number in SIGNALS}
  try:
    listen()
    yield
  finally:
    signal.set_wakeup_fd(-1)
    for number, handler in handlers.items():
      signal.signal(number, handler)
    _Requests.number, _Requests.deferred = 0, False
    _Requests.listening = False


def _watch(reader):
  """Reads the numbers of signals, which the interpreter writes at once."""
  while numbers := os.read(reader, 64):
    for number in numbers:
      if number in SIGNALS:
        _receive(number)


def _receive(number):
  stopped = Stopped(number)
  if _Requests.number:
    if time.monotonic() - _Requests.since > _ECHO_SECONDS:
      os._exit(stopped.code)
    return
  _Requests.since = time.monotonic()
  _Requests.number = number
  if _Requests.deferred:
    _say(
      f"{stopped.name}: the run saves at the end of this step and stops; a"
      " second signal stops it at once"
    )
    return
  _say(f"{stopped}; the same command goes on from what was saved")
  # Not an exception: it could be raised in the middle of anything.
  os._exit(stopped.code)


def silence(stream: TextIO) -> None:
  """Sends what is printed to a stream from now on nowhere.

  Args:
    stream: sys.stdout or sys.stderr, whose reader or terminal has gone.
  """
  with contextlib.suppress(OSError, ValueError), open(os.devnull, "w") as none:
    os.dup2(none.fileno(), stream.fileno())


def _say(text):
  """Prints a line to stderr, past all buffers that the main thread holds."""
  start = "\n" if os.isatty(2) else ""  # after the bar
  try:
    os.write(2, f"{start}{text}\n".encode())
  except OSError:
    silence(sys.stderr)
