"""Text to tokens and back, behind one small interface."""

import dataclasses
import functools
import json
from pathlib import Path
from typing import Literal, Protocol

from r1jax.errors import UserError
from r1jax.text.chat_template import ChatTemplate
from r1jax.text.countdown_words import WORDS


class Tokenizer(Protocol):
  """What the rest of the project asks of a tokenizer.

  Attributes:
    vocab_size: V. eos_id: ends every completion. pad_id: fills rows.
  """

  vocab_size: int
  eos_id: int
  pad_id: int

  def encode(self, text: str) -> list[int]:
    """Tokens of a text, without any special token added."""

  def decode(self, ids: list[int]) -> str:
    """The text of tokens, padding and end-of-sequence left out."""


class WordTokenizer:
  """A fixed vocabulary of words that white space separates.

  Args:
    words: distinct, none of them empty; id 0 is padding, 1 ends a sequence.
  """

  pad_id, eos_id = 0, 1

  def __init__(self, words):
    self._words = ("<pad>", "<eos>", *words)
    # Without the first two: no text may spell the end of a sequence.
    self._ids = {word: i for i, word in enumerate(words, 2)}
    if len(self._ids) + 2 != len(self._words):
      raise UserError("tokenizer: the words of a vocabulary must be distinct")
    self.vocab_size = len(self._words)

  def encode(self, text):
    """Token ids of a text.

    Raises:
      UserError: a word is not in the vocabulary.
    """
    try:
      return [self._ids[word] for word in text.split()]
    except KeyError as e:
      raise UserError(
        f"tokenizer: the word {e} is not in the vocabulary of"
        f" {self.vocab_size} words"
      ) from None

  def decode(self, ids):
    """The words of token ids, joined by single spaces."""
    return " ".join(self._words[i] for i in ids if i > 1)


class SentencePieceTokenizer:
  """A SentencePiece model file.

  Args:
    path: of the `.model` file.

  Raises:
    UserError: the file is absent or no SentencePiece model, or has no
      end-of-sequence piece.
  """

  def __init__(self, path):
    import sentencepiece

    try:
      self._model = sentencepiece.SentencePieceProcessor(model_file=str(path))
    except (OSError, RuntimeError) as e:
      raise UserError(f"tokenizer: {path}: {str(e).splitlines()[0]}") from None
    self.vocab_size = self._model.vocab_size()
    self.eos_id = self._model.eos_id()
    if self.eos_id < 0:
      raise UserError(f"tokenizer: {path} has no end-of-sequence piece")
    # A model trained without padding has pad_id -1; any id serves, since
    # padding is masked, and 0 always exists.
    self.pad_id = max(self._model.pad_id(), 0)

  def encode(self, text):
    """Token ids of a text."""
    return self._model.encode(text)

  def decode(self, ids):
    """The text of token ids, special ones left out."""
    special = (self.eos_id, self.pad_id)
    return self._model.decode([i for i in ids if i not in special])


class HFTokenizer:
  """A `tokenizer.json` with its `tokenizer_config.json`.

  Args:
    directory: that holds them.

  Attributes:
    vocab_size: ids that may occur; the model's may be larger, padded.

  Raises:
    UserError: a file is absent or damaged, or names no end-of-sequence token.
  """

  def __init__(self, directory):
    import tokenizers

    directory = Path(directory)
    path = directory / "tokenizer.json"
    if not path.exists():
      raise UserError(f"tokenizer: there is no {path}")
    try:
      self._tokenizer = tokenizers.Tokenizer.from_file(str(path))
    except Exception as e:  # the library raises nothing narrower
      raise UserError(f"tokenizer: {path} cannot be read ({e})") from None
    self._where = directory
    self._config = _read(directory / "tokenizer_config.json")
    self.vocab_size = self._tokenizer.get_vocab_size(with_added_tokens=True)
    self.eos_id = self._special_id("eos_token")
    if self.eos_id is None:
      raise UserError(
        f'tokenizer: {directory} names no "eos_token" that it knows'
      )
    self.bos_id = self._special_id("bos_token")
    pad = self._special_id("pad_token")
    self.pad_id = self.eos_id if pad is None else pad

  def encode(self, text):
    """Token ids of a text; special tokens spelt in it are recognised."""
    return self._tokenizer.encode(text, add_special_tokens=False).ids

  def decode(self, ids):
    """The text of token ids, end-of-sequence and padding left out.

    Other special tokens stay: `<think>` is one to some tokenizers.
    """
    left_out = (self.eos_id, self.pad_id, self.bos_id)
    return self._tokenizer.decode(
      [i for i in ids if i not in left_out], skip_special_tokens=False
    )

  def template(self):
    """The `ChatTemplate`.

    Raises:
      UserError: there is none.
    """
    path = self._where / "chat_template.jinja"
    source = (
      path.read_text(encoding="utf-8")
      if path.exists()
      else self._config.get("chat_template")
    )
    if isinstance(source, list):  # several, by name
      named = {entry["name"]: entry["template"] for entry in source}
      source = named.get("default")
    if not source:
      raise UserError(
        f"tokenizer: {self._where} has no chat template, neither in"
        " tokenizer_config.json nor as chat_template.jinja"
      )
    special = {
      key: _text(value)
      for key, value in self._config.items()
      if key.endswith("_token") and _text(value)
    }
    return ChatTemplate(source, special)

  def _special_id(self, name):
    text = _text(self._config.get(name))
    return self._tokenizer.token_to_id(text) if text else None


@dataclasses.dataclass(frozen=True, kw_only=True)
class CountdownWords:
  """The tokenizer of Countdown's words; it knows no others."""

  kind: Literal["countdown"] = "countdown"

  def make(self):
    """The `WordTokenizer`."""
    return WordTokenizer(WORDS)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SentencePieceFile:
  """The keys of a tokenizer that is a SentencePiece model."""

  kind: Literal["sentencepiece"] = "sentencepiece"
  # Path of the `.model` file.
  path: str

  def make(self):
    """The `SentencePieceTokenizer`."""
    return SentencePieceTokenizer(self.path)


@dataclasses.dataclass(frozen=True, kw_only=True)
class HFDirectory:
  """The keys of a tokenizer of Hugging Face."""

  kind: Literal["hf"] = "hf"
  # Directory with tokenizer.json and tokenizer_config.json.
  path: str

  def make(self):
    """The `HFTokenizer`."""
    return HFTokenizer(self.path)


# The key `kind` of a config selects the class.
Tokenizers = CountdownWords | SentencePieceFile | HFDirectory


@functools.lru_cache(maxsize=8)
def load(config):
  """The tokenizer that a config describes, made once.

  Args:
    config: one of `Tokenizers`.

  Returns:
    a `Tokenizer`.

  Raises:
    UserError: a file is absent or damaged.
  """
  return config.make()


def _text(entry):
  """A special token's text: given plainly, or in an object."""
  if isinstance(entry, dict):
    entry = entry.get("content")
  return entry if isinstance(entry, str) else None


def _read(path):
  if not path.exists():
    return {}
  try:
    return json.loads(path.read_text(encoding="utf-8"))
  except ValueError as e:
    raise UserError(f"tokenizer: {path} is damaged, not JSON: {e}") from None
