"""The exceptions that are the user's to mend."""


class UserError(ValueError):
  """Bad input: one line that names the culprit and the way out.

  The launcher prints it as `error: ...` and exits with status 2; a program
  that imports r1jax may catch it like any ValueError.
  """


class BadProblem(UserError):
  """A problem that no answer can be held against: its own answer is unreadable.

  An error where data are prepared; in training the sample is skipped.
  """
