"""Verifiers run in worker processes, so that none can hang or kill a run.

A worker (`r1jax.rewards.worker`) judges one completion at a time. Its limit is
the CPU time that the worker spends, so that a verdict does not depend on what
else the machine does. A completion that takes more earns nothing, and a new
worker replaces the old one.

Where the worker ends or stands still without that, the machine may be at fault,
so a fresh worker judges the completion once more. If that one ends too, the
verdict is `CRASHED`. If it also stands still, nobody can tell: the verdict is
`STALLED`, and RL ignores the group of a completion that was not judged.

Verifiers that are quick and harmless (`verifiers.QUICK`) run in this process.
"""

import atexit
import functools
import os
import queue
import threading
from concurrent.futures import Future

from r1jax import verifiers
from r1jax.errors import BadProblem, UserError
from r1jax.rewards import worker_handle
from r1jax.rewards.worker_handle import Dead, OutOfTime, Stalled, WorkerHandle
from r1jax.types import Problem, Verdict

TIMED_OUT = Verdict(False, 0.0, "timed_out")
CRASHED = Verdict(False, 0.0, "verifier_died")
STALLED = Verdict(False, 0.0, "stalled", judged=False)
# Completions after which a worker is replaced: parsers cache what they have
# seen, and garbage collection is slow in a process with many objects.
RECYCLE = 5000


class Judges:
  """A pool of worker processes.

  Args:
    workers: number of processes; by default the number of cores.
    seconds: CPU time that one completion may take, of a worker and of the
      processes that it has waited for.
    memory: bytes of address space that one completion may add to a worker's.
    wall: seconds after which a worker stands still; by default ten times the
      CPU time.
  """

  def __init__(
    self,
    workers: int | None = None,
    seconds: float = 60.0,
    memory: int = 1 << 30,
    wall: float | None = None,
  ):
    self.seconds, self.memory = seconds, memory
    self.wall = wall or 10 * seconds
    self._jobs: queue.SimpleQueue = queue.SimpleQueue()
    self._closed = False
    self._running: set[WorkerHandle] = set()
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
      "out_of_memory", "verifier_died", "verifier_failed" or "stalled" if the
      verifier was stopped or failed. `result()` raises a `BadProblem` if
      nobody can judge the problem, and another `UserError` if the run cannot
      go on.
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
        question = worker_handle.question(problem, completion)
        worker, answer = self._judge(worker, question)
      except BaseException as e:
        # The problem is no JSON, or no process can be made. The error must
        # reach the caller.
        future.set_exception(e)
        continue
      if "verdict" in answer:
        future.set_result(Verdict(**answer["verdict"]))
      elif "bad_problem" in answer:
        future.set_exception(BadProblem(answer["bad_problem"]))
      else:
        future.set_exception(UserError(answer["error"]))
    if worker:
      self._stop(worker)

  def _judge(self, worker, question):
    """The worker to ask next, or None, and the answer, a dict."""
    for again in (True, False):
      worker = worker or self._start()
      try:
        answer = worker.ask(question, self.seconds, self.wall)
        if worker.asked >= RECYCLE:
          worker = self._stop(worker)
        return worker, answer
      except OutOfTime:
        verdict, again = TIMED_OUT, False
      except Dead:
        verdict = CRASHED
      except Stalled:
        verdict = STALLED
      worker = self._stop(worker)
      if not again or self._closed:
        break
    return None, {"verdict": vars(verdict)}

  def _start(self):
    worker = WorkerHandle(self.memory)
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
