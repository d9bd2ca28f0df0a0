"""Problems of reasoning-gym, any of its data sets.

Where an answer can be written in one way only it is compared as text, kind
"exact"; countdown has a verifier of ours; of all others the library's scorer
is asked, kind "logic".
"""

import dataclasses
import functools
import itertools
import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from r1jax import checks
from r1jax.data.order import ProblemList
from r1jax.data.task import Problems, Task, made
from r1jax.errors import UserError
from r1jax.extras import need
from r1jax.text import prompts
from r1jax.text.tokenizer import Tokenizer
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
# Data sets whose entries come without an answer.
UNANSWERED = frozenset(
  ("boxnet", "graph_color", "propositional_logic", "rubiks_cube", "rush_hour")
)
# Entries that a data set can be asked for, where that is not boundless: those
# that make all of them beforehand, or have a limit of their own.
SIZES = {"acre": 10_000, "word_ladder": 20_000}
# Repetitions in a row after which a data set has no more to give.
PATIENCE = 1000


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReasoningGym(Task):
  """Problems of reasoning-gym."""

  kind: Literal["reasoning_gym"] = "reasoning_gym"
  # Seed of the problems.
  seed: int = 0
  # Number of problems to train on, of all data sets together.
  train: int
  # Number of held-out problems, of all data sets together.
  test: int
  # Name of a data set -> parameters of its generator.
  datasets: Mapping[str, Mapping[str, Any]]
  # How a question becomes a prompt: as it is ("none"), by the paper's template
  # for base models ("r1_zero"), by the tokenizer's chat template ("chat"), or
  # by that with the opening think tag prefilled ("chat_think").
  template: prompts.Template = "none"
  # Solved questions of the same data set before each question; only with a
  # chat template.
  shots: int = 0

  def __post_init__(self):
    checks.at_least(self, 0, "seed", "shots")
    checks.at_least(self, 1, "train", "test")
    if not self.datasets:
      raise UserError("datasets is empty; name at least one, NAME=dict()")
    if self.shots and not self.template.startswith("chat"):
      raise UserError(
        f'shots={self.shots} needs template="chat" or "chat_think"'
      )

  def load(
    self, root: Path, tokenizer: Tokenizer, write: bool = True
  ) -> dict[str, Problems]:
    """As `Task.load`."""
    render = prompts.renderer(self.template, tokenizer)
    datasets = {k: dict(v) for k, v in self.datasets.items()}
    asked = (datasets, self.seed, self.train, self.test, self.shots)
    text = json.dumps(asked, default=str)
    # A run may have several such tasks, so the name says which this is.
    name = f"{self.kind}_{zlib.crc32(text.encode()):08x}"
    splits = ("train", "test", "shots")[: 3 if self.shots else 2]
    sets = made(root, name, splits, lambda: _made(text, asked), write)
    shots = sets.pop("shots", [])[:]

    def rendered(problem):
      same = [s for s in shots if s.data["dataset"] == problem.data["dataset"]]
      prompt = render(problem.prompt, prompts.solved_turns(same))
      return dataclasses.replace(problem, prompt=prompt)

    return {k: ProblemList(map(rendered, v)) for k, v in sets.items()}


_MADE: dict[str, dict] = {}


def _made(text, asked):
  """`make_problems`, once for all phases; `text` says which problems."""
  if text not in _MADE:
    _MADE[text] = make_problems(*asked)
  return _MADE[text]


def make_problems(
  datasets: Mapping[str, Mapping[str, Any]],
  seed: int,
  train: int,
  test: int,
  shots: int,
) -> dict[str, list[Problem]]:
  """Problems of several data sets in turn, no question twice.

  Args:
    datasets: name -> dict of its generator's parameters.
    seed: of the generators. train, test: how many problems, of all together.
    shots: how many more of each data set, to show in prompts.

  Returns:
    dict of "shots" (if any), "test" and "train", lists of `Problem`; the
    prompt is the bare question, data has "dataset" and what the verifier
    needs.

  Raises:
    UserError: a data set is unknown or has fewer questions than are asked
      for, a parameter does not suit it, or there is no answer to show.
  """
  if not datasets:
    raise UserError("task.datasets is empty; name at least one, NAME=dict()")
  streams = [
    _distinct(name, dict(parameters), seed)
    for name, parameters in datasets.items()
  ]
  for name in datasets if shots else ():
    if name in UNANSWERED:
      raise UserError(
        f"task.datasets.{name}: its problems come without answers to show;"
        " set task.shots=0"
      )
  turns = (p for group in zip(*streams) for p in group)
  sizes = {"shots": shots * len(streams), "test": test, "train": train}
  # A set on disk has no empty splits.
  return {k: list(itertools.islice(turns, n)) for k, n in sizes.items() if n}


def _distinct(name, parameters, seed):
  """Yields the problems of a data set; a `UserError` where it ends."""
  source = _dataset(name, parameters, seed)
  seen, last = set(), 0
  for i in range(len(source)):
    entry = source[i]
    if entry["question"] not in seen:
      seen.add(entry["question"])
      last = i
      yield _problem(name, parameters, i, entry)
    elif i - last > PATIENCE:
      break
  raise UserError(
    f"task.datasets.{name}: it has no more than {len(seen)} different"
    " questions with these parameters; ask for fewer, or widen them"
  )


def _problem(name, parameters, i, entry):
  data = {"dataset": name}
  kind = "exact" if name in _unique() else "logic"
  if name == "countdown":
    kind = "countdown"
    metadata = entry["metadata"]
    data |= {"numbers": metadata["numbers"], "target": metadata["target"]}
  elif kind == "logic":
    metadata = json.loads(json.dumps(entry["metadata"], default=str))
    data |= {"parameters": parameters, "metadata": metadata}
  answer = entry["answer"]
  return Problem(
    id=f"{name}-{i}",
    kind=kind,
    prompt=entry["question"],
    answer="" if answer is None else str(answer),
    language="en",
    data=data,
  )


@functools.cache
def _unique():
  """The data sets whose answers are compared as text."""
  default = need("reasoning_gym.dataset").ProceduralDataset.score_answer
  known = need("reasoning_gym.factory").DATASETS
  return UNIQUE | {
    name for name, (cls, _) in known.items() if cls.score_answer is default
  }


def _dataset(name, parameters, seed):
  # Slow to import, and only the first run needs it.
  reasoning_gym = need("reasoning_gym")
  datasets = need("reasoning_gym.factory").DATASETS
  known = sorted(datasets.keys() - {"composite"})
  if name not in known:
    raise UserError(
      f"task.datasets: {name} is unknown; known: {', '.join(known)}"
    )
  try:
    # Entry i is drawn from seed + i: neighbouring seeds would share nearly
    # all of their problems. The size is a bound, not a cost.
    return reasoning_gym.create_dataset(
      name,
      seed=seed * 10**6,
      size=SIZES.get(name, 10**6),
      **parameters,
    )
  except (AssertionError, TypeError, ValueError) as e:
    raise UserError(f"task.datasets.{name}: {e}") from None
