"""Tokenizers of GGUF files, as Hugging Face stores them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from r1jax.errors import UserError

# Pre-tokenizer of llama.cpp -> the steps in which it splits a text.
PRE_TOKENIZERS = {
  "smollm": ("digits", "bytes"),
  "default": ("bytes",),
  "gpt-2": ("bytes",),
}
# The tokens that end a text, a turn or a message: any ends a completion.
ENDS = ("eos", "eot", "eom")


def rebuilt(path: str | Path, fields: Mapping[str, Any]) -> tuple[Any, dict]:
  """A `tokenizers.Tokenizer` and the dict of tokenizer_config.json.

  Args:
    path: of the GGUF file, for messages.
    fields: of the file.

  Raises:
    UserError: the tokenizer is unknown, or its vocabulary is damaged.
  """
  if fields.get("tokenizer.ggml.model") != "gpt2":
    raise UserError(
      f"{path}: the tokenizer {fields.get('tokenizer.ggml.model')} is"
      " unknown; known: gpt2 (byte-level BPE)"
    )
  pre = fields.get("tokenizer.ggml.pre", "default")
  if pre not in PRE_TOKENIZERS:
    raise UserError(
      f"{path}: the pre-tokenizer {pre} is unknown; known:"
      f" {', '.join(PRE_TOKENIZERS)}"
    )
  for key in ("tokens", "merges", "token_type"):
    if not isinstance(fields.get(f"tokenizer.ggml.{key}"), list):
      raise UserError(f"{path}: the list tokenizer.ggml.{key} is missing")
  tokens = fields["tokenizer.ggml.tokens"]
  config: dict[str, Any] = {"tokenizer_class": "PreTrainedTokenizerFast"}
  for name, key in (
    ("bos", "bos"), ("eos", "eos"), ("unk", "unknown"), ("pad", "padding"),
  ):  # fmt: skip
    i = fields.get(f"tokenizer.ggml.{key}_token_id")
    if i is not None:
      config[f"{name}_token"] = _token(path, tokens, f"{key}_token_id", i)
  if "tokenizer.ggml.add_bos_token" in fields:
    config["add_bos_token"] = bool(fields["tokenizer.ggml.add_bos_token"])
  if "tokenizer.chat_template" in fields:
    config["chat_template"] = fields["tokenizer.chat_template"]
  return _byte_level(fields, tokens, PRE_TOKENIZERS[pre]), config


def ends(path: str | Path, fields: Mapping[str, Any]) -> Any:
  """The `eos_token_id` of generation_config.json: a number, a list or None.

  Args:
    path: of the GGUF file, for messages.
    fields: of the file.
  """
  tokens = fields.get("tokenizer.ggml.tokens", ())
  found: list[int] = []
  for key in ENDS:
    i = fields.get(f"tokenizer.ggml.{key}_token_id")
    if i is not None and i not in found:
      _token(path, tokens, f"{key}_token_id", i)
      found.append(int(i))
  return found if len(found) > 1 else next(iter(found), None)


def _token(path, tokens, key, i):
  if not isinstance(i, int) or not 0 <= i < len(tokens):
    raise UserError(
      f"{path}: tokenizer.ggml.{key}={i!r:.60} is none of its"
      f" {len(tokens)} tokens"
    )
  return tokens[i]


def _byte_level(fields, tokens, splits):
  """A byte-level BPE `tokenizers.Tokenizer`.

  Args:
    fields: of the GGUF file.
    tokens: list of text, the vocabulary.
    splits: of `PRE_TOKENIZERS`.
  """
  import tokenizers
  from tokenizers import decoders, models, pre_tokenizers

  merges = [tuple(m.split(" ")) for m in fields["tokenizer.ggml.merges"]]
  tokenizer = tokenizers.Tokenizer(
    models.BPE({t: i for i, t in enumerate(tokens)}, merges)
  )
  steps = {
    "digits": pre_tokenizers.Digits(individual_digits=True),
    "bytes": pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
  }
  tokenizer.pre_tokenizer = pre_tokenizers.Sequence([steps[s] for s in splits])
  tokenizer.decoder = decoders.ByteLevel()
  # In the format's table of token types 3 is "control", 4 "user-defined".
  kinds = fields["tokenizer.ggml.token_type"]
  for kind, special in ((3, True), (4, False)):
    added = [t for t, k in zip(tokens, kinds) if k == kind]
    tokenizer.add_tokens(
      [
        tokenizers.AddedToken(t, special=special, normalized=False)
        for t in added
      ]
    )
  return tokenizer
