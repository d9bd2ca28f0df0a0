"""The sources that a config can name, of problems and of examples.

A source is a function of the step alone, so the data cursor of a phase is its
step: nothing has to be saved to resume, and nothing can get out of step.
"""

import dataclasses
import random
import zlib

from r1jax import chat_template
from r1jax.data import countdown, jsonl
from r1jax.data import problems as problems_lib
from r1jax.errors import UserError
from r1jax.tokenizer import (
  HFTokenizer,
  SentencePieceTokenizer,
  WordTokenizer,
)
from r1jax.types import Example

TASKS = ("countdown", "files")
# How the question of a problem becomes a prompt: as it is; by the paper's
# template for base models; by the tokenizer's chat template; by that with
# `<think>` prefilled.
TEMPLATES = ("none", "r1_zero", "chat", "chat_think")


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


def problems(task, io, tokenizer):
  """The problem sets of a task.

  Args:
    task: mapping with `kind`: "countdown", generated and written under
      `io.root` on first use, `train` and `test` many; or "files", with
      `train` and `test` the paths of JSONL files and, optionally, `template`,
      one of `TEMPLATES`, for the questions that stand there as prompts.
    io: the phase's `PhaseIO`.
    tokenizer: whose chat template is meant.

  Returns:
    dict of "train" and "test", each a `ProblemSet`.
  """
  if task.kind == "files":
    render = _template(task.get("template", "none"), tokenizer)
    return {
      split: problems_lib.ProblemList(
        [
          dataclasses.replace(p, prompt=render(p.prompt))
          for p in jsonl.read_problems(task[split])
        ]
      )
      for split in ("train", "test")
    }
  if task.kind != "countdown":
    raise UserError(
      f'task.kind "{task.kind}" is unknown; known: {", ".join(TASKS)}'
    )
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


def _template(name, tokenizer):
  """The function from a question to a prompt."""
  if name not in TEMPLATES:
    raise UserError(
      f'task.template "{name}" is unknown; known: {", ".join(TEMPLATES)}'
    )
  if name == "none":
    return lambda question: question
  if name == "r1_zero":
    return chat_template.r1_zero
  if not hasattr(tokenizer, "template"):
    raise UserError(
      f'task.template "{name}" needs a tokenizer with a chat template;'
      ' c.tokenizer = dict(kind="hf", path=DIR) brings one'
    )
  template = tokenizer.template()
  return lambda question: template.render(
    [{"role": "user", "content": question}], think=name == "chat_think"
  )


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
    return lambda step, n: [
      data[i] for i in problems_lib.order(len(data), step, n, seed)
    ]
  makers = {"corpus": countdown.trace, "cold_start": countdown.cold_start}
  if data not in makers or task.kind != "countdown":
    raise UserError(
      f'{phase}.data: "{data}" is neither an earlier phase, nor a .jsonl file,'
      f" nor a source of task.kind {task.kind}; sources of countdown:"
      f" {', '.join(makers)}"
    )
  train = problems(task, io, None)["train"][:]
  tag = zlib.crc32(phase.encode())

  def stream(step, n):
    rng = random.Random(f"{seed}/{tag}/{step}")
    return [
      makers[data](rng.choice(train), rng, **task.get(data, {}))
      for _ in range(n)
    ]

  return stream
