"""Chat templates: messages to the text that a model was trained on.

They are rendered as in `transformers`, with Jinja2 in its immutable sandbox: a
template comes with the weights, and its code is not trusted.
"""

import datetime
import json
from collections.abc import Mapping, Sequence
from typing import Any

import jinja2
from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

from r1jax.errors import UserError
from r1jax.text import think_format

# R1's own template ends with this, so that no reply leaves the thinking out.
PREFILL = f"{think_format.THINK}\n"


class ChatTemplate:
  """A Jinja2 chat template with the special tokens of its tokenizer.

  Args:
    source: text of the template.
    special: dict from names such as "bos_token" to texts, for the template.

  Raises:
    UserError: the text is not a template.
  """

  def __init__(self, source: str, special: Mapping[str, str] | None = None):
    self._special = dict(special or {})
    try:
      self._template = _environment().from_string(source)
    except jinja2.TemplateError as e:
      raise UserError(f"chat template: {e}") from None

  def render(
    self,
    messages: Sequence[Mapping[str, Any]],
    *,
    generate: bool = True,
    think: bool = False,
    **variables: Any,
  ) -> str:
    """The text of a conversation.

    Args:
      messages: list of dicts with "role" and "content".
      generate: whether to open the assistant's turn at the end.
      think: whether to prefill `<think>\\n`, unless the template does so.
      **variables: variables of the template, such as `tools`.

    Returns:
      str. A prefilled tag belongs to the prompt and is never trained.

    Raises:
      UserError: the template raises, for instance for an unknown role.
    """
    try:
      text = self._template.render(
        messages=messages,
        add_generation_prompt=generate,
        **self._special,
        **variables,
      )
    except Exception as e:  # a template can raise anything
      raise UserError(f"chat template: {type(e).__name__}: {e}") from None
    if think and not think_format.is_prefilled(text):
      text += PREFILL
    return text


def target(prompt: str, reply: str) -> str:
  """The part of a reply that is trained after a prompt.

  It is the whole reply with its thinking, but without a tag that the prompt
  prefills.

  Args:
    prompt: a rendered prompt.
    reply: text of the whole turn.

  Returns:
    str; prompt + target ends with the reply.
  """
  if prompt.endswith(PREFILL) and reply.startswith(PREFILL):
    return reply[len(PREFILL) :]
  return reply


def _environment():
  environment = ImmutableSandboxedEnvironment(
    trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols]
  )
  environment.filters["tojson"] = _tojson
  environment.globals["raise_exception"] = _raise
  environment.globals["strftime_now"] = lambda form: (
    datetime.datetime.now().strftime(form)
  )
  return environment


def _tojson(
  x, ensure_ascii=False, indent=None, separators=None, sort_keys=False
):
  # Not Jinja's own filter, which escapes for HTML.
  return json.dumps(
    x,
    ensure_ascii=ensure_ascii,
    indent=indent,
    separators=separators,
    sort_keys=sort_keys,
  )


def _raise(message):
  raise jinja2.TemplateError(message)
