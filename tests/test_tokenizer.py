"""Tokenizers: exact ids, round trips, faults named."""

import pytest

from r1jax import config
from r1jax.data import countdown_chains
from r1jax.errors import UserError
from r1jax.text import tokenizer as tokenizer_lib
from r1jax.text.countdown_words import LANGUAGES, WORDS
from r1jax.text.tokenizer import SentencePieceTokenizer, WordTokenizer


def test_word_ids():
  t = WordTokenizer(("a", "b", "用户"))
  assert (t.vocab_size, t.pad_id, t.eos_id) == (5, 0, 1)
  assert t.encode("b  a\n用户") == [3, 2, 4]
  assert t.decode([3, 2, 4, 1, 0, 0]) == "b a 用户"
  assert t.decode([]) == ""


def test_unknown_word_is_named():
  with pytest.raises(UserError, match="'zebra' is not in the vocabulary"):
    WordTokenizer(("a",)).encode("a zebra")


def test_text_cannot_forge_the_end():
  # A prompt that spells a special token would end the sequence early.
  with pytest.raises(UserError, match="'<eos>' is not in the vocabulary"):
    WordTokenizer(("a",)).encode("a <eos>")


def test_words_are_distinct():
  with pytest.raises(UserError, match="distinct"):
    WordTokenizer(("a", "b", "a"))


def test_embedded_vocabulary():
  keys = config.convert(
    tokenizer_lib.Tokenizers, dict(kind="countdown"), "tokenizer"
  )
  t = tokenizer_lib.load(keys)
  assert t.decode(t.encode(" ".join(WORDS))).split() == list(WORDS)
  # One token a number, and no language pays more for its question.
  en, zh = (
    t.encode(countdown_chains.prompt((3, 7, 13), 56, x)) for x in LANGUAGES
  )
  assert len(en) == len(zh) == 11
  assert len(t.encode("56 100 0")) == 3


@pytest.fixture(scope="module")
def model_file(tmp_path_factory):
  import sentencepiece

  path = tmp_path_factory.mktemp("sentencepiece")
  text = path / "text.txt"
  text.write_text(
    "make 56 from 3 7 8 .\n得到 56 用 3 7 8 。\nwait try so\n" * 20
  )
  sentencepiece.SentencePieceTrainer.train(
    input=str(text), model_prefix=str(path / "tiny"), vocab_size=60,
    character_coverage=1.0, pad_id=3, minloglevel=2, num_threads=1,
    hard_vocab_limit=False,
  )  # fmt: skip
  return path / "tiny.model"


def test_sentencepiece(model_file):
  t = SentencePieceTokenizer(model_file)
  text = "try 56 from 得到 8"
  ids = t.encode(text)
  assert all(0 <= i < t.vocab_size for i in ids)
  assert t.pad_id == 3 and t.eos_id == 2
  assert t.eos_id not in ids and t.pad_id not in ids
  assert t.decode([*ids, t.eos_id, t.pad_id, t.pad_id]) == text


def test_sentencepiece_faults(tmp_path):
  with pytest.raises(UserError, match="absent.model"):
    SentencePieceTokenizer(tmp_path / "absent.model")
  bad = tmp_path / "bad.model"
  bad.write_bytes(b"no model")
  with pytest.raises(UserError, match="bad.model"):
    SentencePieceTokenizer(bad)
