"""Verifiers run in worker processes, so that none can hang or kill a run.

A worker (`r1jax.rewards.worker`) judges one completion at a time. If it dies or
takes too long, that completion earns nothing and a new worker replaces it.
Verifiers that are quick and harmless (`verifiers.QUICK`) run in this process.
"""

import atexit
import contextlib
import functools
import json
import os
import queue
import select
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import Future

from r1jax import verifiers
from r1jax.errors import BadProblem, UserError
from r1jax.types import Problem, Verdict

TIMED_OUT = Verdict(False, 0.0, "timed_out")
CRASHED = Verdict(False, 0.0, "verifier_died")
# Completions after which a worker is replaced: parsers cache what they have
# seen, and garbage collection is slow in a process with many objects.
RECYCLE = 5000
# Enough to start a worker and to import a verifier on a busy machine.
START_SECONDS = 120.0


class Judges:
  """A pool of worker processes.

  Args:
    workers: number of processes; by default the number of cores.
    seconds: wall time that one completion may take.
    memory: bytes of address space that one completion may add to a worker's.
  """

  def __init__(
    self,
    workers: int | None = None,
    seconds: float = 60.0,
    memory: int = 1 << 30,
  ):
    self.seconds, self.memory = seconds, memory
    self._jobs: queue.SimpleQueue = queue.SimpleQueue()
    self._closed = False
    self._running: set[_Worker] = set()
    self.workers = workers or len(os.sched_getaffinity(0))
    self._servers = [
      threading.Thread(target=self._serve, daemon=True)
      for _ in range(self.workers)
    ]
    for server in self._servers:
      server.start()

  def submit(self, problem: Problem, completion: str) -> Future[Verdict]:
    """Starts to judge a completion.

    Args:
      problem: a `Problem` whose data is plain JSON.
      completion: the text that the policy wrote.

    Returns:
      a `concurrent.futures.Future` of the `Verdict`. The reason is "timed_out",
      "out_of_memory", "verifier_died" or "verifier_failed" if the verifier was
      stopped or failed. `result()` raises a `BadProblem` if nobody can judge
      the problem, and another `UserError` if the run cannot go on.
    """
    future: Future[Verdict] = Future()
    if verifiers.name_of(problem) in verifiers.QUICK:
      try:
        future.set_result(verifiers.verify(problem, completion))
      except UserError as e:
        future.set_exception(e)
      return future
    self._jobs.put((future, problem, completion))
    return future

  def close(self) -> None:
    """Kills the workers and cancels the completions that wait."""
    self._closed = True
    while not self._jobs.empty():
      self._jobs.get()[0].cancel()
    for _ in self._servers:
      self._jobs.put(None)
    for worker in tuple(self._running):
      worker.end()
    for server in self._servers:
      server.join()

  def __enter__(self):
    return self

  def __exit__(self, *_):
    self.close()

  def _serve(self):
    worker = None
    while (job := self._jobs.get()) is not None:
      future, problem, completion = job
      if not future.set_running_or_notify_cancel():
        continue
      try:
        worker = worker or self._start()
        answer = worker.ask(problem, completion, self.seconds)
      except (_Dead, TimeoutError) as e:
        worker = self._stop(worker)
        timed_out = isinstance(e, TimeoutError)
        future.set_result(TIMED_OUT if timed_out else CRASHED)
        continue
      except BaseException as e:
        # No process can be made; the error must reach the caller.
        future.set_exception(e)
        continue
      if worker.asked >= RECYCLE:
        worker = self._stop(worker)
      if "verdict" in answer:
        future.set_result(Verdict(**answer["verdict"]))
      elif "bad_problem" in answer:
        future.set_exception(BadProblem(answer["bad_problem"]))
      else:
        future.set_exception(UserError(answer["error"]))
    if worker:
      self._stop(worker)

  def _start(self):
    worker = _Worker(self.memory)
    self._running.add(worker)
    if self._closed:  # while the process started
      worker.end()
    return worker

  def _stop(self, worker):
    self._running.discard(worker)
    worker.end()
    worker.close()


@functools.cache
def shared() -> Judges:
  """The pool of this process; it starts on first use and ends at exit."""
  judges = Judges()
  atexit.register(judges.close)
  return judges


class _Dead(Exception):
  """The worker has ended."""


class _Worker:
  """One worker process and the pipes to it."""

  def __init__(self, memory):
    self._process = subprocess.Popen(
      [sys.executable, "-m", "r1jax.rewards.worker", str(memory)],
      stdin=subprocess.PIPE,
      stdout=subprocess.PIPE,
      # A session of its own: its children can be killed with it, and Ctrl-C
      # reaches this process only.
      start_new_session=True,
      env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    self._rest = b""
    self.asked = 0

  def ask(self, problem, completion, seconds):
    """The worker's answer; raises `_Dead` or TimeoutError."""
    fields = vars(problem) | {"data": dict(problem.data)}
    self.asked += 1
    line = json.dumps([fields, completion]).encode() + b"\n"
    try:
      self._process.stdin.write(line)
      self._process.stdin.flush()
    except OSError:
      raise _Dead from None
    answer = self._line(time.monotonic() + START_SECONDS)
    if answer == b"begun":
      answer = self._line(time.monotonic() + seconds)
    return json.loads(answer)

  def _line(self, until):
    pipe = self._process.stdout.fileno()
    while b"\n" not in self._rest:
      left = until - time.monotonic()
      if left <= 0 or not select.select([pipe], [], [], left)[0]:
        raise TimeoutError
      data = os.read(pipe, 1 << 16)
      if not data:
        raise _Dead
      self._rest += data
    line, _, self._rest = self._rest.partition(b"\n")
    return line

  def end(self):
    """Kills the process and its children; any thread may call this."""
    with contextlib.suppress(ProcessLookupError):
      os.killpg(self._process.pid, signal.SIGKILL)

  def close(self):
    """Waits for the end of the process; only the thread that asks may."""
    self._process.wait()
    with contextlib.suppress(OSError):  # it has not read everything
      self._process.stdin.close()
    self._process.stdout.close()
