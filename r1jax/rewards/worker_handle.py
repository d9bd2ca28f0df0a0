"""A worker process as the pool sees it: no wait for it lasts for ever."""

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time

from r1jax.types import Problem

# Enough to start a worker, to import a verifier and to read a completion on a
# busy machine.
START_SECONDS = 120.0
_TICKS = os.sysconf("SC_CLK_TCK")


class Dead(Exception):
  """The worker has ended."""


class OutOfTime(Exception):
  """The worker has spent the CPU time of a completion."""


class Stalled(Exception):
  """The worker neither answers nor computes."""


def question(problem: Problem, completion: str) -> bytes:
  """The line that asks a worker about a completion.

  Args:
    problem: a `Problem` whose data is plain JSON.
    completion: the text that the policy wrote.
  """
  fields = vars(problem) | {"data": dict(problem.data)}
  return json.dumps([fields, completion]).encode() + b"\n"


class WorkerHandle:
  """One worker process and the pipes to it.

  Args:
    memory: bytes of address space that one completion may add to the process.

  Attributes:
    asked: completions that it has been asked about.
  """

  def __init__(self, memory: int):
    self._process = subprocess.Popen(
      [sys.executable, "-m", "r1jax.rewards.worker", str(memory)],
      stdin=subprocess.PIPE,
      stdout=subprocess.PIPE,
      bufsize=0,
      # A session of its own: its children can be killed with it, and Ctrl-C
      # reaches this process only.
      start_new_session=True,
      env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    assert self._process.stdin and self._process.stdout
    self._stdin = self._process.stdin.fileno()
    self._stdout = self._process.stdout.fileno()
    # A worker that does not read must not stop this process.
    os.set_blocking(self._stdin, False)
    self._rest = b""
    self.asked = 0

  def ask(self, question: bytes, seconds: float, wall: float) -> dict:
    """The worker's answer.

    Args:
      question: of the function `question`.
      seconds: CPU time that the verifier may take.
      wall: seconds that it may take altogether.

    Returns:
      dict, as `r1jax.rewards.worker` describes it.

    Raises:
      Dead, OutOfTime, Stalled: there is no answer.
    """
    self.asked += 1
    until = time.monotonic() + START_SECONDS
    self._write(question, until)
    answer = self._line(until)
    if answer == b"begun":
      until = time.monotonic() + wall
      answer = self._line(until, self._cpu() + seconds)
    try:
      return json.loads(answer)
    except ValueError:
      # The verifier has written into the pipe.
      raise Dead from None

  def _write(self, data, until):
    rest = memoryview(data)
    while rest:
      left = until - time.monotonic()
      if left <= 0 or not _ready(self._stdin, select.POLLOUT, left):
        raise Stalled
      try:
        rest = rest[os.write(self._stdin, rest) :]
      except BlockingIOError:
        continue
      except OSError:
        raise Dead from None

  def _line(self, until, cpu=None):
    """The next line; `cpu` is the CPU time at which the worker must stop."""
    while b"\n" not in self._rest:
      left = until - time.monotonic()
      if left <= 0:
        raise Stalled
      if cpu is not None:
        spare = cpu - self._cpu()
        if spare <= 0:
          raise OutOfTime
        # Several processes may compute for it at a time.
        left = min(left, max(0.05, spare / 4))
      if _ready(self._stdout, select.POLLIN, left):
        data = os.read(self._stdout, 1 << 16)
        if not data:
          raise Dead
        self._rest += data
    line, _, self._rest = self._rest.partition(b"\n")
    return line

  def _cpu(self):
    """CPU seconds of the worker and of the children that it has waited for."""
    try:
      with open(f"/proc/{self._process.pid}/stat", "rb") as file:
        fields = file.read().rpartition(b")")[2].split()
    except OSError:
      raise Dead from None
    return sum(map(int, fields[11:15])) / _TICKS

  def end(self) -> None:
    """Kills the process and its children; any thread may call this."""
    with contextlib.suppress(ProcessLookupError):
      os.killpg(self._process.pid, signal.SIGKILL)

  def close(self) -> None:
    """Waits for the end of the process; only the thread that asks may."""
    self._process.wait()
    for pipe in (self._process.stdin, self._process.stdout):
      if pipe:
        with contextlib.suppress(OSError):  # it has not read everything
          pipe.close()


def _ready(pipe, event, seconds):
  """Waits until a pipe can be read or written, or has no other end."""
  poll = select.poll()
  poll.register(pipe, event)
  return bool(poll.poll(1000 * seconds))
