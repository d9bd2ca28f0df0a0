"""Examples for supervised training, from files of any format."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from r1jax.data import columns, formats
from r1jax.data.messages import Turns
from r1jax.data.rows import Faults, Row
from r1jax.errors import UserError
from r1jax.types import Example


class Written(NamedTuple):
  """An example as its file has it.

  Attributes:
    where: its place in the file.
    turns: the question, and the messages before it.
    completion: the text to imitate.
  """

  where: str
  turns: Turns
  completion: str


def read(
  path: str | Path, fields: Mapping[str, str] | None = None
) -> list[Written]:
  """The examples of a file: a prompt and a completion, or messages.

  Args:
    path: of a file or directory, as `formats.read` takes it; other columns
      are ignored.
    fields: of "prompt" and "completion", the column that has it; where the
      file has no such column, that of the field's own name.

  Returns:
    list of `Written`.

  Raises:
    UserError: with a line for each fault; each names FILE:LINE.
  """
  faults, found = Faults(path), []
  given = {
    field: column
    for field, column in (fields or {}).items()
    if field in ("prompt", "completion")
  }
  needed = columns.Columns(given).needed() | {"prompt", "completion"}
  for row in formats.read(str(path), faults, needed, "train"):
    faults.rows += 1
    try:
      found.append(_example(row, given))
    except columns.NoColumn as e:
      faults.add(row.where, str(e), e.column)
    except UserError as e:
      faults.add(row.where, str(e))
  faults.check()
  return found


def _example(row: Row, given: Mapping[str, str]) -> Written:
  own = columns.Columns(
    {
      field: column
      for field, column in given.items()
      if columns.has(row.values, column)
    }
  )
  turns = own.turns(row, empty=True)
  completion = own.get(row, "completion")
  if completion is None:
    completion = turns.reply
  if completion is None:
    own.get(row, "completion", required=True)
  if not isinstance(completion, str):
    raise UserError(
      f'the field "completion" must be text, not {type(completion).__name__}'
    )
  for name, value in (
    ("prompt", turns.question),
    ("messages", turns.before),
    ("completion", completion),
  ):
    if fault := columns.unsound(value):
      raise UserError(f'the field "{name}" has {fault}')
  return Written(row.where, turns, completion)


def read_written(path: str | Path) -> list[Example]:
  """The examples that a phase of a run wrote, with their whole prompts.

  Args:
    path: of the file of JSON lines.

  Returns:
    list of `Example`.

  Raises:
    UserError: as `read`.
  """
  return [Example(e.turns.question, e.completion) for e in read(path)]
