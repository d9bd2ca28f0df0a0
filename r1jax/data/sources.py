"""The tasks that a config can name, and examples for SFT.

A source is a function of the step alone. So a phase that resumes needs no
cursor but its step.
"""

import random
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from r1jax.data import examples as examples_lib
from r1jax.data import formats
from r1jax.data.countdown import Countdown
from r1jax.data.gym import ReasoningGym
from r1jax.data.order import order
from r1jax.data.problem_files import Files
from r1jax.data.task import Task
from r1jax.errors import UserError
from r1jax.text import chat_template, prompts
from r1jax.text.tokenizer import Tokenizer
from r1jax.types import Example

# The key `kind` of a config selects the class.
Tasks = Countdown | ReasoningGym | Files


def read_examples(task: Task, path: str, tokenizer: Tokenizer) -> list[Example]:
  """The examples of a file, with the task's template around the prompts.

  Args:
    task: one of `Tasks`.
    path: of a file or directory, as `examples.read` takes it.
    tokenizer: a tokenizer, whose chat template the task may use.

  Returns:
    list of `Example`.
  """
  render = prompts.renderer(getattr(task, "template", "none"), tokenizer)
  found = []
  for where, turns, reply in examples_lib.read(
    path, getattr(task, "fields", {})
  ):
    try:
      prompt = render(turns.question, turns.before)
    except UserError as e:
      raise UserError(f"{where}: {e}") from None
    completion = chat_template.target(prompt, reply)
    found.append(Example(prompt, completion))
  return found


def is_file(task: Task, data: str) -> bool:
  """Whether `data` names a file or directory, and no source of the task."""
  return data not in task.makers() and formats.is_data(data)


def check_name(task: Task, data: str) -> None:
  """Raises `UserError` if `data` names no source of examples of this task."""
  known = list(task.makers())
  if data not in known:
    raise UserError(
      f'data="{data}" is neither a phase before this one, nor a file or'
      " directory of examples,"
      f" nor a source of the task {task.kind};"
      f" its sources: {', '.join(known) or 'none'}"
    )


def examples(
  config: Any, data: str | list[Example], root: Path, tokenizer: Tokenizer
) -> Callable[[int, int], list[Example]]:
  """A stream of examples: (step, n) -> list of n `Example`.

  Args:
    config: of the phase, with `name`, `seed` and `task`; phases of different
      names draw different synthetic examples.
    data: a list of `Example`; the path of a file or directory; or the name of
      a synthetic source of the task.
    root: Path of the directory of the run.
    tokenizer: a tokenizer, whose chat template the task may use.

  Raises:
    UserError: there is no such source, or it is empty.
  """
  if isinstance(data, str) and is_file(config.task, data):
    data = read_examples(config.task, data, tokenizer)
  if not isinstance(data, str):
    if not data:
      raise UserError(f"{config.name}.data has no examples to train on")
    return lambda step, n: [
      data[i] for i in order(len(data), step, n, config.seed)
    ]
  check_name(config.task, data)
  train = config.task.load(root, tokenizer)["train"][:]
  make = config.task.makers()[data]
  tag = zlib.crc32(config.name.encode())

  def stream(step, n):
    rng = random.Random(f"{config.seed}/{tag}/{step}")
    return [make(rng.choice(train), rng) for _ in range(n)]

  return stream
