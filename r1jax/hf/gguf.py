"""GGUF files -> Hugging Face directories.

Weights are dequantised; the tokenizer and its chat template are rebuilt. Only
the Llama architecture is known, which SmolLM2 has.
"""

import json
from pathlib import Path

import ml_dtypes
import numpy as np

from r1jax import files
from r1jax.errors import UserError
from r1jax.extras import need
from r1jax.hf import tensors

# Key of a Llama GGUF -> key of config.json.
CONFIG = {
  "llama.embedding_length": "hidden_size",
  "llama.block_count": "num_hidden_layers",
  "llama.attention.head_count": "num_attention_heads",
  "llama.attention.head_count_kv": "num_key_value_heads",
  "llama.feed_forward_length": "intermediate_size",
  "llama.context_length": "max_position_embeddings",
  "llama.rope.freq_base": "rope_theta",
  "llama.attention.layer_norm_rms_epsilon": "rms_norm_eps",
}

# Tensor of a GGUF -> tensor of a Hugging Face checkpoint.
TENSORS = {
  "token_embd.weight": "model.embed_tokens.weight",
  "output_norm.weight": "model.norm.weight",
  "output.weight": "lm_head.weight",
}
LAYER = {
  "attn_norm.weight": "input_layernorm.weight",
  "ffn_norm.weight": "post_attention_layernorm.weight",
  "attn_q.weight": "self_attn.q_proj.weight",
  "attn_k.weight": "self_attn.k_proj.weight",
  "attn_v.weight": "self_attn.v_proj.weight",
  "attn_output.weight": "self_attn.o_proj.weight",
  "ffn_gate.weight": "mlp.gate_proj.weight",
  "ffn_up.weight": "mlp.up_proj.weight",
  "ffn_down.weight": "mlp.down_proj.weight",
}

# Pre-tokenizer of llama.cpp -> the steps in which it splits a text.
PRE_TOKENIZERS = {
  "smollm": ("digits", "bytes"),
  "default": ("bytes",),
  "gpt-2": ("bytes",),
}


def convert(
  path: str | Path, directory: str | Path, dtype: str = "float32"
) -> None:
  """Writes a GGUF file as a Hugging Face directory, whole or not at all.

  Args:
    path: of the file.
    directory: to be made; it must be absent or empty.
    dtype: name of the dtype of the weights to write.

  Raises:
    UserError: the file is damaged, has another architecture or an unknown
      tokenizer, or the directory is not empty.
  """
  reader = _open(path)
  fields = {k: f.contents() for k, f in reader.fields.items()}
  config = _config(path, reader, fields, dtype)
  tokenizer, tokenizer_config = _tokenizer(path, fields)
  weights = {
    _name(path, t.name): _weight(t, config, dtype) for t in reader.tensors
  }
  with files.whole_directory(directory) as unfinished:
    unfinished.mkdir()
    tensors.write(unfinished / tensors.SINGLE, weights)
    tokenizer.save(str(unfinished / "tokenizer.json"))
    for name, content in (
      ("config.json", config),
      ("tokenizer_config.json", tokenizer_config),
      ("generation_config.json", {
        k: config[k] for k in ("bos_token_id", "eos_token_id")
      }),
    ):  # fmt: skip
      (unfinished / name).write_text(json.dumps(content, indent=2) + "\n")


def _config(path, reader, fields, dtype):
  """The dict of config.json."""
  architecture = fields.get("general.architecture")
  if architecture != "llama":
    raise UserError(
      f'{path}: the architecture "{architecture}" is unknown; known: llama'
    )
  config = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_act": "silu",
    "torch_dtype": dtype,
  }
  for key, name in CONFIG.items():
    if key not in fields:
      raise UserError(f"{path}: the key {key} is missing")
    value = fields[key]
    config[name] = round(value, 9) if isinstance(value, float) else value
  names = {t.name for t in reader.tensors}
  config["tie_word_embeddings"] = "output.weight" not in names
  config["vocab_size"] = len(fields["tokenizer.ggml.tokens"])
  config["bos_token_id"] = fields.get("tokenizer.ggml.bos_token_id")
  config["eos_token_id"] = fields.get("tokenizer.ggml.eos_token_id")
  return config


def _open(path):
  try:
    return need("gguf").GGUFReader(path)
  except (OSError, ValueError, IndexError, KeyError) as e:
    raise UserError(f"{path} cannot be read as GGUF ({e})") from None


def _name(path, name):
  """The name of a tensor in a Hugging Face checkpoint."""
  if name in TENSORS:
    return TENSORS[name]
  layer, _, rest = name.removeprefix("blk.").partition(".")
  if not name.startswith("blk.") or rest not in LAYER:
    raise UserError(f"{path}: the tensor {name} is left over: no parameter")
  return f"model.layers.{layer}.{LAYER[rest]}"


def _weight(tensor, config, dtype):
  """A tensor as numpy array, as a Hugging Face checkpoint has it."""
  w = need("gguf.quants").dequantize(tensor.data, tensor.tensor_type)
  if tensor.name.endswith("attn_q.weight"):
    w = _unpermute(w, config["num_attention_heads"])
  elif tensor.name.endswith("attn_k.weight"):
    w = _unpermute(w, config["num_key_value_heads"])
  kind = ml_dtypes.bfloat16 if dtype == "bfloat16" else np.dtype(dtype)
  return np.ascontiguousarray(w.astype(kind))


def _unpermute(w, heads):
  """Reorders the rows of a head for RoPE.

  RoPE pairs neighbouring rows in Llama's GGUF, and in a Hugging Face
  checkpoint a row of the first half with one of the second half.
  """
  rows = w.shape[0] // heads
  return w.reshape(heads, rows // 2, 2, -1).swapaxes(1, 2).reshape(w.shape)


def _tokenizer(path, fields):
  """A `tokenizers.Tokenizer` and the dict of tokenizer_config.json."""
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
  tokens = fields["tokenizer.ggml.tokens"]
  config = {"tokenizer_class": "PreTrainedTokenizerFast"}
  for name, key in (
    ("bos", "bos"), ("eos", "eos"), ("unk", "unknown"), ("pad", "padding"),
  ):  # fmt: skip
    i = fields.get(f"tokenizer.ggml.{key}_token_id")
    if i is not None:
      config[f"{name}_token"] = tokens[i]
  if "tokenizer.chat_template" in fields:
    config["chat_template"] = fields["tokenizer.chat_template"]
  return _byte_level(fields, tokens, PRE_TOKENIZERS[pre]), config


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
