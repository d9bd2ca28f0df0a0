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
from r1jax.text import chat_template
from r1jax.text.tokenizer import (
  HFTokenizer,
  SentencePieceTokenizer,
  WordTokenizer,
)
from r1jax.types import Example

# Kind of task -> its keys.
KEYS = {
  "countdown": ("kind", "seed", "train", "test", "corpus", "cold_start"),
  "reasoning_gym": (
    "kind", "seed", "train", "test", "datasets", "template", "shots"
  ),
  "files": ("kind", "train", "test", "template", "kinds"),
}  # fmt: skip
# How the question of a problem becomes a prompt: as it is; by the paper's
# template for base models; by the tokenizer's chat template; by that with
# `<think>` prefilled.
TEMPLATES = ("none", "r1_zero", "chat", "chat_think")
# Synthetic examples of countdown.
MAKERS = {"corpus": countdown.trace, "cold_start": countdown.cold_start}


def tokenizer(config):
  """The tokenizer of a config.

  Args:
    config: mapping with `kind`: "countdown", the embedded vocabulary;
      "sentencepiece", the model file at `path`; or "hf", the Hugging Face
      directory at `path`.
  """
  if config.kind == "countdown":
    return WordTokenizer(countdown.WORDS)
  if config.kind == "sentencepiece":
    return SentencePieceTokenizer(config.path)
  if config.kind == "hf":
    return HFTokenizer(config.path)
  raise UserError(
    f'tokenizer.kind "{config.kind}" is unknown; known: countdown,'
    " sentencepiece, hf"
  )


def check(task):
  """Raises `UserError` if the kind or the template of a task is unknown."""
  if task.kind not in KEYS:
    raise UserError(
      f'task.kind "{task.kind}" is unknown; known: {", ".join(KEYS)}'
    )
  _check_template(task.get("template", "none"))


def _check_template(name):
  if name not in TEMPLATES:
    raise UserError(
      f'task.template "{name}" is unknown; known: {", ".join(TEMPLATES)}'
    )


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
      own, as in `jsonl.read_problems`. For the latter two optionally
      `template`, one of `TEMPLATES`, which makes prompts of questions; for
      reasoning_gym also `shots`, how many solved questions of the same data
      set go before.
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
  render = _template(task.get("template", "none"), tokenizer)
  if task.kind == "files":
    solved = []
    sets = {
      split: jsonl.read_problems(task[split], task.get("kinds"))
      for split in ("train", "test")
    }
  else:
    shots = task.get("shots", 0)
    datasets = {k: dict(v) for k, v in task.datasets.items()}
    asked = (datasets, task.seed, task.train, task.test, shots)
    # A run may have several such tasks: the name tells them apart.
    tag = zlib.crc32(json.dumps(asked, default=str).encode())
    name = f"{task.kind}_{tag:08x}"
    sets = _written(
      io, name, ("train", "test", "shots")[: 3 if shots else 2],
      lambda: gym.make_problems(*asked),
    )  # fmt: skip
    solved = sets.pop("shots", [])[:]
  return {
    split: ProblemList(
      [
        dataclasses.replace(p, prompt=render(p.prompt, _solved(solved, p)))
        for p in found
      ]
    )
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


def _solved(solved, problem):
  """The turns that show how a problem of its kind is answered."""
  turns = []
  for shot in solved:
    if shot.data["dataset"] == problem.data["dataset"]:
      reply = (
        f"<think> The answer is {shot.answer}. </think>"
        f" <answer> {shot.answer} </answer>"
      )
      turns.append({"role": "user", "content": shot.prompt})
      turns.append({"role": "assistant", "content": reply})
  return turns


def _template(name, tokenizer):
  """The function from a question and the turns before it to a prompt."""
  _check_template(name)
  if name.startswith("chat"):
    if not hasattr(tokenizer, "template"):
      raise UserError(
        f'task.template "{name}" needs a tokenizer with a chat template;'
        ' c.tokenizer = dict(kind="hf", path=DIR) brings one'
      )
    template = tokenizer.template()
    return lambda question, before=(): template.render(
      [*before, {"role": "user", "content": question}],
      think=name == "chat_think",
    )
  single = chat_template.r1_zero if name == "r1_zero" else str

  def render(question, before=()):
    if before:
      raise UserError('task.shots needs task.template "chat" or "chat_think"')
    return single(question)

  return render


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
    render = _template(task.get("template", "none"), tokenizer)
    prompts = [(render(e.prompt), e) for e in jsonl.read_examples(data)]
    data = [
      Example(prompt, chat_template.target(prompt, e.completion))
      for prompt, e in prompts
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
