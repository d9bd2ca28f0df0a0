"""A process that judges completions; it may be killed at any time.

  python -m r1jax.rewards.worker MEMORY_BYTES

It reads lines of JSON, [problem, completion], where the problem is an object
with the fields of `Problem`. It answers each with two lines. The first is
"begun", when the verifier is imported. The second is one of

  {"verdict": object with the fields of `Verdict`}
  {"bad_problem": text}
  {"error": text}
"""

import ctypes
import json
import os
import resource
import signal
import sys
from typing import Any

from r1jax import verifiers
from r1jax.errors import BadProblem, UserError
from r1jax.types import Problem

_PR_SET_PDEATHSIG = 1


def main(memory: int) -> None:
  """Answers until the input ends.

  Args:
    memory: bytes of address space that a verifier may add to the process.
  """
  # What a verifier prints must not mix with the answers.
  answers = os.fdopen(os.dup(1), "w", buffering=1)
  os.dup2(2, 1)
  # A verifier that reads its input must not take the next sample.
  samples = os.fdopen(os.dup(0))
  os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
  if sys.platform == "linux":
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
  answer: dict[str, Any]
  for line in samples:
    fields, completion = json.loads(line)
    problem = Problem(**fields)
    try:
      verifiers.find(verifiers.name_of(problem))
      # Set after the import, whose memory is not the sample's.
      limit = _used() + memory
      resource.setrlimit(
        resource.RLIMIT_AS, (limit, resource.getrlimit(resource.RLIMIT_AS)[1])
      )
      answers.write("begun\n")
      verdict = verifiers.verify(problem, completion)
      answer = {"verdict": vars(verdict)}
    except BadProblem as e:
      answer = {"bad_problem": str(e)}
    except UserError as e:
      answer = {"error": str(e)}
    except MemoryError:  # outside of the verifier
      answer = {"verdict": vars(verifiers.OUT_OF_MEMORY)}
    answers.write(json.dumps(answer) + "\n")


def _used():
  """Bytes of address space that this process uses."""
  with open("/proc/self/statm") as file:
    return int(file.read().split()[0]) * resource.getpagesize()


if __name__ == "__main__":
  main(int(sys.argv[1]))
