"""Verifiers: strings in, verdict out. No state, no network.

A problem's `kind` names its verifier: one of `MODULES`, or "package.module:
function" for one of your own, a function (problem, completion) -> Verdict.
"""

import functools
import importlib
from typing import Any, NamedTuple

from r1jax.errors import UserError
from r1jax.text import think_format
from r1jax.types import Verdict

# Kind -> its module, which has `verify` and may have `final_answer`, (problem,
# completion) -> what majority votes count, and `check`, which raises a
# `BadProblem` for one that cannot be judged.
MODULES = {
  "choice": "r1jax.verifiers.choice",
  "code": "r1jax.verifiers.code.tests",
  "countdown": "r1jax.verifiers.countdown",
  "exact": "r1jax.verifiers.exact",
  "logic": "r1jax.verifiers.logic",
  "math": "r1jax.verifiers.math.answer",
  "open": "r1jax.verifiers.open_ended",
}
# What takes microseconds and bounded memory, whatever the text.
QUICK = ("choice", "countdown", "exact", "open")


class Kind(NamedTuple):
  """What can be asked about problems of one kind.

  Attributes:
    verify: (problem, completion) -> `Verdict`.
    final_answer: (problem, completion) -> str or None.
    check: (problem) -> None; raises `BadProblem`.
  """

  verify: Any
  final_answer: Any
  check: Any


def is_name(kind):
  """Whether it has the form of what `find` takes; nothing is imported."""
  return kind in MODULES or ":" in kind


@functools.cache
def find(kind):
  """The functions of a kind; imports its module.

  Args:
    kind: of `MODULES`, or "package.module:function".

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
      getattr(module, "check", _nothing),
    )
  name, _, function = kind.partition(":")
  try:
    own = getattr(importlib.import_module(name), function)
  except (ImportError, AttributeError, ValueError) as e:
    raise UserError(f'the verifier "{kind}" cannot be imported: {e}') from None
  return Kind(own, _tagged, _nothing)


def verify(problem, completion):
  """What the verifier of the problem's kind says of a completion.

  Args:
    problem: a `Problem`.
    completion: the text that the policy wrote.

  Returns:
    `Verdict`.

  Raises:
    UserError: no verifier has that name, or what it returned is no `Verdict`.
    BadProblem: no answer to this problem can be judged.
  """
  return _sound(_of(problem).verify(problem, completion), name_of(problem))


def final_answer(problem, completion):
  """What a majority vote counts: the answer's text, or None."""
  return _of(problem).final_answer(problem, completion)


def check(problem):
  """Raises a `BadProblem` for a problem that cannot be judged."""
  _of(problem).check(problem)


def name_of(problem):
  """What `find` is asked for: the problem's verifier, or else its kind."""
  return problem.verifier or problem.kind


def _sound(verdict, name):
  """A verdict of plain Python types, or a `UserError`."""
  if isinstance(verdict, Verdict):
    score = float(verdict.score)
    if 0.0 <= score <= 1.0:
      return Verdict(bool(verdict.correct), score, str(verdict.reason))
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
  "MODULES", "QUICK", "Kind", "check", "final_answer", "find", "is_name",
  "name_of", "verify",
]  # fmt: skip
