"""Problem sets on disk: TFDS in array_record files, read by random access.

A set is written once. Which problems a step gets is a function of the step,
so a phase that resumes needs no cursor but its step.
"""

import contextlib
import functools
import io
import json
import pathlib
from collections.abc import Sequence

from r1jax import files
from r1jax.data.order import order
from r1jax.errors import UserError
from r1jax.types import Problem

VERSION = "1.0.0"
FIELDS = ("id", "kind", "prompt", "answer", "language", "data")


class ProblemSet(Sequence):
  """Problems by number.

  Args:
    source: a TFDS data source of `FIELDS`, its `data` as JSON.
    where: its name in messages.
  """

  def __init__(self, source, where):
    self._source, self._where = source, where

  def __len__(self):
    return len(self._source)

  def __getitem__(self, i):
    if isinstance(i, slice):
      return self._read(range(*i.indices(len(self))))
    if not -len(self) <= i < len(self):
      raise IndexError(i)
    return self._read([i % len(self)])[0]

  def _read(self, indices):
    indices = list(indices)
    try:
      # array_record starts threads for a batch: for one item, a waste.
      if len(indices) == 1:
        rows = [self._source[indices[0]]]
      else:
        rows = self._source.__getitems__(indices)
    except Exception as e:
      # array_record and TFDS raise many things for a damaged file.
      raise _damaged(self._where, e) from None
    return [_problem(row) for row in rows]

  def take(self, step, n, seed):
    """The n problems of a step, a pure function of its arguments.

    Args:
      step, n, seed: as in `order`.

    Returns:
      list of `Problem`.
    """
    return self._read(order(len(self), step, n, seed))


def _problem(row):
  text = {name: value.decode() for name, value in row.items()}
  return Problem(**text | {"data": json.loads(text["data"])})


def _damaged(where, error):
  reason = (str(error).strip() or type(error).__name__).splitlines()[0]
  return UserError(
    f"{where}: the problem set is damaged ({reason[:80]}); delete this"
    " directory and it will be written anew"
  )


def _place(directory, name):
  return pathlib.Path(directory) / name / VERSION


def exists(directory, name):
  """Whether a set was written; an interrupted write leaves none."""
  return (_place(directory, name) / "dataset_info.json").exists()


def write_problems(directory, name, splits):
  """Writes a problem set as a TFDS data set, whole or not at all.

  It lies in DIRECTORY/NAME/VERSION, where `tfds.load(NAME,
  data_dir=DIRECTORY)` finds it too. A set that is there is left alone.

  Args:
    directory: of data sets. name: of this one, in snake_case.
    splits: mapping of a split's name to an iterable of `Problem`.
  """
  directory = pathlib.Path(directory)
  if exists(directory, name):
    return
  splits = {split: list(problems) for split, problems in splits.items()}
  try:
    with files.whole_directory(directory / name) as unfinished:
      builder = _builder_class(name)(
        splits, data_dir=unfinished.parent, file_format="array_record"
      )
      # It congratulates itself at length.
      with contextlib.redirect_stdout(io.StringIO()):
        builder.download_and_prepare()
  except (OSError, UserError):
    if not exists(directory, name):
      raise
    # Another process was faster; it wrote the same.


def load_problems(directory, name, split):
  """Opens a split of a problem set.

  Args:
    directory, name: as given to `write_problems`. split: "train", "test".

  Returns:
    `ProblemSet`.

  Raises:
    UserError: there is no such set or split, or its files are damaged.
  """
  if not exists(directory, name):
    raise UserError(f"{directory}: there is no problem set {name} here")
  where = _place(directory, name)
  tfds = _tfds()
  try:
    builder = tfds.builder_from_directory(where)
    splits = list(builder.info.splits)
    if split in splits:
      return ProblemSet(builder.as_data_source(split), where)
  except ImportError:
    raise
  except Exception as e:
    raise _damaged(where, e) from None
  raise UserError(
    f"{where}: there is no split {split}; splits: {', '.join(splits)}"
  )


def _tfds():
  # Half a second to import; most of the project does without.
  import tensorflow_datasets as tfds

  tfds.disable_progress_bar()
  return tfds


@functools.cache
def _builder_class(data_set):
  tfds = _tfds()

  # Not registered: the class is a way to write, not a public data set.
  class Builder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Problems of r1jax, `data` as JSON text."""

    name = data_set
    VERSION = tfds.core.Version(VERSION)
    pkg_dir_path = None  # there is no package with citations beside it

    def __init__(self, splits, **kwargs):
      self._problems = splits
      super().__init__(**kwargs)

    def _info(self):
      text = {field: tfds.features.Text() for field in FIELDS}
      return tfds.core.DatasetInfo(
        builder=self,
        features=tfds.features.FeaturesDict(text),
        disable_shuffling=True,
      )

    def _split_generators(self, dl_manager):
      return {
        split: self._generate_examples(problems)
        for split, problems in self._problems.items()
      }

    def _generate_examples(self, problems):
      for i, p in enumerate(problems):
        row = {field: getattr(p, field) for field in FIELDS[:-1]}
        data = json.dumps(dict(p.data), ensure_ascii=False, sort_keys=True)
        yield i, row | {"data": data}

  return Builder
