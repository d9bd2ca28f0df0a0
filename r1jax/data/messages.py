"""Messages of a conversation, in the layouts that data sets have."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from r1jax.errors import UserError

# Names of roles in ShareGPT's layout -> in the usual one.
_ROLES = {"human": "user", "gpt": "assistant"}


class Turns(NamedTuple):
  """A conversation up to a question.

  Attributes:
    question: text of the last turn of the user.
    before: the messages before it.
    reply: text of the assistant's turn after it, or None.
  """

  question: str
  before: tuple[Mapping[str, Any], ...] = ()
  reply: str | None = None


def conversation(value: Any, name: str = "messages") -> Turns:
  """A list of messages up to the last turn of the user.

  Args:
    value: list of {"role", "content"}, or of ShareGPT's {"from", "value"}, or
      an object of two lists.
    name: of the column.

  Raises:
    UserError: it is no conversation with a turn of the user.
  """
  messages = [_message(m, i, name) for i, m in enumerate(_listed(value))]
  users = [i for i, m in enumerate(messages) if m["role"] == "user"]
  if not users:
    raise UserError(f'"{name}" has no turn of the user')
  last = users[-1]
  after = messages[last + 1 :]
  reply = after[0] if after and after[0]["role"] == "assistant" else None
  return Turns(
    messages[last]["content"],
    tuple(messages[:last]),
    reply["content"] if reply else None,
  )


def _listed(value):
  """A list of messages; TFDS and old sets keep an object of lists."""
  if isinstance(value, Mapping):
    lists = list(value.values())
    if not all(isinstance(x, list) for x in lists):
      return [value]
    return [dict(zip(value, group)) for group in zip(*lists)]
  return value


def _message(message, i, name):
  if not isinstance(message, Mapping):
    raise UserError(
      f'"{name}": message {i + 1} must be an object of role and content, not'
      f" {type_name(message)}"
    )
  role = message.get("role", message.get("from"))
  content = message.get("content", message.get("value"))
  if isinstance(content, list):
    parts = [p.get("text") if isinstance(p, Mapping) else p for p in content]
    if not all(isinstance(p, str) for p in parts):
      raise UserError(f'"{name}": message {i + 1} has parts that are no text')
    content = "".join(parts)
  if not isinstance(role, str) or not isinstance(content, str):
    raise UserError(
      f'"{name}": message {i + 1} must have the keys role and content, both'
      f" text; it has: {', '.join(map(str, message)) or 'none'}"
    )
  return {"role": _ROLES.get(role, role), "content": content}


def type_name(value: Any) -> str:
  """The type of a value of JSON, for messages."""
  return "null" if value is None else type(value).__name__
