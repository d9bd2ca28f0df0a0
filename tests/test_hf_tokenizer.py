"""Tokenizers of Hugging Face directories."""

import json

import hf_files
import pytest

from r1jax.errors import UserError
from r1jax.text.tokenizer import HFTokenizer


@pytest.fixture
def directory(tmp_path):
  hf_files.write_tokenizer(tmp_path)
  return tmp_path


def test_ids_and_text_of_2000_lines(directory):
  import tokenizers

  theirs = tokenizers.Tokenizer.from_file(str(directory / "tokenizer.json"))
  ours = HFTokenizer(directory)
  text = hf_files.mixed_text(2000)
  assert len(set(text)) > 1990
  for line in text:
    ids = ours.encode(line)
    assert ids == theirs.encode(line, add_special_tokens=False).ids
    assert ours.decode(ids) == line == theirs.decode(ids)


def test_special_tokens(directory):
  ours = HFTokenizer(directory)
  ids = ours.encode("<|im_start|>a<think>b<|im_end|>")
  assert ids[0] == ours.bos_id and ids[-1] == ours.eos_id == ours.pad_id
  assert len(ids) == 5
  # The tag is text that the rewards look for; the ends of turns are not.
  assert ours.decode(ids) == "a<think>b"
  assert max(ids) < ours.vocab_size


def test_the_template(directory):
  text = (
    HFTokenizer(directory)
    .template()
    .render([{"role": "user", "content": "hi"}])
  )
  assert text == "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"
  (directory / "chat_template.jinja").write_text(
    "{{ bos_token }}{{ eos_token }}"
  )
  text = HFTokenizer(directory).template().render([])
  assert text == "<|im_start|><|im_end|>"


def edit(directory, **changes):
  path = directory / "tokenizer_config.json"
  path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_a_named_template(directory):
  named = [
    {"name": "tool", "template": "x"},
    {"name": "default", "template": "y"},
  ]
  edit(directory, chat_template=named)
  assert HFTokenizer(directory).template().render([]) == "y"


def test_no_template(tmp_path):
  hf_files.write_tokenizer(tmp_path, chat=False)
  with pytest.raises(UserError, match="no chat template"):
    HFTokenizer(tmp_path).template()


def test_what_is_wrong_is_named(directory):
  with pytest.raises(UserError, match="absent"):
    HFTokenizer(directory / "absent")
  edit(directory, eos_token="<nowhere>")
  with pytest.raises(UserError, match="eos_token"):
    HFTokenizer(directory)
  (directory / "tokenizer_config.json").write_text("{")
  with pytest.raises(UserError, match="tokenizer_config.json is damaged"):
    HFTokenizer(directory)
  (directory / "tokenizer.json").write_text("{}")
  with pytest.raises(UserError, match="tokenizer.json cannot be read"):
    HFTokenizer(directory)
