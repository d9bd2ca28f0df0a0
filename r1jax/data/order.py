"""Which items of a set a step gets: a function of the step alone.

So a phase that resumes needs no cursor but its step.
"""

import functools

import numpy as np

from r1jax.errors import UserError
from r1jax.types import Problem


@functools.lru_cache(maxsize=8)
def _permutation(size, seed, epoch):
  return np.random.default_rng((seed, epoch)).permutation(size)


def order(size: int, step: int, n: int, seed: int) -> list[int]:
  """The indices of a step's n items: each item once an epoch.

  Args:
    size: items of the set. step: from 0. n: items a step, the same in all.
    seed: of the permutations, one an epoch.

  Returns:
    list of n int. A step that straddles two epochs may hold an item twice.

  Raises:
    UserError: the set is empty.
  """
  if size < 1:
    raise UserError("the problem set is empty; there is nothing to draw")
  indices = []
  for k in range(step * n, step * n + n):
    epoch, i = divmod(k, size)
    indices.append(int(_permutation(size, seed, epoch)[i]))
  return indices


class ProblemList(list):
  """Problems in memory, with the cursor of a `ProblemSet`."""

  def take(self, step: int, n: int, seed: int) -> list[Problem]:
    """As `ProblemSet.take`."""
    return [self[i] for i in order(len(self), step, n, seed)]
