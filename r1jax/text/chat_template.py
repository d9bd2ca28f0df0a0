"""Chat templates: messages to the text that a model was trained on.

Rendered as `transformers` renders them: Jinja2 in its immutable sandbox, since
a template comes with the weights and is nobody's trusted code.
"""

import datetime
import json

import jinja2
from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

from r1jax.errors import UserError
from r1jax.text import think_format

# R1's own template ends with this, so that no reply leaves the thinking out.
PREFILL = f"{think_format.THINK}\n"


class ChatTemplate:
  """A Jinja2 chat template with its tokenizer's special tokens.

  Args:
    source: the template's text.
    special: name ("bos_token", ...) -> text, as templates refer to them.

  Raises:
    UserError: the text is no template.
  """

  def __init__(self, source, special=None):
    self._special = dict(special or {})
    try:
      self._template = _environment().from_string(source)
    except jinja2.TemplateError as e:
      raise UserError(f"chat template: {e}") from None

  def render(self, messages, *, generate=True, think=False, **variables):
    """The text of a conversation.

    Args:
      messages: list of dicts with "role" and "content".
      generate: whether the assistant's turn is opened at the end.
      think: whether `<think>\\n` is prefilled; nothing is added where the
        template does so itself.
      **variables: for the template, such as `tools`.

    Returns:
      str. What is prefilled belongs to the prompt and is never trained.

    Raises:
      UserError: the template raises, as it may for roles it does not know.
    """
    try:
      text = self._template.render(
        messages=messages,
        add_generation_prompt=generate,
        **self._special,
        **variables,
      )
    except Exception as e:  # a template can raise whatever Python can
      raise UserError(f"chat template: {type(e).__name__}: {e}") from None
    if think and not think_format.is_prefilled(text):
      text += PREFILL
    return text


def target(prompt, reply):
  """What of a reply is to be learned after a prompt.

  All of it, its thinking too, which templates strip from turns of the past
  only; but what the prompt prefills was not written by the policy.

  Args:
    prompt: a rendered one. reply: the whole turn.

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
