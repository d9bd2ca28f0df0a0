"""Verifiers: strings in, verdict out. No state, no network.

A problem's `kind` names its verifier here. To add one, write a function
(problem, completion) -> Verdict and enter it, and, for majority votes, a
function (problem, completion) -> answer or None.
"""

from r1jax.errors import UserError
from r1jax.verifiers import countdown, exact

VERIFIERS = {"countdown": countdown.verify, "exact": exact.verify}
ANSWERS = {"countdown": countdown.final_answer, "exact": exact.final_answer}


def verify(problem, completion):
  """What the verifier of the problem's kind says of a completion.

  Args:
    problem: a `Problem`.
    completion: the text that the policy wrote.

  Returns:
    `Verdict`.

  Raises:
    UserError: no verifier has that name.
  """
  verifier = VERIFIERS.get(problem.kind)
  if verifier is None:
    raise UserError(
      f'problem {problem.id}: kind "{problem.kind}" has no verifier; known:'
      f" {', '.join(VERIFIERS)}"
    )
  return verifier(problem, completion)


__all__ = ["ANSWERS", "VERIFIERS", "verify"]
