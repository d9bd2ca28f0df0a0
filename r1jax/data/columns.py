"""From the columns of a row to the fields of a problem or an example."""

import dataclasses
import math
import re
from collections.abc import Collection, Mapping, Sequence
from decimal import Decimal
from typing import Any

from r1jax.data import golds, jsonl, messages
from r1jax.data.rows import Row
from r1jax.errors import UserError, nearest

# What a map of columns may name, besides "data.NAME".
FIELDS = ("prompt", "answer", "kind", "id", "language", "data", "completion")
# Columns that often hold a field, for the way out of an error.
_USUAL = {
  "prompt": (
    "question", "problem", "query", "instruction", "input", "text",
    "question_content", "conversations",
  ),
  "answer": (
    "solution", "final_answer", "gold", "target", "label", "ground_truth",
    "expected_answer", "output",
  ),
  "completion": ("response", "output", "answer", "generation", "solution"),
}  # fmt: skip
_ABSENT = object()
# Levels of lists and objects in a value; deeper ones cannot be sent to judges.
DEPTH = 100


class NoColumn(UserError):
  """A row lacks a column that is needed.

  Args:
    what: the message.
    column: the column.
  """

  def __init__(self, what: str, column: str) -> None:
    super().__init__(what)
    self.column = column


@dataclasses.dataclass(frozen=True)
class Columns:
  """Reads fields from rows.

  Attributes:
    fields: field -> column, a dotted path inside one, or "" for none.
    gold: where in the column of the answer the answer is.
  """

  fields: Mapping[str, str] = dataclasses.field(default_factory=dict)
  gold: golds.Gold = "plain"

  def needed(self) -> set[str]:
    """The names of the columns that may be read."""
    found = {"messages"}
    for field in FIELDS:
      column = self.fields.get(field, field)
      found |= {column, column.partition(".")[0]}
    for column in self.fields.values():
      found |= {column, column.partition(".")[0]}
    return found - {""}

  def get(self, row: Row, field: str, required: bool = False) -> Any:
    """The value of a field; None if its column is absent or empty.

    Args:
      row: a `Row`.
      field: one of `FIELDS`.
      required: whether the column must be there even if no key names it.

    Raises:
      NoColumn: the column is not there.
    """
    column = self.fields.get(field, field)
    if not column:
      return None
    value = at(row.values, column)
    if value is _ABSENT:
      if required or (field in self.fields and column not in row.columns):
        raise _no_column(row, field, column)
      return None
    return value

  def text(self, row: Row, field: str) -> str:
    """A field as text; "" if its column is absent or empty."""
    value = self.get(row, field)
    return "" if value is None else as_text(value, self.name(field))

  def turns(self, row: Row, empty: bool = False) -> messages.Turns:
    """The question of a row, with the turns before it.

    Args:
      row: a `Row`.
      empty: whether the question may be empty.

    Raises:
      NoColumn: there is no column of prompts or messages.
      UserError: there is no question in it.
    """
    field = "prompt"
    if "prompt" not in self.fields and "prompt" not in row.columns:
      field = "messages" if "messages" in row.columns else "prompt"
    value = (
      row.values.get("messages")
      if field == "messages"
      else self.get(row, "prompt", required=True)
    )
    name = field if field == "messages" else self.name("prompt")
    if isinstance(value, str):
      found = messages.Turns(value)
    elif isinstance(value, list | Mapping):
      found = messages.conversation(value, name)
    else:
      raise UserError(
        f'the prompt ("{name}") must be text or a list of messages, not'
        f" {messages.type_name(value)}"
      )
    if not empty and not found.question.strip():
      raise UserError(f'the prompt ("{name}") is empty')
    return found

  def answer(self, row: Row) -> str:
    """The answer of a row; "" if there is none."""
    value = self.get(row, "answer")
    if value is None:
      return ""
    text = as_text(value, self.name("answer"))
    return golds.answer(text, self.gold) if text.strip() else ""

  def data(self, row: Row) -> dict[str, Any]:
    """What the verifier needs besides the answer."""
    value = self.get(row, "data")
    if isinstance(value, str) and value.strip():
      value = jsonl.loads(value)
    if value is None or value == "":
      value = {}
    if not isinstance(value, Mapping):
      raise UserError(
        f'the field "data" ("{self.name("data")}") must be an object, not'
        f' {messages.type_name(value)}; fields=dict(data="") reads none'
      )
    found = dict(value)
    for field in self.fields:
      if field.startswith("data."):
        inner = self.get(row, field)
        if inner is not None:
          found[field.partition(".")[2]] = inner
    return found

  def name(self, field: str) -> str:
    """The column of a field, for messages."""
    return self.fields.get(field, field)


def check_fields(fields: Mapping[str, str]) -> None:
  """Raises a `UserError` if a map of columns names an unknown field."""
  for field in fields:
    if field not in FIELDS and not re.fullmatch(r"data\.\w+", field):
      close = nearest(field, FIELDS)
      raise UserError(
        f"fields.{field} is no field;"
        + (f' did you mean "{close}"?' if close else "")
        + f" known: {', '.join(FIELDS)}, data.NAME"
      )


def at(values: Mapping[str, Any], path: str) -> Any:
  """The value at a dotted path, or `_ABSENT`.

  Args:
    values: of a row.
    path: the name of a column, or "column.key.0": keys of objects and numbers
      of lists. The longest name that is a column wins.
  """
  if path in values:
    return values[path]
  found: Any = values
  for name in path.split("."):
    if isinstance(found, str) and found.lstrip()[:1] in ("{", "["):
      found = jsonl.loads(found)  # many sets keep objects as text
    if isinstance(found, Mapping) and name in found:
      found = found[name]
    elif isinstance(found, list) and re.fullmatch("[0-9]{1,9}", name):
      if int(name) >= len(found):
        return _ABSENT
      found = found[int(name)]
    else:
      return _ABSENT
  return found


def has(values: Mapping[str, Any], path: str) -> bool:
  """Whether there is a value at a dotted path, as `at` reads it."""
  return at(values, path) is not _ABSENT


def as_text(value: Any, name: str) -> str:
  """Text, a number or a truth value as text.

  Args:
    value: of a row.
    name: of its column.

  Raises:
    UserError: it is none of them, or not finite.
  """
  if isinstance(value, str):
    return value
  if isinstance(value, bool):
    return "true" if value else "false"
  if isinstance(value, int):
    return str(value)
  if isinstance(value, float):
    if not math.isfinite(value):
      raise UserError(f'"{name}" is {value}, which is no number')
    # Columns of whole numbers with a gap become 42.0 in many tables.
    text = format(Decimal(repr(value)), "f")
    return text[:-2] if text.endswith(".0") else text
  hint = ""
  if isinstance(value, list) and len(value) == 1:
    hint = f'; "{name}.0" is its only item'
  elif isinstance(value, Mapping) and value:
    hint = f'; "{name}.{next(iter(value))}" is an item of it'
  raise UserError(
    f'"{name}" must be text or a number, not {messages.type_name(value)}{hint}'
  )


def _no_column(row, field, column):
  found: Sequence[str] = row.columns
  way = ""
  close = nearest(column, found)
  usual = [n for n in _USUAL.get(field, ()) if n in found]
  if close and (column != field or not usual):
    way = f'; did you mean "{close}"?'
  elif usual:
    way = f'; fields=dict({field}="{usual[0]}") reads "{usual[0]}"'
  elif field in ("prompt", "answer"):
    way = f'; fields=dict({field}="NAME") names the column'
  return NoColumn(
    f'the field "{field}" is missing: there is no column "{column}"; columns:'
    f" {', '.join(map(str, found)) or 'none'}{way}",
    column,
  )


def unsound(value: Any) -> str | None:
  """What makes a value unfit for a problem, or None.

  Args:
    value: of the types of JSON.
  """
  stack: list[tuple[Any, int]] = [(value, 0)]
  while stack:
    value, depth = stack.pop()
    if depth > DEPTH:
      return f"more than {DEPTH} levels of lists and objects"
    if isinstance(value, str):
      try:
        value.encode()
      except UnicodeEncodeError as e:
        return (
          f"half of a surrogate pair at character {e.start + 1} of the text,"
          " which no tokenizer can read"
        )
    elif isinstance(value, float):
      if not math.isfinite(value):
        return f"{value} is no number of JSON"
    elif isinstance(value, Mapping):
      stack += [(v, depth + 1) for v in (*value, *value.values())]
    elif isinstance(value, Collection):
      stack += [(v, depth + 1) for v in value]
    elif value is not None and not isinstance(value, int):
      return f"a value of type {type(value).__name__} is no JSON"
  return None
