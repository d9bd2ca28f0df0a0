"""Questions become prompts by a template of the config."""

import dataclasses
import json
import types

import hf_files
import pytest

from r1jax import config as config_lib
from r1jax.data import sources
from r1jax.data.problem_files import Files
from r1jax.errors import UserError
from r1jax.text.tokenizer import HFTokenizer

QUESTION = "make 29 from 8 7 3"


@pytest.fixture
def task(tmp_path):
  line = json.dumps(
    {
      "id": "1",
      "kind": "countdown",
      "language": "en",
      "answer": "3 * 7 + 8",
      "prompt": QUESTION,
      "data": {"numbers": [3, 7, 8], "target": 29},
    }
  )
  path = tmp_path / "p.jsonl"
  path.write_text(line + "\n")
  return Files(train=str(path), test=str(path))


def prompt(task, tokenizer=None, **fields):
  task = dataclasses.replace(task, **fields)
  found = {
    split: problems[0].prompt
    for split, problems in task.load(None, tokenizer).items()
  }
  assert found["train"] == found["test"]
  return found["train"]


def test_as_it_is(task):
  assert prompt(task) == prompt(task, template="none") == QUESTION


def test_r1_zero(task):
  text = prompt(task, template="r1_zero")
  assert text.startswith("A conversation between User and Assistant.")
  assert text.endswith(f"User: {QUESTION}. Assistant:")


def test_the_tokenizers_own(task, tmp_path):
  hf_files.write_tokenizer(tmp_path / "t")
  tokenizer = HFTokenizer(tmp_path / "t")
  text = prompt(task, tokenizer, template="chat")
  want = f"<|im_start|>user\n{QUESTION}<|im_end|>\n<|im_start|>assistant\n"
  assert text == want
  assert prompt(task, tokenizer, template="chat_think") == want + "<think>\n"


def test_what_is_wrong(task):
  with pytest.raises(UserError, match="known: none, r1_zero, chat, chat_think"):
    config_lib.convert(sources.Tasks, dict(kind="files", template="r2"), "task")
  with pytest.raises(UserError, match="needs a tokenizer with a chat template"):
    prompt(task, object(), template="chat")


def test_examples_of_a_file_follow_the_template(task, tmp_path):
  path = tmp_path / "e.jsonl"
  reply = "<think>\nlong\n</think>\n\nb"
  path.write_text(json.dumps({"prompt": "a", "completion": reply}) + "\n")
  hf_files.write_tokenizer(tmp_path / "t")
  tokenizer = HFTokenizer(tmp_path / "t")
  for template, completion in (
    ("none", reply), ("chat", reply), ("chat_think", "long\n</think>\n\nb"),
  ):  # fmt: skip
    phase = types.SimpleNamespace(
      name="sft", seed=0, task=dataclasses.replace(task, template=template)
    )
    stream = sources.examples(phase, str(path), None, tokenizer)
    (example,) = stream(0, 1)
    assert example.completion == completion
    # Nothing of the thinking is lost, prefilled or not.
    assert (example.prompt + example.completion).endswith(reply)
