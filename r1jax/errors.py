"""Errors that the user can fix."""

import difflib
from collections.abc import Iterable


class UserError(ValueError):
  """Bad input: one line that names the culprit and the way out.

  The launcher prints `error: ...` and exits with status 2. A program that
  imports r1jax may catch it like any ValueError.
  """


class BadProblem(UserError):
  """A problem that nobody can judge, since its own answer is unreadable.

  It stops the preparation of data. Training skips the problem's group.
  """


def nearest(name: object, known: Iterable[str]) -> str | None:
  """The one of `known` that a misspelt name most resembles, or None."""
  close = difflib.get_close_matches(str(name), known, 1)
  return close[0] if close else None
