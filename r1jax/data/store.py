"""Problem sets on disk: array_record files, read by random access.

A set is a directory with a file a split. It is written once, whole or not at
all. Which problems a step gets is a function of the step (`data/order.py`), so
a phase that resumes needs no cursor but its step.
"""

import dataclasses
import json
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from r1jax import files
from r1jax.data.order import order
from r1jax.errors import UserError
from r1jax.types import Problem

SUFFIX = ".array_record"
_FIELDS = [field.name for field in dataclasses.fields(Problem)]


class ProblemSet(Sequence):
  """The problems of one file, by number.

  Args:
    path: of the array_record file; a record is a `Problem` as JSON.

  Raises:
    UserError: the file is damaged.
  """

  def __init__(self, path: Path) -> None:
    # Only here: a task of JSONL files does without this library.
    from array_record.python import array_record_module

    self._path = path
    try:
      self._reader = array_record_module.ArrayRecordReader(
        str(path), "readahead_buffer_size:0"
      )
      self._length = self._reader.num_records()
    except Exception as e:  # the library raises nothing narrower
      raise self._damaged(e) from None
    if not self._length:
      # Of a file that was cut short the library finds no index.
      raise self._damaged(ValueError("no records"))

  def __len__(self):
    return self._length

  def __getitem__(self, i):
    if isinstance(i, slice):
      return self._read(range(*i.indices(len(self))))
    if not -len(self) <= i < len(self):
      raise IndexError(i)
    return self._read([i % len(self)])[0]

  def take(self, step: int, n: int, seed: int) -> list[Problem]:
    """The n problems of a step, a pure function of its arguments.

    Args:
      step, n, seed: as in `order`.

    Returns:
      list of `Problem`.
    """
    return self._read(order(len(self), step, n, seed))

  def _read(self, indices):
    indices = list(indices)
    if not indices:
      return []
    try:
      rows = self._reader.read(indices)
      return [Problem(**json.loads(row)) for row in rows]
    except Exception as e:
      raise self._damaged(e) from None

  def _damaged(self, error):
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    return UserError(
      f"{self._path}: the problem set is damaged ({reason[:80]}); delete"
      f" {self._path.parent} and the next run writes it again"
    )


def exists(directory: str | Path, name: str) -> bool:
  """Whether a set was written; an interrupted write leaves none."""
  return (pathlib.Path(directory) / name).is_dir()


def write_problems(
  directory: str | Path, name: str, splits: Mapping[str, Iterable[Problem]]
) -> None:
  """Writes a problem set, whole or not at all; an existing one stays.

  Args:
    directory: of the problem sets of a run.
    name: of this set, and of its directory.
    splits: mapping of a split's name to an iterable of `Problem`.
  """
  directory = pathlib.Path(directory)
  if exists(directory, name):
    return
  splits = {split: list(problems) for split, problems in splits.items()}
  try:
    with files.whole_directory(directory / name) as unfinished:
      unfinished.mkdir()
      for split, problems in splits.items():
        _write(unfinished / f"{split}{SUFFIX}", problems)
  except (OSError, UserError):
    if not exists(directory, name):
      raise
    # Another process was faster; it wrote the same.


def _write(path, problems):
  from array_record.python import array_record_module

  # Groups of one, so that reading a record decodes no other.
  writer = array_record_module.ArrayRecordWriter(str(path), "group_size:1")
  try:
    for problem in problems:
      row = {name: getattr(problem, name) for name in _FIELDS}
      row["data"] = dict(problem.data)
      writer.write(json.dumps(row, ensure_ascii=False).encode())
  finally:
    writer.close()


def load_problems(directory: str | Path, name: str, split: Any) -> ProblemSet:
  """Opens a split of a problem set.

  Args:
    directory, name: as given to `write_problems`. split: "train", "test".

  Returns:
    `ProblemSet`.

  Raises:
    UserError: there is no such set or split, or its file is damaged.
  """
  place = pathlib.Path(directory) / name
  if not exists(directory, name):
    raise UserError(f"{directory}: there is no problem set {name} here")
  path = place / f"{split}{SUFFIX}"
  if not path.exists():
    splits = sorted(p.name.removesuffix(SUFFIX) for p in place.iterdir())
    raise UserError(
      f"{place}: there is no split {split}; splits: {', '.join(splits)}"
    )
  return ProblemSet(path)
