"""GGUF files: weights dequantised, tokenizer and template rebuilt.

Only the Llama architecture is known, which SmolLM2 has.
"""

import json
import shutil
from pathlib import Path

import ml_dtypes
import numpy as np

from r1jax.errors import UserError
from r1jax.hf.weights import SINGLE, write_tensors

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

# How llama.cpp's pre-tokenizers split a text, for those that are known.
PRE_TOKENIZERS = {
  "smollm": ("digits", "bytes"),
  "default": ("bytes",),
  "gpt-2": ("bytes",),
}


def convert(path, directory, dtype="float32"):
  """Writes a GGUF file as a Hugging Face directory.

  Args:
    path: of the file. directory: to be made, whole or not at all.
    dtype: of the weights written.

  Raises:
    UserError: the file is damaged, of another architecture, or holds a
      tokenizer that is not known.
  """
  reader = _open(path)
  fields = {k: f.contents() for k, f in reader.fields.items()}
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
  tokenizer, tokenizer_config = _tokenizer(path, fields)
  weights = {
    _name(path, t.name): _weight(t, config, dtype) for t in reader.tensors
  }

  directory = Path(directory).absolute()
  if directory.exists() and any(directory.iterdir()):
    raise UserError(f"{directory} is not empty; name another directory")
  unfinished = directory.with_name(f".{directory.name}.unfinished")
  shutil.rmtree(unfinished, ignore_errors=True)
  unfinished.mkdir(parents=True)
  try:
    write_tensors(unfinished / SINGLE, weights)
    tokenizer.save(str(unfinished / "tokenizer.json"))
    for name, content in (
      ("config.json", config),
      ("tokenizer_config.json", tokenizer_config),
      ("generation_config.json", {
        k: config[k] for k in ("bos_token_id", "eos_token_id")
      }),
    ):  # fmt: skip
      (unfinished / name).write_text(json.dumps(content, indent=2) + "\n")
    if directory.exists():
      directory.rmdir()
    unfinished.rename(directory)
  finally:
    shutil.rmtree(unfinished, ignore_errors=True)


def _open(path):
  import gguf

  try:
    return gguf.GGUFReader(path)
  except (OSError, ValueError, IndexError, KeyError) as e:
    raise UserError(f"{path} cannot be read as GGUF ({e})") from None


def _name(path, name):
  if name in TENSORS:
    return TENSORS[name]
  block, _, rest = name.removeprefix("blk.").partition(".")
  if not name.startswith("blk.") or rest not in LAYER:
    raise UserError(f"{path}: the tensor {name} is left over: no parameter")
  return f"model.layers.{block}.{LAYER[rest]}"


def _weight(tensor, config, dtype):
  from gguf import quants

  w = quants.dequantize(tensor.data, tensor.tensor_type)
  if tensor.name.endswith("attn_q.weight"):
    w = _unpermute(w, config["num_attention_heads"])
  elif tensor.name.endswith("attn_k.weight"):
    w = _unpermute(w, config["num_key_value_heads"])
  kind = ml_dtypes.bfloat16 if dtype == "bfloat16" else np.dtype(dtype)
  return np.ascontiguousarray(w.astype(kind))


def _unpermute(w, heads):
  """Llama's GGUF rotates neighbours; we rotate the halves of a head."""
  rows = w.shape[0] // heads
  return w.reshape(heads, rows // 2, 2, -1).swapaxes(1, 2).reshape(w.shape)


def _tokenizer(path, fields):
  """A `tokenizers.Tokenizer` and the tokenizer_config.json beside it."""
  import tokenizers
  from tokenizers import decoders, models, pre_tokenizers

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
  # 3 is "control", 4 "user-defined" in the format's table of token types.
  kinds = fields["tokenizer.ggml.token_type"]
  for kind, special in ((3, True), (4, False)):
    added = [t for t, k in zip(tokens, kinds) if k == kind]
    tokenizer.add_tokens(
      [
        tokenizers.AddedToken(t, special=special, normalized=False)
        for t in added
      ]
    )
  config = {"tokenizer_class": "PreTrainedTokenizerFast"}
  for name in ("bos", "eos", "unk", "pad"):
    key = "padding" if name == "pad" else "unknown" if name == "unk" else name
    i = fields.get(f"tokenizer.ggml.{key}_token_id")
    if i is not None:
      config[f"{name}_token"] = tokens[i]
  if "tokenizer.chat_template" in fields:
    config["chat_template"] = fields["tokenizer.chat_template"]
  return tokenizer, config
