"""Questions without a right answer: only format and reward models pay."""

from r1jax.types import Problem, Verdict


def verify(problem: Problem, completion: str) -> Verdict:
  """A `Verdict` that is never correct; reason "open"."""
  return Verdict(False, 0.0, "open")
