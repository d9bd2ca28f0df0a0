"""A process that judges what it is sent, and may be killed at any time.

  python -m r1jax.rewards.worker MEMORY_BYTES

Reads one JSON list [problem, completion] a line, the problem as a list of its
fields. Answers each with two lines: "begun" when the verifier is imported,
then {"verdict": [...]}, {"bad_problem": text} or {"error": text}.
"""

import ctypes
import json
import os
import resource
import signal
import sys
import traceback

from r1jax import verifiers
from r1jax.errors import BadProblem, UserError
from r1jax.types import Problem

_PR_SET_PDEATHSIG = 1


def main(memory):
  """Serves until its input ends."""
  # Whatever a verifier prints must not get between the answers.
  answers = os.fdopen(os.dup(1), "w", buffering=1)
  os.dup2(2, 1)
  # Nor may one that reads take the next sample.
  samples = os.fdopen(os.dup(0))
  os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
  if sys.platform == "linux":
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
  for line in samples:
    fields, completion = json.loads(line)
    problem = Problem(*fields)
    try:
      verifiers.find(verifiers.name_of(problem))
      # Only now: what is imported is not the sample's.
      limit = _used() + memory
      resource.setrlimit(
        resource.RLIMIT_AS, (limit, resource.getrlimit(resource.RLIMIT_AS)[1])
      )
      answers.write("begun\n")
      verdict = verifiers.verify(problem, completion)
      answer = {"verdict": [verdict.correct, verdict.score, verdict.reason]}
    except BadProblem as e:
      answer = {"bad_problem": str(e)}
    except UserError as e:
      answer = {"error": str(e)}
    except MemoryError:
      answer = {"verdict": [False, 0.0, "out_of_memory"]}
    except Exception:
      # A fault of the verifier: the sample is lost, the cause is told.
      print(f"problem {problem.id}, its verifier failed:", file=sys.stderr)
      traceback.print_exc()
      answer = {"verdict": [False, 0.0, "verifier_failed"]}
    answers.write(json.dumps(answer) + "\n")


def _used():
  """Bytes of address space that the process has taken."""
  with open("/proc/self/statm") as file:
    return int(file.read().split()[0]) * resource.getpagesize()


if __name__ == "__main__":
  main(int(sys.argv[1]))
