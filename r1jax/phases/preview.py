"""What is known of a run's data before the run begins."""

from pathlib import Path
from typing import Any

import numpy as np

from r1jax.errors import UserError
from r1jax.text import tokenizer as tokenizer_lib
from r1jax.types import Problem


class Preview:
  """Reads and makes data for checks, and writes nothing.

  Args:
    root: Path of the directory of the run.

  Attributes:
    earlier: dict from the name of each phase before the one that is checked
      to its config.
  """

  def __init__(self, root: Path):
    self.earlier: dict[str, Any] = {}
    self._root = root
    self._sets: dict[str, dict[str, Any]] = {}
    self._longest: dict[tuple, tuple[int, str]] = {}

  def problems(
    self, config: Any, split: str, count: int | None = None
  ) -> list[Problem]:
    """The problems of a phase.

    Args:
      config: of the phase.
      split: of its task, "train" or "test".
      count: only so many problems, from the first; None: all.

    Returns:
      list of `Problem`.

    Raises:
      UserError: there is none.
    """
    key = self._key(config)
    if key not in self._sets:
      tokenizer = tokenizer_lib.load(config.tokenizer)
      self._sets[key] = config.task.load(self._root, tokenizer, write=False)
    problems = self._sets[key][split][:count]
    if not problems:
      raise UserError(
        f"task.{split} has no problems; set task.{split} to a file of problems"
      )
    return problems

  def longest_prompt(
    self, config: Any, split: str, count: int | None = None
  ) -> tuple[int, str]:
    """Tokens of the longest prompt of a phase.

    Args:
      config, split, count: as for `problems`.

    Returns:
      int, and the id of its problem.
    """
    key = (self._key(config), split, count)
    if key not in self._longest:
      problems = self.problems(config, split, count)
      tokenizer = tokenizer_lib.load(config.tokenizer)
      lengths = [len(tokenizer.encode(p.prompt)) for p in problems]
      for problem, length in zip(problems, lengths):
        if not problem.prompt or not length:
          raise UserError(
            f"task.{split}: the prompt of problem {problem.id} is empty"
          )
      at = int(np.argmax(lengths))
      self._longest[key] = lengths[at], problems[at].id
    return self._longest[key]

  def _key(self, config):
    return repr((config.task, config.tokenizer))
