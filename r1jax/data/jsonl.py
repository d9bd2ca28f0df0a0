"""JSON lines: one object a line, so that a fault has a line number."""

import dataclasses
import json
import pathlib

from r1jax import verifiers
from r1jax.errors import UserError
from r1jax.rewards import judges
from r1jax.text import think_format
from r1jax.types import Example, Problem
from r1jax.verifiers import language

# What a line of a file of problems holds. The verifier comes from the config.
_TYPES = {
  field.name: dict if field.name == "data" else str
  for field in dataclasses.fields(Problem)
  if field.name != "verifier"
}


def read_jsonl(path):
  """The objects of a file; blank lines are skipped.

  Args:
    path: of a UTF-8 file.

  Returns:
    list of dict.

  Raises:
    UserError: the file cannot be read, or a line of it is no JSON object;
      the message starts with FILE:LINE.
  """
  return [row for _, row in _numbered(path)]


def _numbered(path):
  """Yields (where, object), where being FILE:LINE."""
  try:
    data = pathlib.Path(path).read_bytes()
  except OSError as e:
    raise UserError(f"{path}: cannot be read: {e.strerror}") from None
  # Not splitlines(): U+2028 and its like may stand inside a JSON string.
  for number, line in enumerate(data.split(b"\n"), 1):
    where = f"{path}:{number}"
    if not line.strip():
      continue
    try:
      row = json.loads(line.decode("utf-8-sig" if number == 1 else "utf-8"))
    except json.JSONDecodeError as e:
      raise UserError(
        f"{where}: broken line, not JSON: {e.msg} at column {e.colno}; mend"
        " or delete the line"
      ) from None
    except UnicodeDecodeError as e:
      raise UserError(
        f"{where}: broken line, not UTF-8: byte {e.start + 1} of the line;"
        " save the file as UTF-8"
      ) from None
    except RecursionError:
      raise UserError(f"{where}: broken line, nested too deep") from None
    if not isinstance(row, dict):
      raise UserError(
        f"{where}: broken line, a JSON object was expected, not"
        f" {type(row).__name__}"
      )
    yield where, row


def read_examples(path):
  """A file of SFT pairs: the fields `prompt` and `completion`, both text.

  Args:
    path: of the file; other fields are ignored.

  Returns:
    list of `Example`.

  Raises:
    UserError: a line is broken or a field missing; names FILE:LINE.
  """
  return [
    Example(**_fields(where, row, prompt=str, completion=str))
    for where, row in _numbered(path)
  ]


def read_problems(path, kinds=None):
  """A file of problems of one's own, each checked by its verifier.

  Args:
    path: of a file with the fields of `Problem` but `verifier`. `id` is
      optional; `data` is an object, the other fields are text.
    kinds: kind as written in the file -> what names its verifier, as
      "package.module:function"; see `verifiers.find`.

  Returns:
    list of `Problem`.

  Raises:
    UserError: a line is broken, a field missing, an id repeated, a kind
      unknown, or an answer wrong to the verifier; names FILE:LINE.
  """
  for kind, own in (kinds or {}).items():
    if not verifiers.is_name(own):
      raise UserError(
        f'task.kinds: the verifier of "{kind}" must be named as'
        f' "package.module:function", not "{own}"'
      )
  problems, seen = [], {}
  for where, row in _numbered(path):
    row.setdefault("id", where.rsplit("/", 1)[-1])
    problem = Problem(**_fields(where, row, **_TYPES))
    if problem.id in seen:
      raise UserError(
        f'{where}: the id "{problem.id}" is also at {seen[problem.id]}'
      )
    seen[problem.id] = where
    own = (kinds or {}).get(problem.kind, "")
    if not own and ":" in problem.kind:
      own = problem.kind
    problem = dataclasses.replace(problem, verifier=own)
    _check(where, problem)
    problems.append(problem)
  return problems


def _fields(where, row, **types):
  for name, kind in types.items():
    if name not in row:
      raise UserError(f'{where}: the field "{name}" is missing')
    if not isinstance(row[name], kind):
      raise UserError(
        f'{where}: the field "{name}" must be'
        f" {'text' if kind is str else 'an object'}, not"
        f" {type(row[name]).__name__}"
      )
  return {name: row[name] for name in types}


def _check(where, problem):
  """Lets the verifier judge the file's own answer, if any: it must pass."""
  try:
    language.check_language(problem.language)
    verifiers.check_problem(problem)
    if not problem.answer or verifiers.name_of(problem) == "open":
      return  # to be judged by tests, or by none
    completion = think_format.compose("", problem.answer)
    if problem.verifier:
      # It may do anything, as in training: it does so elsewhere.
      verdict = judges.shared().submit(problem, completion).result()
    else:
      verdict = verifiers.verify(problem, completion)
  except UserError as e:
    raise UserError(f"{where}: {e}") from None
  except (KeyError, TypeError) as e:
    # What the verifier looked for in `data` and did not find.
    raise UserError(
      f'{where}: "data" does not suit the kind "{problem.kind}":'
      f" {type(e).__name__} {e}"
    ) from None
  if not verdict.correct:
    raise UserError(
      f'{where}: the verifier of "{problem.kind}" finds the answer'
      f' "{problem.answer}" {verdict.reason}, when a completion ends in'
      f' "{think_format.ANSWER} {problem.answer} {think_format.END_ANSWER}";'
      " mend the answer, the data or the verifier, or leave the answer empty"
      " and it is not tried"
    )
