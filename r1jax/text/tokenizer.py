"""Tokenizers of several formats with one small interface."""

import dataclasses
import functools
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

from r1jax.errors import UserError
from r1jax.text.chat_template import ChatTemplate
from r1jax.text.countdown_words import WORDS


class Tokenizer(Protocol):
  """The interface that the rest of the project uses.

  Attributes:
    vocab_size: V, the number of token ids.
    eos_id: the token that ends every completion.
    pad_id: the token that fills rows.
  """

  vocab_size: int
  eos_id: int
  pad_id: int

  def encode(self, text: str) -> list[int]:
    """Tokens of a text; adds no special tokens."""

  def decode(self, ids: list[int]) -> str:
    """The text of tokens, without padding and end of sequence."""


class WordTokenizer:
  """A fixed vocabulary of words that white space separates.

  Id 0 is padding and id 1 ends a sequence.

  Args:
    words: distinct words, none of them empty.
  """

  pad_id, eos_id = 0, 1

  def __init__(self, words: Sequence[str]) -> None:
    self._words = ("<pad>", "<eos>", *words)
    # Without the first two, so that no text can spell the end of a sequence.
    self._ids = {word: i for i, word in enumerate(words, 2)}
    if len(self._ids) + 2 != len(self._words):
      raise UserError("tokenizer: the words of a vocabulary must be distinct")
    self.vocab_size = len(self._words)

  def encode(self, text: str) -> list[int]:
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

  def decode(self, ids: Iterable[int]) -> str:
    """The words of token ids, joined by single spaces."""
    return " ".join(self._words[i] for i in ids if i > 1)


class SentencePieceTokenizer:
  """A SentencePiece model.

  Args:
    path: path of the `.model` file.

  Raises:
    UserError: there is no such file, it is not a SentencePiece model, or it has
      no end-of-sequence piece.
  """

  def __init__(self, path: str | Path) -> None:
    import sentencepiece

    try:
      self._model = sentencepiece.SentencePieceProcessor(model_file=str(path))
    except (OSError, RuntimeError) as e:
      raise UserError(f"tokenizer: {path}: {str(e).splitlines()[0]}") from None
    self.vocab_size = self._model.vocab_size()
    self.eos_id = self._model.eos_id()
    if self.eos_id < 0:
      raise UserError(f"tokenizer: {path} has no end-of-sequence piece")
    # Without padding pad_id is -1. Padding is masked, so id 0 serves too.
    self.pad_id = max(self._model.pad_id(), 0)

  def encode(self, text: str) -> list[int]:
    """Token ids of a text."""
    return self._model.encode(text)

  def decode(self, ids: Iterable[int]) -> str:
    """The text of token ids, without special tokens."""
    special = (self.eos_id, self.pad_id)
    return self._model.decode([i for i in ids if i not in special])


class HFTokenizer:
  """A Hugging Face tokenizer: tokenizer.json and tokenizer_config.json.

  Args:
    directory: the directory of these files.

  Attributes:
    vocab_size: number of token ids. A model's vocabulary may be padded to more.

  Raises:
    UserError: a file is missing or damaged, or it names no end-of-sequence
      token.
  """

  def __init__(self, directory: str | Path) -> None:
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

  def encode(self, text: str) -> list[int]:
    """Token ids of a text, in which special tokens are recognized."""
    return self._tokenizer.encode(text, add_special_tokens=False).ids

  def decode(self, ids: Iterable[int]) -> str:
    """The text of token ids, without padding and end of sequence.

    Other special tokens stay, since `<think>` is one in some vocabularies.
    """
    left_out = (self.eos_id, self.pad_id, self.bos_id)
    return self._tokenizer.decode(
      [i for i in ids if i not in left_out], skip_special_tokens=False
    )

  def template(self) -> ChatTemplate:
    """The tokenizer's `ChatTemplate`.

    Raises:
      UserError: the tokenizer has no chat template.
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

  def make(self) -> WordTokenizer:
    """The `WordTokenizer`."""
    return WordTokenizer(WORDS)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SentencePieceFile:
  """The keys of a tokenizer that is a SentencePiece model."""

  kind: Literal["sentencepiece"] = "sentencepiece"
  # Path of the `.model` file.
  path: str

  def make(self) -> SentencePieceTokenizer:
    """The `SentencePieceTokenizer`."""
    return SentencePieceTokenizer(self.path)


@dataclasses.dataclass(frozen=True, kw_only=True)
class HFDirectory:
  """The keys of a tokenizer of Hugging Face."""

  kind: Literal["hf"] = "hf"
  # Directory with tokenizer.json and tokenizer_config.json.
  path: str

  def make(self) -> HFTokenizer:
    """The `HFTokenizer`."""
    return HFTokenizer(self.path)


# The key `kind` of a config selects the class.
Tokenizers = CountdownWords | SentencePieceFile | HFDirectory


@functools.lru_cache(maxsize=8)
def load(config: Any) -> Tokenizer:
  """The tokenizer that a config describes, made once.

  Args:
    config: one of `Tokenizers`.

  Returns:
    a `Tokenizer`.

  Raises:
    UserError: a file is missing or damaged.
  """
  return config.make()


def _text(entry):
  """The text of a special token, which may be in an object."""
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
