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

# DeepSeek-R1 v2, table 1: the template of R1-Zero, for base models.
R1_ZERO = (
  "A conversation between User and Assistant. The user asks a question, and"
  " the Assistant solves it. The assistant first thinks about the reasoning"
  " process in the mind and then provides the user with the answer. The"
  " reasoning process and answer are enclosed within <think>...</think> and"
  " <answer>...</answer> tags, respectively, i.e., <think> reasoning process"
  " here </think> <answer> answer here </answer>. User: {question}."
  " Assistant:"
)

# What R1's own template ends with, so that no reply leaves the thinking out.
THINK = "<think>\n"


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
    if think and not text.rstrip().endswith("<think>"):
      text += THINK
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
  if prompt.endswith(THINK) and reply.startswith(THINK):
    return reply[len(THINK) :]
  return reply


def r1_zero(question):
  """The prompt of a base model (DeepSeek-R1 v2, table 1)."""
  return R1_ZERO.format(question=question)


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
