"""Tokenizers of several formats with one small interface."""

import dataclasses
import functools
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

from r1jax.config import shown
from r1jax.errors import UserError
from r1jax.text.chat_template import RESERVED
from r1jax.text.countdown_words import WORDS
from r1jax.text.hf_tokenizer import HFTokenizer, whole


class Tokenizer(Protocol):
  """The interface that the rest of the project uses.

  Attributes:
    vocab_size: V, one more than the largest token id.
    eos_id: the token that ends the completions of examples.
    end_ids: all tokens that end a completion, `eos_id` the first of them.
    pad_id: the token that fills rows.
  """

  vocab_size: int
  eos_id: int
  end_ids: tuple[int, ...]
  pad_id: int

  def encode(self, text: str) -> list[int]:
    """Tokens of a text from its beginning, such as a prompt."""

  def encode_rest(self, text: str) -> list[int]:
    """Tokens of a text that follows another one, such as a completion."""

  def decode(self, ids: list[int]) -> str:
    """The text of tokens, without padding and end of sequence."""


class WordTokenizer:
  """A fixed vocabulary of words that white space separates.

  Id 0 is padding and id 1 ends a sequence.

  Args:
    words: distinct words, none of them empty.
  """

  pad_id, eos_id, end_ids = 0, 1, (1,)

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

  encode_rest = encode

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
    self.end_ids = (self.eos_id,)
    # Without padding pad_id is -1. Padding is masked, so id 0 serves too.
    self.pad_id = max(self._model.pad_id(), 0)

  def encode(self, text: str) -> list[int]:
    """Token ids of a text."""
    return self._model.encode(whole(text))

  encode_rest = encode

  def decode(self, ids: Iterable[int]) -> str:
    """The text of token ids, without special tokens."""
    special = (self.eos_id, self.pad_id)
    return self._model.decode([i for i in ids if i not in special])


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
  # Variables of the chat template, such as dict(enable_thinking=False).
  template_args: Mapping[str, Any] = dataclasses.field(default_factory=dict)

  def __post_init__(self):
    for name in self.template_args:
      if name in RESERVED:
        raise UserError(f"template_args.{name} is set by r1jax; remove it")
    try:
      json.dumps(self.template_args)
    except (TypeError, ValueError) as e:
      raise UserError(
        f"template_args={shown(self.template_args)} must be plain JSON: {e}"
      ) from None

  def __hash__(self):
    return hash((self.path, json.dumps(self.template_args, sort_keys=True)))

  def make(self) -> HFTokenizer:
    """The `HFTokenizer`."""
    return HFTokenizer(self.path, self.template_args)


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


def check_fits(tokenizer: Tokenizer, model_size: int, where: str) -> None:
  """Checks that a model has an embedding for each token of a tokenizer.

  Args:
    tokenizer: a `Tokenizer`.
    model_size: V of the model, which may be padded to more.
    where: what the message begins with.

  Raises:
    UserError: the tokenizer has more tokens.
  """
  if model_size < tokenizer.vocab_size:
    raise UserError(
      f"{where}vocab_size={model_size} must be at least the tokenizer's"
      f" {tokenizer.vocab_size}"
    )
