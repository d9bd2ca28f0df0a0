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
# Tokenizer of llama.cpp -> the list that it needs.
MODELS = {"gpt2": "merges", "llama": "scores"}
# Types of tokens in the format's table.
NORMAL, CONTROL, USER, BYTE = 1, 3, 4, 6
# What SentencePiece writes for a space.
SPACE = "\u2581"
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
  model = fields.get("tokenizer.ggml.model")
  if model not in MODELS:
    raise UserError(
      f"{path}: the tokenizer {str(model)[:60]} is unknown; known: gpt2"
      " (byte-level BPE), llama (SentencePiece)"
    )
  for key in ("tokens", "token_type", MODELS[model]):
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
  if "tokenizer.chat_template" in fields:
    config["chat_template"] = fields["tokenizer.chat_template"]
  make = _byte_level if model == "gpt2" else _sentencepiece
  tokenizer = make(path, fields, tokens)
  if fields.get("tokenizer.ggml.add_bos_token") and "bos_token" in config:
    bos = config["bos_token"]
    tokenizer.post_processor = _beginning(bos, tokens.index(bos))
  return tokenizer, config


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


def _beginning(text, number):
  """A post-processor that puts a token before every text."""
  from tokenizers import processors

  return processors.TemplateProcessing(
    single=[text, "$A"], special_tokens=[(text, number)]
  )


def _byte_level(path, fields, tokens):
  """A byte-level BPE `tokenizers.Tokenizer`.

  Args:
    path: of the GGUF file.
    fields: of the file.
    tokens: list of text, the vocabulary.
  """
  import tokenizers
  from tokenizers import decoders, models, pre_tokenizers

  pre = fields.get("tokenizer.ggml.pre", "default")
  if pre not in PRE_TOKENIZERS:
    raise UserError(
      f"{path}: the pre-tokenizer {pre} is unknown; known:"
      f" {', '.join(PRE_TOKENIZERS)}"
    )
  merges = [tuple(m.split(" ")) for m in fields["tokenizer.ggml.merges"]]
  tokenizer = tokenizers.Tokenizer(
    models.BPE({t: i for i, t in enumerate(tokens)}, merges)
  )
  steps = {
    "digits": pre_tokenizers.Digits(individual_digits=True),
    "bytes": pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
  }
  tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
    [steps[s] for s in PRE_TOKENIZERS[pre]]
  )
  tokenizer.decoder = decoders.ByteLevel()
  _add(tokenizer, fields, tokens, normalized=False)
  return tokenizer


def _add(tokenizer, fields, tokens, normalized):
  """Adds the tokens that are recognized before a text is split.

  Args:
    tokenizer, fields, tokens: as of `_byte_level`.
    normalized: whether those without a function are recognized in the
      normalized text.
  """
  import tokenizers

  kinds = fields["tokenizer.ggml.token_type"]
  for kind, special in ((CONTROL, True), (USER, False)):
    added = [t for t, k in zip(tokens, kinds) if k == kind]
    tokenizer.add_tokens(
      [
        tokenizers.AddedToken(
          t, special=special, normalized=normalized and not special
        )
        for t in added
      ]
    )


def _sentencepiece(path, fields, tokens):
  """A `tokenizers.Tokenizer` that encodes as SentencePiece's BPE.

  SentencePiece merges the neighbours whose piece has the best score. Here each
  way to merge two pieces into a third has a rank.

  Args:
    path, fields, tokens: as of `_byte_level`.
  """
  import tokenizers
  from tokenizers import decoders, models, normalizers

  if fields.get("tokenizer.ggml.add_space_prefix", True):
    raise UserError(
      f"{path}: tokenizer.ggml.add_space_prefix is not supported; only texts"
      " without a space before them are"
    )
  kinds = fields["tokenizer.ggml.token_type"]
  scores = fields["tokenizer.ggml.scores"]
  unknown = fields.get("tokenizer.ggml.unknown_token_id")
  tokenizer = tokenizers.Tokenizer(
    models.BPE(
      {t: i for i, t in enumerate(tokens)},
      _merges(tokens, kinds, scores),
      unk_token=None if unknown is None else tokens[unknown],
      fuse_unk=True,
      byte_fallback=BYTE in kinds,
    )
  )
  tokenizer.normalizer = normalizers.Replace(" ", SPACE)
  tokenizer.decoder = decoders.Sequence(
    [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
  )
  _add(tokenizer, fields, tokens, normalized=True)
  return tokenizer


def _merges(tokens, kinds, scores):
  """Pairs of pieces that merge into a third, the best score first."""
  normal = {t: i for i, (t, k) in enumerate(zip(tokens, kinds)) if k == NORMAL}
  found = []
  for piece, i in normal.items():
    for cut in range(1, len(piece)):
      left, right = piece[:cut], piece[cut:]
      if left in normal and right in normal:
        found.append((-scores[i], i, cut, left, right))
  found.sort()
  return [(left, right) for *_, left, right in found]
