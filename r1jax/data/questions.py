"""From the rows of a file to problems, each judged before it is used."""

import dataclasses
import functools
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from tqdm import tqdm

from r1jax import verifiers
from r1jax.data import columns, formats
from r1jax.data.rows import Faults, Row
from r1jax.errors import UserError
from r1jax.rewards import judges
from r1jax.text import think_format
from r1jax.types import Problem
from r1jax.verifiers import language as language_lib

# Kinds whose verifiers can judge nothing without an answer.
NEED_ANSWERS = ("choice", "exact", "math")
# Languages with a script of their own, of which one is guessed.
_SCRIPTS = ("en", "zh", "ja", "ko", "ru", "ar", "hi")
# Problems whose answers are judged at a time.
_WINDOW = 256


class Question(NamedTuple):
  """A problem and the messages that come before its question.

  Attributes:
    where: its place in the file.
    problem: its prompt is the bare question.
    before: messages as `ChatTemplate.render` takes them.
  """

  where: str
  problem: Problem
  before: tuple[Mapping[str, Any], ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reader:
  """How rows become problems.

  Attributes:
    columns: from columns to fields.
    layout: (values of a row) -> values of fields, or None to leave the row
      out; None keeps the rows as they are.
    verifier: kind of all problems; "" reads the kind of each.
    language: of questions whose row has none; "" goes by their letters.
    kinds: kind -> "package.module:function", a verifier of your own.
    shared_data: of problems whose own data does not say it.
    most: problems whose own answer is judged; None judges all.
    lenient: whether rows with faults are left out, which is said, instead of
      an error.
  """

  columns: columns.Columns
  layout: Callable[[dict[str, Any]], dict[str, Any] | None] | None = None
  verifier: str = ""
  language: str = ""
  kinds: Mapping[str, str] = dataclasses.field(default_factory=dict)
  shared_data: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  most: int | None = None
  lenient: bool = False

  def read(self, path: str, split: str = "") -> list[Question]:
    """The questions of a file, when all of them are known to be good.

    Args:
      path, split: as for `formats.read`.

    Returns:
      list of `Question`.

    Raises:
      UserError: with a line for each fault.
    """
    faults = Faults(path)
    found = list(self._questions(path, split, faults))
    bad = _judge(found, self.most, faults)
    if not self.lenient or faults.count == faults.rows:
      faults.check()
    faults.check_columns()
    if faults.count:
      print(
        f"{path}: {faults.count} of {faults.rows} rows are left out:\n"
        + faults.text(),
        file=sys.stderr,
      )
    return [q for q in found if q.where not in bad]

  def _questions(self, path, split, faults):
    seen: dict[str, str] = {}
    needed = None if self.layout else self.columns.needed()
    rows = formats.read(path, faults, needed, split)
    name = Path(path).name
    for row in tqdm(rows, desc=name, unit=" rows", disable=None, delay=2):
      faults.rows += 1
      try:
        question = self._question(row, seen)
      except columns.NoColumn as e:
        faults.add(row.where, str(e), e.column)
      except UserError as e:
        faults.add(row.where, str(e))
      except Exception as e:
        # A verifier looked for something in `data` and did not find it, or a
        # layout of the user's own has a fault.
        faults.add(
          row.where,
          f"the data of this row does not suit: {type(e).__name__} {e}",
        )
      else:
        if question is not None:
          yield question

  def _question(self, row, seen):
    """A row as a `Question`; None if the layout leaves it out."""
    if self.layout:
      try:
        values = self.layout(row.values)
      except KeyError as e:
        raise columns.NoColumn(
          f"the layout needs a column {e}; columns:"
          f" {', '.join(row.columns) or 'none'}",
          str(e),
        ) from None
      if values is None:
        return None
      row = row._replace(values=values, columns=list(values))
    question = self._fields(row)
    problem = question.problem
    if problem.id in seen:
      raise UserError(
        f'the id "{problem.id}" is also at {seen[problem.id]};'
        ' fields=dict(id="") makes ids of files and lines'
      )
    verifiers.check_problem(problem)
    seen[problem.id] = row.where
    return question

  def _fields(self, row: Row) -> Question:
    own = self.columns
    turns = own.turns(row)
    kind = self._kind(row)
    answer = own.answer(row)
    verifier = self.kinds.get(kind, kind if ":" in kind else "")
    if kind in NEED_ANSWERS and not verifier and not answer.strip():
      own.get(row, "answer", required=True)
      raise UserError(
        f'the answer is empty ("{own.name("answer")}"), and the kind "{kind}"'
        " needs one"
      )
    problem = Problem(
      id=own.text(row, "id") or row.id,
      kind=kind,
      prompt=turns.question,
      answer=answer,
      language=self._language(row, turns.question),
      data={**self.shared_data, **own.data(row)},
      verifier=verifier,
    )
    for name, value in (*vars(problem).items(), ("messages", turns.before)):
      if fault := columns.unsound(value):
        raise UserError(f'the field "{name}" has {fault}')
    return Question(row.where, problem, turns.before)

  def _kind(self, row):
    kind = self.verifier or self.columns.text(row, "kind").strip()
    if not kind:
      raise columns.NoColumn(
        'the field "kind" is missing: say the kind of all problems, such as'
        ' verifier="math", or the column that has it, fields=dict(kind="NAME");'
        f" columns: {', '.join(row.columns)}",
        "kind",
      )
    return kind

  def _language(self, row, question):
    code = self.columns.text(row, "language") or self.language
    if not code:
      return _guessed(question)
    try:
      language_lib.check_language(code)
    except UserError as e:
      raise UserError(f'{e}; fields=dict(language="") reads none') from None
    return code


def _guessed(question):
  """The language whose letters most words of a question have."""
  share = functools.partial(language_lib.consistency, question)
  return "en" if share("en") > 0.5 else max(_SCRIPTS, key=share)


def _judge(found: list[Question], most: int | None, faults: Faults) -> set[str]:
  """Notes the problems whose own answer their verifier does not find right.

  A problem without an answer is not tried.

  Returns:
    the places of these problems.
  """
  bad = set()
  tried = [
    q for q in found
    if q.problem.answer and verifiers.name_of(q.problem) != "open"
  ]  # fmt: skip
  if most is not None and most < len(tried):
    tried = [tried[i * len(tried) // most] for i in range(most)]
  with tqdm(
    desc="judging", total=len(tried), disable=None, delay=2, leave=False
  ) as bar:
    for start in range(0, len(tried), _WINDOW):
      window = tried[start : start + _WINDOW]
      for question, fault in zip(window, _faults(q.problem for q in window)):
        bar.update()
        if fault:
          faults.add(question.where, fault)
          bad.add(question.where)
  return bad


def _faults(problems: Iterable[Problem]) -> Iterator[str | None]:
  """Yields what is wrong with the own answer of each problem, or None."""
  # Verifiers may take long, and your own may do anything: so, as in training,
  # they run in other processes.
  asked = [
    (p, judges.shared().submit(p, think_format.compose("", p.answer)))
    for p in problems
  ]
  for problem, future in asked:
    try:
      verdict = future.result()
    except UserError as e:
      yield str(e)
      continue
    except Exception as e:
      yield f"its verifier failed: {type(e).__name__}: {e}"
      continue
    short = problem.answer
    short = short if len(short) <= 80 else short[:77] + "..."
    yield (
      None
      if verdict.correct
      else (
        f'the verifier of "{problem.kind}" finds the answer "{short}"'
        f" {verdict.reason}, in a completion that ends with"
        f' "{think_format.ANSWER} {short} {think_format.END_ANSWER}"; correct'
        " the answer, the data or the verifier, or leave the answer empty and"
        " it is not tried"
      )
    )
