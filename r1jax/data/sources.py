"""The sources that a config can name, of problems and of examples.

A source is a function of the step alone, so the data cursor of a phase is its
step: nothing has to be saved to resume, and nothing can get out of step.
"""

import dataclasses
import json
import random
import zlib

from r1jax.data import countdown, gym, jsonl, store
from r1jax.data.order import ProblemList, order
from r1jax.errors import UserError
from r1jax.text import chat_template, prompts
from r1jax.types import Example

# Kind of task -> its keys.
KEYS = {
  "countdown": ("kind", "seed", "train", "test", "corpus", "cold_start"),
  "reasoning_gym": (
    "kind", "seed", "train", "test", "datasets", "template", "shots"
  ),
  "files": ("kind", "train", "test", "template", "kinds"),
}  # fmt: skip
# Synthetic examples of countdown.
MAKERS = {"corpus": countdown.trace, "cold_start": countdown.cold_start}


def check(task):
  """Raises `UserError` if the kind or the template of a task is unknown."""
  if task.kind not in KEYS:
    raise UserError(
      f'task.kind "{task.kind}" is unknown; known: {", ".join(KEYS)}'
    )
  prompts.check_template(task.get("template", "none"))


def check_data(task, data, phase):
  """Raises `UserError` if a name that is no phase's is no source either."""
  if data.endswith(".jsonl"):
    jsonl.read_examples(data)
  elif data not in MAKERS or task.kind != "countdown":
    raise UserError(
      f'{phase}.data: "{data}" is neither an earlier phase, nor a .jsonl file,'
      f" nor a source of task.kind {task.kind}; sources of countdown:"
      f" {', '.join(MAKERS)}"
    )


def problems(task, io, tokenizer):
  """The problem sets of a task.

  What is generated, `train` and `test` many by `seed`, is written under
  `io.root` on first use.

  Args:
    task: mapping with `kind`: "countdown"; "reasoning_gym", with `datasets`
      as in `gym.make_problems`; or "files", with `train` and `test` the paths
      of JSONL files and optionally `kinds`, which names verifiers of one's
      own, as in `jsonl.read_problems`. The latter two may have `template`, one
      of `prompts.TEMPLATES`, which makes prompts of questions. reasoning_gym
      may have `shots`: each prompt starts with that many solved questions of
      the same data set.
    io: the phase's `PhaseIO`.
    tokenizer: whose chat template is meant.

  Returns:
    dict of "train" and "test", each a `ProblemSet` or `ProblemList`.
  """
  check(task)
  if task.kind == "countdown":
    return _written(
      io, task.kind, ("train", "test"),
      lambda: countdown.make_problems(task.seed, task.train, task.test),
    )  # fmt: skip
  render = prompts.renderer(task.get("template", "none"), tokenizer)
  if task.kind == "files":
    shots = []
    sets = {
      split: jsonl.read_problems(task[split], task.get("kinds"))
      for split in ("train", "test")
    }
  else:
    count = task.get("shots", 0)
    datasets = {k: dict(v) for k, v in task.datasets.items()}
    asked = (datasets, task.seed, task.train, task.test, count)
    # A run may have several such tasks: the name tells them apart.
    tag = zlib.crc32(json.dumps(asked, default=str).encode())
    name = f"{task.kind}_{tag:08x}"
    sets = _written(
      io, name, ("train", "test", "shots")[: 3 if count else 2],
      lambda: gym.make_problems(*asked),
    )  # fmt: skip
    shots = sets.pop("shots", [])[:]

  def rendered(problem):
    shown = [s for s in shots if s.data["dataset"] == problem.data["dataset"]]
    text = render(problem.prompt, prompts.solved_turns(shown))
    return dataclasses.replace(problem, prompt=text)

  return {
    split: ProblemList([rendered(p) for p in found])
    for split, found in sets.items()
  }


def _written(io, name, splits, make):
  """The splits of a problem set, made and written where there is none."""
  directory = io.root / "data"
  if not store.exists(directory, name):
    store.write_problems(directory, name, make())
  return {
    split: store.load_problems(directory, name, split) for split in splits
  }


def examples(task, data, seed, phase, io, tokenizer):
  """A stream of examples: (step, n) -> list of n `Example`.

  Args:
    task: as for `problems`; the keyword arguments of a synthetic source
      stand in it under the source's name.
    data: a list of `Example`; the path of a .jsonl file of them, to which
      the task's template applies; or the name of a synthetic source,
      "corpus" or "cold_start".
    seed: of the order and of synthetic traces.
    phase: the phase's name; two phases on one source see different traces.
    io: the phase's `PhaseIO`.
    tokenizer: whose chat template is meant.
  """
  if isinstance(data, str) and data.endswith(".jsonl"):
    render = prompts.renderer(task.get("template", "none"), tokenizer)
    pairs = [(render(e.prompt), e) for e in jsonl.read_examples(data)]
    data = [
      Example(prompt, chat_template.target(prompt, e.completion))
      for prompt, e in pairs
    ]
  if not isinstance(data, str):
    if not data:
      raise UserError(f"{phase}.data: there is no example to train on")
    return lambda step, n: [data[i] for i in order(len(data), step, n, seed)]
  check_data(task, data, phase)
  train = problems(task, io, None)["train"][:]
  tag = zlib.crc32(phase.encode())

  def stream(step, n):
    rng = random.Random(f"{seed}/{tag}/{step}")
    return [
      MAKERS[data](rng.choice(train), rng, **task.get(data, {}))
      for _ in range(n)
    ]

  return stream
