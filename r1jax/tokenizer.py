"""Text to tokens and back, behind one small interface."""

from typing import Protocol

from r1jax.errors import UserError


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
