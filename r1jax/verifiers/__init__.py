"""Verifiers judge completions: strings in, a verdict out, no state, no network.

A problem's `kind` names its verifier: one of `MODULES`, or, for a verifier of
your own, "package.module:function" of a function (problem, completion) ->
`Verdict`.

To add a kind: write a module with a function `verify` and name the module in
`MODULES`. The module may also have

  final_answer(problem, completion) -> the text that majority votes count
  check_problem(problem), which raises a `BadProblem` if nobody can judge it

`verify` and `final_answer` give a verifier the completion with the opening
think tag that the prompt prefilled, if it did (`think_format.whole`).
"""

import functools
import importlib
import logging
from collections.abc import Callable
from typing import NamedTuple

from r1jax.errors import UserError
from r1jax.text import think_format
from r1jax.types import Problem, Verdict

MODULES = {
  "choice": "r1jax.verifiers.choice",
  "code": "r1jax.verifiers.code.tests",
  "countdown": "r1jax.verifiers.countdown",
  "exact": "r1jax.verifiers.exact",
  "instructions": "r1jax.verifiers.instructions",
  "logic": "r1jax.verifiers.logic",
  "math": "r1jax.verifiers.math.answer",
  "open": "r1jax.verifiers.open_ended",
}
# Kinds that take microseconds and little memory for any text. They need no
# process of their own.
QUICK = ("choice", "countdown", "exact", "open")
OUT_OF_MEMORY = Verdict(False, 0.0, "out_of_memory")
FAILED = Verdict(False, 0.0, "verifier_failed")


_log = logging.getLogger(__name__)


class Kind(NamedTuple):
  """The functions of one kind of problem.

  Attributes:
    verify: (problem, completion) -> `Verdict`.
    final_answer: (problem, completion) -> str or None.
    check_problem: (problem) -> None; raises `BadProblem`.
  """

  verify: Callable[[Problem, str], Verdict]
  final_answer: Callable[[Problem, str], str | None]
  check_problem: Callable[[Problem], None]


def is_name(kind: str) -> bool:
  """Whether a name has the form that `find` takes; imports nothing."""
  return kind in MODULES or ":" in kind


@functools.cache
def find(kind: str) -> Kind:
  """Imports the functions of a kind.

  Args:
    kind: a key of `MODULES`, or "package.module:function".

  Returns:
    `Kind`.

  Raises:
    UserError: there is no such kind, module or function.
  """
  if not is_name(kind):
    raise UserError(
      f'kind "{kind}" has no verifier; known: {", ".join(MODULES)}, or'
      ' "package.module:function" for your own'
    )
  if kind in MODULES:
    module = importlib.import_module(MODULES[kind])
    return Kind(
      module.verify,
      getattr(module, "final_answer", _tagged),
      getattr(module, "check_problem", _nothing),
    )
  name, _, function = kind.partition(":")
  try:
    own = getattr(importlib.import_module(name), function)
  except Exception as e:  # importing a module can raise anything
    raise UserError(f'the verifier "{kind}" cannot be imported: {e}') from None
  return Kind(own, _tagged, _nothing)


def verify(problem: Problem, completion: str) -> Verdict:
  """Judges a completion with the problem's verifier.

  Args:
    problem: a `Problem`.
    completion: the text that the policy wrote.

  Returns:
    `Verdict`. Its reason is "verifier_failed" if the verifier raised something
    else than a `UserError`, and "out_of_memory" if that was a MemoryError.

  Raises:
    UserError: there is no such verifier, or it returns no `Verdict`.
    BadProblem: nobody can judge an answer to this problem.
  """
  own = _of(problem).verify
  try:
    verdict = own(problem, think_format.whole(problem.prompt, completion))
  except UserError:
    raise
  except MemoryError:
    return OUT_OF_MEMORY
  except Exception:
    # The verifier has a fault. It costs this completion and is counted.
    _log.warning("problem %s: its verifier failed", problem.id, exc_info=True)
    return FAILED
  return _sound(verdict, name_of(problem))


def final_answer(problem: Problem, completion: str) -> str | None:
  """The text that a majority vote counts; None without, or if it fails."""
  own = _of(problem).final_answer
  try:
    return own(problem, think_format.whole(problem.prompt, completion))
  except Exception:
    _log.warning("problem %s: no final answer", problem.id, exc_info=True)
    return None


def check_problem(problem: Problem) -> None:
  """Raises a `BadProblem` if nobody can judge an answer to the problem."""
  _of(problem).check_problem(problem)


def name_of(problem: Problem) -> str:
  """The name that `find` takes: the problem's verifier, else its kind."""
  return problem.verifier or problem.kind


def _sound(verdict, name):
  """A verdict of plain Python types, or a `UserError`."""
  if isinstance(verdict, Verdict):
    score = float(verdict.score)
    if 0.0 <= score <= 1.0:
      return Verdict(
        bool(verdict.correct),
        score,
        str(verdict.reason),
        bool(verdict.cut),
        bool(verdict.judged),
      )
  raise UserError(
    f'the verifier "{name}" returned {verdict!r:.80}; it must return a'
    " Verdict(correct, score, reason), the score in [0, 1]"
  )


def _of(problem):
  try:
    return find(name_of(problem))
  except UserError as e:
    raise UserError(f"problem {problem.id}: {e}") from None


def _tagged(problem, completion):
  return think_format.answer(completion)


def _nothing(problem):
  pass


__all__ = [
  "FAILED", "MODULES", "OUT_OF_MEMORY", "QUICK", "Kind", "check_problem",
  "final_answer", "find", "is_name", "name_of", "verify",
]  # fmt: skip
