"""Is the answer the text in the data set?"""

from r1jax.errors import BadProblem
from r1jax.text import characters, think_format
from r1jax.types import Problem, Verdict


def verify(problem: Problem, completion: str) -> Verdict:
  """Whether the answer equals `problem.answer`, apart from white space.

  Use it for answers with one spelling only; "12.0" is not "12".

  Args:
    problem: a `Problem`; its data is not used.
    completion: the text that the policy wrote.

  Returns:
    `Verdict`; reason "correct", "wrong" or "no_answer".
  """
  text = final_answer(problem, completion)
  if text is None:
    return Verdict(False, 0.0, "no_answer")
  if text != _normal(problem.answer):
    return Verdict(False, 0.0, "wrong")
  return Verdict(True, 1.0, "correct")


def final_answer(problem: Problem, completion: str) -> str | None:
  """The text of the answer, for majority votes; or None."""
  return _normal(think_format.answer(completion) or "") or None


def _normal(text):
  # An accent may be a character of its own; both spellings look the same.
  return " ".join(characters.normalized(text, "NFC").split())


def check_problem(problem: Problem) -> None:
  """Raises a `BadProblem` if the answer is empty, since nothing equals it."""
  if not _normal(problem.answer):
    raise BadProblem(f"problem {problem.id}: the answer is empty")
