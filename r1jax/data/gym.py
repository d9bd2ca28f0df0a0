"""Problems of reasoning-gym whose answers can be written in one way only.

Its scorers are not used: some of them evaluate what a model wrote, many pay
for near misses. These answers are compared as text (`verifiers.exact`).
"""

import itertools

from r1jax.errors import UserError
from r1jax.types import Problem

# Data sets that have a scorer of their own, for other spellings of the one
# right answer or for partial credit. Where there is none, reasoning-gym
# itself says that the answer is unique.
UNIQUE = frozenset(
  (
    "calendar_arithmetic", "chain_sum", "color_cube_rotation",
    "family_relationships", "products", "spell_backward", "word_sorting",
  )
)  # fmt: skip
# Repetitions in a row after which a data set has no more to give.
PATIENCE = 1000


def make_problems(datasets, seed, train, test, shots):
  """Problems of several data sets in turn, no question twice.

  Args:
    datasets: name -> dict of its generator's parameters.
    seed: of the generators. train, test: how many problems, of all together.
    shots: how many more of each data set, to show in prompts.

  Returns:
    dict of "shots" (if any), "test" and "train", lists of `Problem` of kind
    "exact"; the prompt is the bare question, data has "dataset".

  Raises:
    UserError: a data set is unknown, has several right answers to a question
      or fewer questions than are asked for, or a parameter does not suit it.
  """
  if not datasets:
    raise UserError("task.datasets is empty; name at least one, NAME=dict()")
  streams = [
    _distinct(name, dict(parameters), seed)
    for name, parameters in datasets.items()
  ]
  turns = (p for group in zip(*streams) for p in group)
  sizes = {"shots": shots * len(streams), "test": test, "train": train}
  # A set on disk has no empty splits.
  return {k: list(itertools.islice(turns, n)) for k, n in sizes.items() if n}


def _distinct(name, parameters, seed):
  """Yields the problems of a data set without end."""
  source = _dataset(name, parameters, seed)
  seen, last = set(), 0
  for i in itertools.count():
    entry = source[i]
    if entry["question"] not in seen:
      seen.add(entry["question"])
      last = i
      yield Problem(
        id=f"{name}-{i}",
        kind="exact",
        prompt=entry["question"],
        answer=str(entry["answer"]),
        language="en",
        data={"dataset": name},
      )
    elif i - last > PATIENCE:
      raise UserError(
        f"task.datasets.{name}: it has no more than {len(seen)} different"
        " questions with these parameters; ask for fewer, or widen them"
      )


def _dataset(name, parameters, seed):
  # Slow to import, and only the first run needs it.
  import reasoning_gym
  from reasoning_gym.dataset import ProceduralDataset
  from reasoning_gym.factory import DATASETS

  default = ProceduralDataset.score_answer
  known = {n for n, (cls, _) in DATASETS.items() if cls.score_answer is default}
  known |= UNIQUE
  if name not in known:
    fault = "has no unique answers" if name in DATASETS else "is unknown"
    raise UserError(
      f"task.datasets: {name} {fault}; known: {', '.join(sorted(known))}"
    )
  try:
    # Entry i is drawn from seed + i: neighbouring seeds would share nearly
    # all of their problems. The size is a bound, not a cost.
    return reasoning_gym.create_dataset(
      name, seed=seed * 10**6, size=10**6, **parameters
    )
  except (AssertionError, TypeError, ValueError) as e:
    raise UserError(f"task.datasets.{name}: {e}") from None
