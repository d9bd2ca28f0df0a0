"""Chat templates are rendered in a process of their own, within limits.

A template comes with the weights, and its code is not trusted. One that loops
for ever or fills the memory ends its process (`r1jax.text.template_worker`),
and a new one replaces it.
"""

import atexit
import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from typing import Any

from r1jax.errors import UserError

# Of one template. Templates take milliseconds, and a few MiB.
SECONDS, MEMORY = 2.0, 256 << 20
# Of the longest text: more than the context of any model.
CHARACTERS = 16 << 20
# Wall time in which even a busy machine answers.
PATIENCE = 120.0


def render(source: str, variables: Mapping[str, Any] | None) -> str:
  """The text of a template.

  Args:
    source: of the template.
    variables: of plain JSON; None compiles the template only.

  Raises:
    UserError: it is no template, raises, or exceeds a limit.
  """
  try:
    line = json.dumps([source, variables]).encode() + b"\n"
  except (TypeError, ValueError, RecursionError) as e:
    raise UserError(f"chat template: its variables must be JSON: {e}") from None
  with _LOCK:
    answer = _ask(line)
  if "error" in answer:
    words = " ".join(answer["error"].split())
    raise UserError(f"chat template: {words[:300]}")
  return answer["text"]


_LOCK = threading.Lock()
_workers: list["_Worker"] = []


class _Worker:
  """The process and the pipes to it."""

  def __init__(self) -> None:
    self.owner = os.getpid()
    limits = map(str, (SECONDS, MEMORY, CHARACTERS))
    self.process = subprocess.Popen(
      [sys.executable, "-m", "r1jax.text.template_worker", *limits],
      stdin=subprocess.PIPE,
      stdout=subprocess.PIPE,
      # Ctrl-C reaches this process only.
      start_new_session=True,
      env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    assert self.process.stdin and self.process.stdout
    self.pipes = self.process.stdin.fileno(), self.process.stdout.fileno()
    os.set_blocking(self.pipes[0], False)

  def ask(self, line: bytes) -> bytes:
    """The answer to a line; raises OSError if the process ends before it."""
    to, of = self.pipes
    until = time.monotonic() + PATIENCE
    parts: list[bytes] = []
    while not parts or not parts[-1].endswith(b"\n"):
      left = max(0.0, until - time.monotonic())
      ready, free, _ = select.select([of], [to] if line else [], [], left)
      if not ready and not free:
        raise TimeoutError
      if free:
        line = line[os.write(to, line) :]
      if ready:
        parts.append(os.read(of, 1 << 16))
        if not parts[-1]:
          raise BrokenPipeError
    return b"".join(parts)

  def end(self) -> int:
    """Kills the process; returns how it ended."""
    if self.process.poll() is None and self.process.stdin:
      # A process that has closed its pipes is about to end by itself.
      try:
        self.process.wait(1.0)
      except subprocess.TimeoutExpired:
        self.process.kill()
    for pipe in (self.process.stdin, self.process.stdout):
      if pipe:
        pipe.close()
    return self.process.wait()


def _ask(line):
  """The answer of the worker, which is started if there is none."""
  # A forked child must not use the pipes of its parent.
  if not _workers or _workers[0].owner != os.getpid():
    _workers[:] = [_Worker()]
  worker = _workers[0]
  try:
    return json.loads(worker.ask(line))
  except OSError as e:
    _workers.clear()
    if isinstance(e, TimeoutError):
      worker.process.kill()
    return {"error": _why(worker.end(), e)}
  except BaseException:  # Ctrl-C: the answer belongs to nobody now
    _workers.clear()
    worker.process.kill()
    worker.end()
    raise


def _why(code, error):
  if code == -signal.SIGPROF:
    return f"takes more than {SECONDS:g} s of CPU time"
  if isinstance(error, TimeoutError):
    return f"does not answer within {PATIENCE:g} s"
  return "ends its process"


@atexit.register
def _end():
  for worker in _workers:
    if worker.owner == os.getpid():
      worker.process.kill()
      worker.end()
  _workers.clear()
