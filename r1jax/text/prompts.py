"""Questions to prompts: the templates that a task's `template` can name."""

from collections.abc import Callable, Sequence
from typing import Any, Literal, get_args

from r1jax.errors import UserError
from r1jax.text import think_format
from r1jax.types import Problem

# "none": the question itself. "r1_zero": the paper's template for base models.
# "chat": the tokenizer's chat template. "chat_think": the chat template, with
# the opening think tag prefilled.
Template = Literal["none", "r1_zero", "chat", "chat_think"]
TEMPLATES = get_args(Template)
# DeepSeek-R1 v2, table 1: the template of R1-Zero.
_R1_ZERO = (
  "A conversation between User and Assistant. The user asks a question, and"
  " the Assistant solves it. The assistant first thinks about the reasoning"
  " process in the mind and then provides the user with the answer. The"
  " reasoning process and answer are enclosed within <think>...</think> and"
  " <answer>...</answer> tags, respectively, i.e., <think> reasoning process"
  " here </think> <answer> answer here </answer>. User: {question}."
  " Assistant:"
)


def r1_zero(question: str) -> str:
  """The prompt of a base model (DeepSeek-R1 v2, table 1)."""
  return _R1_ZERO.format(question=question)


def renderer(name: str, tokenizer: Any) -> Callable[..., str]:
  """The function that makes prompts of questions.

  Args:
    name: one of `TEMPLATES`.
    tokenizer: the tokenizer, whose chat template "chat" and "chat_think" use.

  Returns:
    (question, turns before it) -> the prompt. The turns are optional; they are
    messages as `ChatTemplate.render` takes them, see `solved_turns`.

  Raises:
    UserError: the name is unknown, or the tokenizer has no chat template.
  """
  if name not in TEMPLATES:
    raise UserError(
      f'task.template="{name}" is unknown; known: {", ".join(TEMPLATES)}'
    )
  if name.startswith("chat"):
    if not hasattr(tokenizer, "template"):
      raise UserError(
        f'task.template "{name}" needs a tokenizer with a chat template;'
        ' c.tokenizer = dict(kind="hf", path=DIR) brings one'
      )
    template = tokenizer.template()
    return lambda question, before=(): template.render(
      [*before, {"role": "user", "content": question}],
      think=name == "chat_think",
    )
  single = r1_zero if name == "r1_zero" else str

  def render(question, before=()):
    if before:
      raise UserError(
        'messages before the question need template="chat" or "chat_think";'
        f' or name the text alone, as in fields=dict(prompt="messages'
        f'.{len(before)}.content")'
      )
    return single(question)

  return render


def solved_turns(problems: Sequence[Problem]) -> list[dict[str, str]]:
  """Messages that show how problems are answered.

  Args:
    problems: `Problem`s with an answer each; their prompts are bare questions.

  Returns:
    list of messages, two for each problem.
  """
  turns = []
  for problem in problems:
    reply = think_format.compose(
      f"The answer is {problem.answer}.", problem.answer
    )
    turns.append({"role": "user", "content": problem.prompt})
    turns.append({"role": "assistant", "content": reply})
  return turns
