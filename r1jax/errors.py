"""The exceptions that are the user's to mend."""

import difflib


class UserError(ValueError):
  """Bad input: one line that names the culprit and the way out.

  The launcher prints it as `error: ...` and exits with status 2; a program
  that imports r1jax may catch it like any ValueError.
  """


class BadProblem(UserError):
  """A problem that no answer can be held against: its own answer is unreadable.

  An error where data are prepared; in training the sample is skipped.
  """


def nearest(name, known):
  """The one of `known` that a misspelt name most resembles, or None."""
  close = difflib.get_close_matches(str(name), known, 1)
  return close[0] if close else None
