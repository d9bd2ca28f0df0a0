"""The sources that a config can name, of problems and of examples.

Both are functions of the step alone, so the data cursor of a phase is its
step: nothing has to be saved to resume, and nothing can get out of step.
"""

import random
import zlib

from r1jax.data import countdown
from r1jax.data import problems as problems_lib
from r1jax.errors import UserError
from r1jax.tokenizer import WordTokenizer


def tokenizer(task):
  """The tokenizer of a task's config."""
  if task.kind != "countdown":
    raise UserError(f'task.kind "{task.kind}" is unknown; known: "countdown"')
  return WordTokenizer(countdown.WORDS)


def problems(task, data, seed, io):
  """The problem sets of a task.

  Returns:
    dict of "train" and "test", each a `ProblemSet`.
  """
  directory = io.root / "data"
  if not problems_lib.exists(directory, task.kind):
    problems_lib.write_problems(
      directory,
      task.kind,
      countdown.make_problems(task.seed, task.train, task.test),
    )
  return {
    split: problems_lib.load_problems(directory, task.kind, split)
    for split in ("train", "test")
  }


def examples(task, data, seed, phase, io):
  """A stream of examples: (step, n) -> list of n `Example`.

  Args:
    data: a list of `Example`, or the name of a source: "corpus" or
      "cold_start".
    seed: of the order and of synthetic traces.
    phase: the phase's name; two phases on one source see different traces.
  """
  if not isinstance(data, str):
    if not data:
      raise UserError(f"{phase}: there is no example to train on")
    return lambda step, n: [
      data[i] for i in problems_lib.order(len(data), step, n, seed)
    ]
  makers = {"corpus": countdown.trace, "cold_start": countdown.cold_start}
  if data not in makers:
    raise UserError(
      f'{phase}: data "{data}" is neither an earlier phase nor a source;'
      f" sources: {', '.join(makers)}"
    )
  train = problems(task, "problems", seed, io)["train"]
  train = [train[i] for i in range(len(train))]
  tag = zlib.crc32(phase.encode())

  def stream(step, n):
    rng = random.Random(f"{seed}/{tag}/{step}")
    return [
      makers[data](rng.choice(train), rng, **task.get(data, {}))
      for _ in range(n)
    ]

  return stream
