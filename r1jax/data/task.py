"""What every task can do; a task is a dataclass of the keys of `c.task`."""

import random
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from r1jax import hosts
from r1jax.data import store
from r1jax.data.order import ProblemList
from r1jax.run import layout
from r1jax.text.tokenizer import Tokenizer
from r1jax.types import Example, Problem

# The problems of a split, in memory or on disk.
Problems = ProblemList | store.ProblemSet
# Makes a synthetic example of a problem.
Maker = Callable[[Problem, random.Random], Example]


class Task:
  """The base class of tasks: where problems and synthetic examples come from.

  To add a task, write a file with a frozen dataclass that has a field `kind`
  and a method `load`, and add the class to `sources.Tasks`.
  """

  # Selects the class, the value of the key `kind`.
  kind: str

  def load(
    self, root: Path, tokenizer: Tokenizer, write: bool = True
  ) -> dict[str, Problems]:
    """The problems of a task.

    Args:
      root: Path of the directory of the run.
      tokenizer: a tokenizer, whose chat template the task may use.
      write: whether problems that are made may be written below `root`. If
        not, they stay in memory.

    Returns:
      dict of "train" and "test", each a sequence of `Problem` with the method
      `take` of `ProblemSet`.

    Raises:
      UserError: a problem cannot be made, read or judged.
    """
    raise NotImplementedError

  def makers(self) -> dict[str, Maker]:
    """The synthetic examples that a key `data` can name.

    Returns:
      dict from a name to a function of (`Problem`, `random.Random`) that
      returns an `Example`.
    """
    return {}

  def longest(self, name: str) -> list[Example]:
    """Synthetic examples, of which one is as long as any can be.

    Args:
      name: one of `makers`.

    Returns:
      list of `Example`.
    """
    raise NotImplementedError


def made(
  root: Path,
  name: str,
  splits: Iterable[str],
  make: Callable[[], Mapping[str, list[Problem]]],
  write: bool,
) -> dict[str, Problems]:
  """Problems that a seed determines, made once and then read from disk.

  Args:
    root: Path of the directory of the run; the problems are in root/data/name.
    name: of the set.
    splits: names of its splits.
    make: function without arguments that returns a dict from each split to a
      list of `Problem`.
    write: whether a set that is not on disk is written.

  Returns:
    dict from each split to a sequence of `Problem`.
  """
  directory = root / layout.DATA
  if write:
    hosts.on_first(_write_missing, directory, name, make)
  elif not store.exists(directory, name):
    problems = make()
    return {split: ProblemList(problems.get(split, ())) for split in splits}
  return {
    split: store.load_problems(directory, name, split) for split in splits
  }


def _write_missing(directory, name, make):
  if not store.exists(directory, name):
    store.write_problems(directory, name, make())
