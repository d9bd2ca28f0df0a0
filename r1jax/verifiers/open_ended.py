"""Questions that have no right answer: form and reward models alone pay."""

from r1jax.types import Verdict


def verify(problem, completion):
  """Never correct; reason "open"."""
  return Verdict(False, 0.0, "open")
