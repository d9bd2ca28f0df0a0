"""Problems of your own, from files, each judged before it is used."""

import dataclasses
import glob
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from r1jax import checks, verifiers
from r1jax.data import columns, formats, layouts
from r1jax.data.golds import Gold
from r1jax.data.order import ProblemList
from r1jax.data.questions import Question, Reader
from r1jax.data.task import Problems, Task
from r1jax.errors import UserError
from r1jax.text import prompts
from r1jax.text.tokenizer import Tokenizer
from r1jax.types import Problem
from r1jax.verifiers import language as language_lib

# Files whose problems are kept; the phases of a run share them.
_KEPT = 8
_READ: dict[tuple, list[Question]] = {}
# Pairs of files whose shared problems were counted; it is said once.
_COMPARED: set[tuple] = set()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Files(Task):
  """Problems of files: JSON, Parquet, CSV, Hugging Face, TFDS."""

  kind: Literal["files"] = "files"
  # File or directory of the problems to train on; DIR:SPLIT names a split.
  train: str = ""
  # File or directory of the held-out problems; DIR:SPLIT names a split.
  test: str = ""
  # How a question becomes a prompt: as it is ("none"), by the paper's template
  # for base models ("r1_zero"), by the tokenizer's chat template ("chat"), or
  # by that with the opening think tag prefilled ("chat_think").
  template: prompts.Template = "none"
  # Text that follows each question after a blank line, such as how the answer
  # is to be written; "" for none. Of messages, the last turn of the user gets
  # it.
  instruction: str = ""
  # Field of a problem -> the column that has it, or a dotted path inside one;
  # "" for none. The fields are prompt, answer, kind, id, language, data,
  # data.NAME and, for examples, completion.
  fields: Mapping[str, str] = dataclasses.field(default_factory=dict)
  # Where in its column the answer is: the whole text ("plain"), after the last
  # "####" ("after_hashes"), or in the last box of LaTeX ("boxed").
  gold: Gold = "plain"
  # Layout of a known benchmark, or "package.module:function" of your own, a
  # function from a row to the fields of a problem; "" for none.
  layout: str = ""
  # Kind of all problems of the files, which then need no column of kinds.
  verifier: str = ""
  # ISO 639-1 code of questions whose row has none; "" goes by their letters.
  language: str = ""
  # What the `data` of each problem holds where its row does not say it, such as
  # dict(packages=["numpy"]) for programs.
  shared_data: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  # Most problems of a file whose own answers are judged before the run, spread
  # evenly over the file; None judges all.
  golds: int | None = None
  # What rows with faults lead to: an error ("stop"), or they are left out,
  # which is said ("leave_out").
  faults: Literal["stop", "leave_out"] = "stop"
  # Kind of problem -> "package.module:function", a verifier of your own.
  kinds: Mapping[str, str] = dataclasses.field(default_factory=dict)

  def __post_init__(self):
    checks.types(self)
    checks.at_least(self, 1, "golds")
    check_kinds(self.kinds)
    columns.check_fields(self.fields)
    if fault := columns.unsound(self.instruction):
      raise UserError(f"instruction has {fault}")
    layouts.check_name(self.layout)
    if self.language:
      language_lib.check_language(self.language)
    known = not self.verifier or verifiers.is_name(self.verifier)
    if not known and self.verifier not in self.kinds:
      raise UserError(
        f'verifier="{self.verifier}" is unknown; known:'
        f" {', '.join(verifiers.MODULES)}, those of kinds, and"
        ' "package.module:function"'
      )
    for key in ("fields", "verifier") if self.layout else ():
      if getattr(self, key):
        raise UserError(
          f'{key} and layout="{self.layout}" exclude each other; a layout'
          f" says the {key} itself"
        )
    if self.verifier and "kind" in self.fields:
      raise UserError(
        f'verifier="{self.verifier}" and fields.kind exclude each other'
      )

  def load(
    self, root: Path, tokenizer: Tokenizer, write: bool = True
  ) -> dict[str, Problems]:
    """As `Task.load`; a file that no key names has no problems."""
    render = prompts.renderer(self.template, tokenizer)
    sets: dict[str, Problems] = {}
    for split in ("train", "test"):
      try:
        found = self.questions(split)
        self._check_apart(split, found)
        sets[split] = ProblemList(
          _rendered(q, render, self.instruction) for q in found
        )
      except UserError as e:
        raise UserError(f"task.{split}: {e}") from None
    self._say_shared()
    return sets

  def _say_shared(self):
    """Says once how many problems of the test set are trained on, too."""
    key = (self.train, self.test, _version(self.train), _version(self.test))
    if not self.train or not self.test or key in _COMPARED:
      return
    _COMPARED.add(key)
    tests = [_asked(q) for q in self.questions("test")]
    shared = set(tests).intersection(map(_asked, self.questions("train")))
    if count := sum(asked in shared for asked in tests):
      print(
        f"warning: {count} of {len(tests)} problems of task.test={self.test}"
        f" are in task.train={self.train} too: the evaluation will look too"
        " good",
        file=sys.stderr,
      )

  def _check_apart(self, split, found):
    """Raises a `UserError` if one split of a directory is both of a task's."""
    if split == "test" and found and self.train == self.test:
      same = found[0].where == self.questions("train")[0].where
      if same and Path(self.test).is_dir():
        raise UserError(
          f"{self.test} has one split only, which task.train reads too; name"
          " another directory or split"
        )

  def questions(self, split: str) -> list[Question]:
    """The problems of a split, read once for all phases of a run.

    Args:
      split: "train" or "test".

    Returns:
      list of `Question`; empty if no key names a file.

    Raises:
      UserError: with a line for each fault.
    """
    path = getattr(self, split)
    if not path:
      return []
    keys = dataclasses.replace(
      self, train="", test="", template="none", instruction=""
    )
    key = (path, split, repr(keys), _version(path))
    if key not in _READ:
      found = self.reader().read(path, split)
      while len(_READ) >= _KEPT:
        del _READ[next(iter(_READ))]
      _READ[key] = found
    return _READ[key]

  def reader(self) -> Reader:
    """How rows become problems."""
    return Reader(
      columns=columns.Columns(self.fields, self.gold),
      layout=layouts.find(self.layout) if self.layout else None,
      verifier=self.verifier,
      language=self.language,
      kinds=self.kinds,
      shared_data=self.shared_data,
      most=self.golds,
      lenient=self.faults == "leave_out",
    )


def _asked(question):
  """What a question asks, however its words are spaced."""
  return " ".join(question.problem.prompt.split()), repr(question.before)


def _rendered(question, render, instruction):
  """The problem of a question with its prompt."""
  where, problem, before = question
  text = problem.prompt
  if instruction:
    text = f"{text}\n\n{instruction}"
  try:
    prompt = render(text, before)
  except UserError as e:
    raise UserError(f"{where}: {e}") from None
  return dataclasses.replace(problem, prompt=prompt)


def _version(path):
  """What changes when a file, or a file of a directory, is written."""
  place = Path(formats.split_of(path)[0])
  if place.is_dir():
    files = sorted(map(str, place.rglob("*")))
  else:
    files = sorted(glob.glob(path, recursive=True)) or [path]
  try:
    stats = [os.stat(file) for file in files]
  except OSError:
    return None
  return tuple((s.st_mtime_ns, s.st_size) for s in stats)


def check_kinds(kinds: Mapping[str, str]) -> None:
  """Raises `UserError` where `kinds` names no verifier."""
  for kind, own in kinds.items():
    if not verifiers.is_name(own):
      raise UserError(
        f'kinds.{kind}="{own}" must name a verifier as'
        ' "package.module:function"'
      )


def read(
  path: str | Path, kinds: Mapping[str, str] | None = None, **keys: Any
) -> list[Problem]:
  """A file of problems, each judged by its verifier.

  Args:
    path: of a file or directory, as `formats.read` takes it.
    kinds: kind as written in the file -> the name of its verifier, as
      "package.module:function"; see `verifiers.find`.
    **keys: other keys of `Files`, such as `fields` and `verifier`.

  Returns:
    list of `Problem`; the prompt is the bare question.

  Raises:
    UserError: rows are broken, a kind is unknown, or a verifier finds a
      problem's own answer wrong. Each line of the message names FILE:LINE.
  """
  task = Files(kinds=kinds or {}, **keys)
  return [question.problem for question in task.reader().read(str(path))]
