"""Tokenizers of Hugging Face directories."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from r1jax import objects
from r1jax.errors import UserError
from r1jax.text.chat_template import ChatTemplate


class HFTokenizer:
  """A Hugging Face tokenizer: tokenizer.json and tokenizer_config.json.

  Completions end at the tokenizer's `eos_token` and at every `eos_token_id` of
  `generation_config.json`, or of `config.json` if that says nothing.

  Args:
    directory: the directory of these files.
    template_args: variables of the chat template, such as `enable_thinking`.

  Attributes:
    vocab_size: one more than the largest token id. A model's vocabulary may be
      padded to more.
    eos_id: `eos_token`, else the first `eos_token_id`.
    end_ids: all tokens that end a completion, `eos_id` the first of them.
    bos_id: `bos_token`, or None.
    pad_id: `pad_token`, else `eos_id`.

  Raises:
    UserError: a file is missing or damaged, or it names no end-of-sequence
      token.
  """

  def __init__(
    self,
    directory: str | Path,
    template_args: Mapping[str, Any] | None = None,
  ) -> None:
    directory = Path(directory)
    self._tokenizer = _read(directory / "tokenizer.json")
    self._where, self._arguments = directory, template_args
    # Older directories name their special tokens in a file of their own.
    older = _object(directory / "special_tokens_map.json")
    named = {k: x for k, x in older.items() if k.endswith("_token")}
    own = _object(directory / "tokenizer_config.json")
    self._config = named | {k: x for k, x in own.items() if x is not None}
    self.vocab_size = 1 + max(self._tokenizer.get_vocab().values(), default=-1)
    self.end_ids = self._ends()
    self.eos_id = self.end_ids[0]
    self.bos_id = self._special_id("bos_token")
    pad = self._special_id("pad_token")
    self.pad_id = self.eos_id if pad is None else pad
    added = self._tokenizer.get_added_tokens_decoder()
    self._special = {i for i, token in added.items() if token.special}
    self._begin = self._beginning()

  def encode(self, text: str) -> list[int]:
    """Token ids of a text from its beginning, such as a prompt.

    They begin as the tokenizer's own encoding does, with `<s>` for instance. A
    text that begins with a special token, as most chat templates make it, has
    its beginning already. Special tokens are recognized in the text.
    """
    ids = self.encode_rest(text)
    begun = bool(ids) and ids[0] in self._special
    return ids if begun else [*self._begin, *ids]

  def encode_rest(self, text: str) -> list[int]:
    """Token ids of a text that follows another one, such as a completion."""
    return self._tokenizer.encode(whole(text), add_special_tokens=False).ids

  def decode(self, ids: Iterable[int]) -> str:
    """The text of token ids, without padding, beginning and ends.

    Other special tokens stay, since `<think>` is one in some vocabularies.
    """
    left_out = {*self.end_ids, self.pad_id, self.bos_id}
    return self._tokenizer.decode(
      [i for i in ids if i not in left_out], skip_special_tokens=False
    )

  @property
  def has_template(self) -> bool:
    """Whether there is a chat template."""
    return bool(self._source())

  def template(self) -> ChatTemplate:
    """The tokenizer's `ChatTemplate`.

    Raises:
      UserError: the tokenizer has no chat template.
    """
    source = self._source()
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
    return ChatTemplate(source, special, self._arguments)

  def _source(self):
    """The text of the chat template, or None."""
    path = self._where / "chat_template.jinja"
    if path.exists():
      try:
        return path.read_text(encoding="utf-8")
      except (OSError, ValueError) as e:
        raise UserError(f"tokenizer: {path} cannot be read ({e})") from None
    source = self._config.get("chat_template") or _object(
      self._where / "chat_template.json"
    ).get("chat_template")
    if isinstance(source, list):  # several, by name
      entries = [entry for entry in source if isinstance(entry, dict)]
      named = {str(e.get("name")): e.get("template") for e in entries}
      return named.get("default")
    return source

  def _special_id(self, name):
    text = _text(self._config.get(name))
    return self._tokenizer.token_to_id(text) if text else None

  def _ends(self):
    """All tokens that end a completion, the tokenizer's own first."""
    own = self._special_id("eos_token")
    found = [] if own is None else [own]
    for name in ("generation_config.json", "config.json"):
      path = self._where / name
      ids = _object(path).get("eos_token_id")
      if ids is None:
        continue
      for i in ids if isinstance(ids, list) else [ids]:
        if type(i) is not int or not 0 <= i < self.vocab_size:
          raise UserError(
            f"tokenizer: {path}: eos_token_id={ids!r:.60} must be token ids"
            f" below the tokenizer's {self.vocab_size}"
          )
        found.append(i)
      break
    if not found:
      raise UserError(
        f'tokenizer: {self._where} names no "eos_token" that it knows, nor'
        " does generation_config.json"
      )
    return tuple(dict.fromkeys(found))

  def _beginning(self):
    """What the tokenizer's own encoding puts before a text: token ids.

    As in `transformers` 5, only the post-processor of tokenizer.json decides,
    and not the older key `add_bos_token` of tokenizer_config.json.
    """
    plain = self.encode_rest("a")
    whole = self._tokenizer.encode("a", add_special_tokens=True).ids
    starts = range(len(whole) - len(plain) + 1)
    found = (i for i in starts if whole[i : i + len(plain)] == plain)
    return whole[: next(found, 0)]


def whole(text: str) -> str:
  """The text with U+FFFD for each half of a surrogate pair.

  Such a half is no character, and no tokenizer takes it.
  """
  try:
    text.encode()
  except UnicodeEncodeError:
    pairs = text.encode("utf-16", "surrogatepass")
    return pairs.decode("utf-16", "replace")
  return text


def _read(path):
  """The `tokenizers.Tokenizer` of a file."""
  import tokenizers

  if not path.exists():
    pieces = path.with_name("tokenizer.model")
    hint = f'; tokenizer=dict(kind="sentencepiece", path="{pieces}") takes that'
    hint = f", only {pieces.name}{hint}" if pieces.exists() else ""
    raise UserError(f"tokenizer: there is no {path}{hint}")
  try:
    tokenizer = tokenizers.Tokenizer.from_file(str(path))
  except (KeyboardInterrupt, SystemExit):
    raise
  except BaseException as e:  # the library raises nothing narrower, or panics
    words = " ".join(str(e).split())[:200]
    raise UserError(f"tokenizer: {path} cannot be read ({words})") from None
  # Some files ask for these; prompts are never cut or filled here.
  tokenizer.no_truncation()
  tokenizer.no_padding()
  return tokenizer


def _object(path):
  """The JSON object in a file; an empty one if there is no file."""
  if not path.exists():
    return {}
  try:
    return objects.read(path)
  except UserError as e:
    raise UserError(f"tokenizer: {e}") from None


def _text(entry):
  """The text of a special token, which may be in an object."""
  if isinstance(entry, dict):
    entry = entry.get("content")
  return entry if isinstance(entry, str) else None
