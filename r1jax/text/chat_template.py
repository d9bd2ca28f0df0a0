"""Chat templates: messages to the text that a model was trained on."""

from collections.abc import Mapping, Sequence
from typing import Any

from r1jax.errors import UserError
from r1jax.text import template_process, think_format

# R1's own template ends with this, so that no reply leaves the thinking out.
PREFILL = f"{think_format.THINK}\n"
# Variables that `render` gives a template; no argument can be called so.
RESERVED = ("messages", "add_generation_prompt")


class ChatTemplate:
  """A Jinja2 chat template with the special tokens of its tokenizer.

  Args:
    source: text of the template.
    special: dict from names such as "bos_token" to texts, for the template.
    arguments: its other variables, such as `enable_thinking`, of plain JSON.
      `tools` and `documents` are None where they are not given.

  Raises:
    UserError: the text is not a template.
  """

  def __init__(
    self,
    source: str,
    special: Mapping[str, str] | None = None,
    arguments: Mapping[str, Any] | None = None,
  ) -> None:
    if not isinstance(source, str):
      raise UserError(f"chat template: text was expected, not {source!r:.60}")
    self._source = source
    absent = {"tools": None, "documents": None}
    self._variables = {**absent, **(special or {}), **(arguments or {})}
    template_process.render(source, None)

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
      UserError: the template raises, for instance for an unknown role; it
        exceeds a limit; or it closes the thinking that `think` opens.
    """
    given = dict(messages=list(messages), add_generation_prompt=generate)
    text = template_process.render(
      self._source, {**self._variables, **variables, **given}
    )
    if think and text.rstrip().endswith(think_format.END_THINK):
      raise UserError(
        "chat template: it closes the thinking before the reply; ask for no"
        " thinking, or give it other arguments (enable_thinking=True)"
      )
    if think and not think_format.is_prefilled(text):
      text += PREFILL
    return text


def target(prompt: str, reply: str) -> str:
  """The part of a reply that is trained after a prompt.

  It is the whole reply with its thinking, but without what the prompt prefills:
  a tag, or all of a thinking that is closed already.

  Args:
    prompt: a rendered prompt.
    reply: text of the whole turn.

  Returns:
    str; prompt + target ends with the reply, up to white space at the tags.
  """
  begin, end = think_format.THINK, think_format.END_THINK
  thinks = reply.lstrip().startswith(begin)
  if think_format.is_prefilled(prompt) and thinks:
    return _follow(prompt, begin, reply.lstrip().removeprefix(begin))
  if prompt.rstrip().endswith(end) and thinks and end in reply:
    return _follow(prompt, end, reply.partition(end)[2])
  return reply


def _follow(prompt, tag, rest):
  """The rest of a reply after a tag, less the white space of the prompt."""
  gap = prompt[prompt.rindex(tag) + len(tag) :]
  return rest.removeprefix(gap) if rest.startswith(gap) else rest.lstrip()
