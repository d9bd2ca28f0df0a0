"""JSON lines: one object a line, so that a fault has a line number."""

import dataclasses
import json
import pathlib
from collections.abc import Iterator
from typing import Any

from r1jax.errors import UserError
from r1jax.types import Example, Problem

# What a line of a file of problems holds. The verifier comes from the config.
_TYPES = {
  field.name: dict if field.name == "data" else str
  for field in dataclasses.fields(Problem)
  if field.name != "verifier"
}


def read_jsonl(path: str | pathlib.Path) -> list[dict[str, Any]]:
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


def read_examples(path: str | pathlib.Path) -> list[Example]:
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


def read_problems(path: str | pathlib.Path) -> Iterator[tuple[str, Problem]]:
  """A file of problems, as they are; `problem_files.read` also judges them.

  Args:
    path: of a file with the fields of `Problem` but `verifier`. `id` is
      optional; `data` is an object, the other fields are text.

  Yields:
    (FILE:LINE, `Problem`).

  Raises:
    UserError: a line is broken, a field missing, or an id repeated; the
      message starts with FILE:LINE.
  """
  seen: dict[str, str] = {}
  for where, row in _numbered(path):
    row.setdefault("id", where.rsplit("/", 1)[-1])
    problem = Problem(**_fields(where, row, **_TYPES))
    if problem.id in seen:
      raise UserError(
        f'{where}: the id "{problem.id}" is also at {seen[problem.id]}'
      )
    seen[problem.id] = where
    yield where, problem


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
