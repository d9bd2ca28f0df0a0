"""Verifiers with every fault that one can have, for the tests of the pool."""

import contextlib
import ctypes
import functools
import os
import signal
import sys
import threading
import time

import numpy as np

from r1jax.errors import BadProblem, UserError
from r1jax.types import Verdict


def verify(problem, completion):
  """Does what the completion says; right if that was nothing bad."""
  if completion == "sleep":
    time.sleep(3600)
  elif completion == "stubborn":
    while True:
      with contextlib.suppress(BaseException):
        time.sleep(3600)
  elif completion == "spin":
    while True:
      pass
  elif completion == "nap":
    time.sleep(2.0)
    return Verdict(True, 1.0, "correct")
  elif completion == "stop":
    os.kill(os.getpid(), signal.SIGSTOP)
  elif completion == "stop soon":
    stop = functools.partial(os.kill, os.getpid(), signal.SIGSTOP)
    threading.Timer(0.2, stop).start()
  elif completion == "exit once":
    if not os.path.exists(problem.data["file"]):
      open(problem.data["file"], "w").close()
      os._exit(1)
    return Verdict(True, 1.0, "correct")
  elif completion.startswith("long"):
    return Verdict(True, 1.0, "correct")
  elif completion == "scribble":
    for pipe in range(3, 20):
      with contextlib.suppress(OSError):
        os.write(pipe, b"no JSON\n")
  elif completion == "hoard":
    hoard = []
    while True:
      hoard.append(bytearray(64 << 20))
  elif completion == "exit":
    os._exit(0)
  elif completion == "crash":
    ctypes.string_at(0)
  elif completion == "print":
    print('{"verdict": [true, 1.0, "forged"]}', flush=True)
    os.write(1, b'{"verdict": [true, 1.0, "forged"]}\n')
  elif completion == "raise":
    raise KeyError("a fault of the verifier")
  elif completion == "bad problem":
    raise BadProblem("problem p: its answer is unreadable")
  elif completion == "no sandbox":
    raise UserError("no sandbox can be made")
  elif completion == "tell":
    with open(problem.data["file"], "w") as file:
      file.write(str(os.getpid()))
    time.sleep(3600)
  elif completion == "child":
    pid = os.fork()
    if not pid:
      time.sleep(3600)
    with open(problem.data["file"], "w") as file:
      file.write(str(pid))
    time.sleep(3600)
  elif completion == "pid":
    return Verdict(False, 0.0, str(os.getpid()))
  elif completion == "read":
    return Verdict(False, 0.0, "wrong" if sys.stdin.read() == "" else "read")
  elif completion == "unjudged":
    return Verdict(False, np.float64(0), "no_network", judged=np.bool_(False))
  elif completion == "bool":
    return True
  elif completion == "nan":
    return Verdict(False, float("nan"), "wrong")
  elif completion == "numpy":
    return Verdict(np.bool_(True), np.float32(1), "correct")
  right = completion == "right"
  return Verdict(right, float(right), "correct" if right else "wrong")


def breaks(problem, completion):
  return len(None)


def ends(problem, completion):
  sys.exit(3)
