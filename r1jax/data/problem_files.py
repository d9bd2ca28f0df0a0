"""Problems of your own, from JSONL files, each judged before it is used."""

import dataclasses
import functools
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from r1jax import verifiers
from r1jax.data import jsonl
from r1jax.data.order import ProblemList
from r1jax.data.task import Problems, Task
from r1jax.errors import UserError
from r1jax.rewards import judges
from r1jax.text import prompts, think_format
from r1jax.text.tokenizer import Tokenizer
from r1jax.types import Problem
from r1jax.verifiers import language


@dataclasses.dataclass(frozen=True, kw_only=True)
class Files(Task):
  """Problems of JSONL files."""

  kind: Literal["files"] = "files"
  # Path of the file of problems to train on.
  train: str = ""
  # Path of the file of held-out problems.
  test: str = ""
  # How a question becomes a prompt: as it is ("none"), by the paper's template
  # for base models ("r1_zero"), by the tokenizer's chat template ("chat"), or
  # by that with the opening think tag prefilled ("chat_think").
  template: prompts.Template = "none"
  # Kind of problem -> "package.module:function", a verifier of your own.
  kinds: Mapping[str, str] = dataclasses.field(default_factory=dict)

  def __post_init__(self):
    check_kinds(self.kinds)

  def load(
    self, root: Path, tokenizer: Tokenizer, write: bool = True
  ) -> dict[str, Problems]:
    """As `Task.load`; a file that no key names has no problems."""
    render = prompts.renderer(self.template, tokenizer)
    sets: dict[str, Problems] = {}
    for split, path in (("train", self.train), ("test", self.test)):
      try:
        found = read_once(path, self.kinds) if path else ()
      except UserError as e:
        raise UserError(f"task.{split}: {e}") from None
      sets[split] = ProblemList(
        dataclasses.replace(p, prompt=render(p.prompt)) for p in found
      )
    return sets


def check_kinds(kinds: Mapping[str, str]) -> None:
  """Raises `UserError` where `kinds` names no verifier."""
  for kind, own in kinds.items():
    if not verifiers.is_name(own):
      raise UserError(
        f'kinds.{kind}="{own}" must name a verifier as'
        ' "package.module:function"'
      )


def read(
  path: str | Path, kinds: Mapping[str, str] | None = None
) -> list[Problem]:
  """A file of problems, each judged by its verifier.

  Args:
    path: of the file; its fields are in `jsonl.read_problems`.
    kinds: kind as written in the file -> the name of its verifier, as
      "package.module:function"; see `verifiers.find`.

  Returns:
    list of `Problem`.

  Raises:
    UserError: a line is broken, a kind is unknown, or the verifier finds a
      problem's own answer wrong; the message names FILE:LINE.
  """
  check_kinds(kinds or {})
  problems = []
  for where, problem in jsonl.read_problems(path):
    own = (kinds or {}).get(problem.kind, "")
    if not own and ":" in problem.kind:
      own = problem.kind
    problem = dataclasses.replace(problem, verifier=own)
    _judge(where, problem)
    problems.append(problem)
  return problems


def read_once(path: str, kinds: Mapping[str, str]) -> list[Problem]:
  """As `read`; the phases of a run share what was read."""
  try:
    stat = os.stat(path)
  except OSError:
    return read(path, kinds)
  version = (stat.st_mtime_ns, stat.st_size)
  return _read(path, version, tuple(sorted(kinds.items())))


@functools.lru_cache(maxsize=8)
def _read(path, version, kinds):
  return read(path, dict(kinds))


def _judge(where, problem):
  """Raises `UserError` unless the verifier finds the file's own answer right.

  A problem without an answer is not tried.
  """
  try:
    language.check_language(problem.language)
    verifiers.check_problem(problem)
    if not problem.answer or verifiers.name_of(problem) == "open":
      return
    completion = think_format.compose("", problem.answer)
    if problem.verifier:
      # It may do anything, as in training: so it runs in another process.
      verdict = judges.shared().submit(problem, completion).result()
    else:
      verdict = verifiers.verify(problem, completion)
  except UserError as e:
    raise UserError(f"{where}: {e}") from None
  except (KeyError, TypeError) as e:
    # The verifier looked for something in `data` and did not find it.
    raise UserError(
      f'{where}: "data" does not suit the kind "{problem.kind}":'
      f" {type(e).__name__} {e}"
    ) from None
  if not verdict.correct:
    raise UserError(
      f'{where}: the verifier of "{problem.kind}" finds the answer'
      f' "{problem.answer}" {verdict.reason}, in a completion that ends with'
      f' "{think_format.ANSWER} {problem.answer} {think_format.END_ANSWER}";'
      " correct the answer, the data or the verifier, or leave the answer empty"
      " and it is not tried"
    )
