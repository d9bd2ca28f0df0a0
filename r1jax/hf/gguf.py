"""GGUF files -> Hugging Face directories.

Weights are dequantised; the tokenizer and its chat template are rebuilt. The
architectures of Llama, which SmolLM2 has, and of Gemma 3 are known.
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from r1jax import files
from r1jax.errors import UserError
from r1jax.extras import need
from r1jax.hf import checks, families, gguf_tokenizer, reader, tensors

# Key of a GGUF, without its architecture -> key of config.json.
CONFIG = {
  "embedding_length": "hidden_size",
  "block_count": "num_hidden_layers",
  "attention.head_count": "num_attention_heads",
  "attention.head_count_kv": "num_key_value_heads",
  "feed_forward_length": "intermediate_size",
  "context_length": "max_position_embeddings",
  "rope.freq_base": "rope_theta",
  "attention.layer_norm_rms_epsilon": "rms_norm_eps",
}

# Key of rope.scaling -> key of rope_scaling, for YaRN.
YARN = {
  "original_context_length": "original_max_position_embeddings",
  "yarn_beta_fast": "beta_fast",
  "yarn_beta_slow": "beta_slow",
}

# The same of keys that may be absent.
OPTIONAL = {
  "attention.key_length": "head_dim",
  "rope.freq_base_swa": "rope_local_base_freq",
}

# Tensor of a GGUF -> tensor of a Hugging Face checkpoint.
TENSORS = {
  "token_embd.weight": "model.embed_tokens.weight",
  "output_norm.weight": "model.norm.weight",
  "output.weight": "lm_head.weight",
}
_LAYER = {
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


class Architecture(NamedTuple):
  """What is particular to one architecture of GGUF files.

  Attributes:
    fixed: entries of config.json.
    config: further keys, as in `CONFIG`, that the file must have.
    layer: tensor of a layer -> tensor of a Hugging Face checkpoint.
    permuted: whether the rows of q and k are in another order.
    offset: what the gains of norms are larger by.
  """

  fixed: Mapping[str, Any]
  layer: Mapping[str, str]
  config: Mapping[str, str] = MappingProxyType({})
  permuted: bool = False
  offset: float = 0.0


ARCHITECTURES = {
  "llama": Architecture(
    {
      "architectures": ["LlamaForCausalLM"],
      "model_type": "llama",
      "hidden_act": "silu",
    },
    _LAYER,
    permuted=True,
  ),
  "gemma3": Architecture(
    {
      "architectures": ["Gemma3ForCausalLM"],
      "model_type": "gemma3_text",
      "hidden_activation": "gelu_pytorch_tanh",
    },
    _LAYER
    | {
      "attn_q_norm.weight": "self_attn.q_norm.weight",
      "attn_k_norm.weight": "self_attn.k_norm.weight",
      "post_attention_norm.weight": "post_attention_layernorm.weight",
      "ffn_norm.weight": "pre_feedforward_layernorm.weight",
      "post_ffw_norm.weight": "post_feedforward_layernorm.weight",
    },
    {
      "attention.key_length": "query_pre_attn_scalar",
      "attention.sliding_window": "sliding_window",
    },
    offset=1.0,
  ),
}
# Layers of the only Gemma 3 (27B) whose scores have a scale of their own.
_GEMMA_27B = 62


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
  file = _open(path)
  fields = {k: f.contents() for k, f in file.fields.items()}
  name = fields.get("general.architecture")
  if name not in ARCHITECTURES:
    raise UserError(
      f"{path}: the architecture {str(name)[:60]} is unknown; known:"
      f" {', '.join(ARCHITECTURES)}"
    )
  if fields.get("split.count", 1) not in (0, 1):
    raise UserError(
      f"{path} is one of {fields['split.count']!r:.20} parts; join them with"
      " llama.cpp's gguf-split --merge first"
    )
  architecture = ARCHITECTURES[name]
  config = _config(path, file, fields)
  config["torch_dtype"] = dtype
  tokenizer, tokenizer_config = gguf_tokenizer.rebuilt(path, fields)
  weights = {
    _name(path, architecture, t.name): _weight(t, architecture, config)
    for t in file.tensors
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
    try:
      reader.check(unfinished)
    except UserError as e:
      words = str(e).replace(str(unfinished), "what it makes")
      raise UserError(f"{path}: {words}") from None


def _config(path, file, fields):
  """The dict of config.json, checked as the reader of such files does."""
  prefix = fields["general.architecture"]
  architecture = ARCHITECTURES[prefix]
  config = dict(architecture.fixed)
  for key, name in {**CONFIG, **architecture.config}.items():
    key = f"{prefix}.{key}"
    if key not in fields:
      raise UserError(f"{path}: the key {key} is missing")
    value = fields[key]
    config[name] = round(value, 9) if isinstance(value, float) else value
  own = {k.removeprefix(f"{prefix}."): x for k, x in fields.items()}
  for key, name in OPTIONAL.items():
    if key in own:
      config[name] = own[key]
  scaling = _scaling(path, own)
  if scaling:
    config["rope_scaling"] = scaling
  stored = {t.name: t for t in file.tensors}
  config["tie_word_embeddings"] = "output.weight" not in stored
  config["vocab_size"] = len(fields.get("tokenizer.ggml.tokens", ()))
  config["bos_token_id"] = fields.get("tokenizer.ggml.bos_token_id")
  config["eos_token_id"] = gguf_tokenizer.ends(path, fields)
  family = families.of_config(config, str(path))
  ours = family.fields(config, str(path))
  if prefix == "gemma3" and ours["n_layers"] == _GEMMA_27B:
    config["query_pre_attn_scalar"] = ours["d_model"] // ours["n_heads"]
  checks.sizes(path, ours, stored)
  rotated = own.get("rope.dimension_count", ours["head_dim"])
  if rotated != ours["head_dim"]:
    raise UserError(
      f"{path}: rope.dimension_count={rotated!r:.60} is not supported; only"
      f" the head's {ours['head_dim']} dimensions are"
    )
  return config


def _scaling(path, fields):
  """The entry rope_scaling of config.json, or None.

  Args:
    path: of the file.
    fields: key without its architecture -> value.
  """
  factor = fields.get("rope.scaling.factor", fields.get("rope.scale_linear"))
  kind = fields.get("rope.scaling.type", "linear")
  if kind == "none" or not factor or (kind == "linear" and factor == 1):
    return None
  if not isinstance(factor, int | float) or not 0 < factor < math.inf:
    raise UserError(
      f"{path}: rope.scaling.factor={factor!r:.60} must be a number above 0"
    )
  for key in ("yarn_log_multiplier", "alpha"):
    if fields.get(f"rope.scaling.{key}"):
      raise UserError(f"{path}: rope.scaling.{key} is not supported")
  if kind == "linear":
    return {"rope_type": "linear", "factor": factor}
  if kind != "yarn":
    raise UserError(
      f"{path}: rope.scaling.type={kind!r:.60} is unknown; known: none,"
      " linear, yarn"
    )
  scaling = {"rope_type": "yarn", "factor": factor}
  for key, name in YARN.items():
    if f"rope.scaling.{key}" in fields:
      scaling[name] = fields[f"rope.scaling.{key}"]
  scale = fields.get("rope.scaling.attn_factor", 1.0)
  if scale != 1:
    scaling["attention_factor"] = scale * (0.1 * math.log(factor) + 1)
  return scaling


def _open(path):
  try:
    return need("gguf").GGUFReader(path)
  except (
    OSError, ValueError, IndexError, KeyError, TypeError, OverflowError,
    MemoryError,
  ) as e:  # fmt: skip
    words = " ".join(str(e).split())[:200]
    raise UserError(f"{path} cannot be read as GGUF ({words})") from None


def _name(path, architecture, name):
  """The name of a tensor in a Hugging Face checkpoint."""
  if name in TENSORS:
    return TENSORS[name]
  layer, _, rest = name.removeprefix("blk.").partition(".")
  if not name.startswith("blk.") or rest not in architecture.layer:
    raise UserError(f"{path}: the tensor {name} is left over: no parameter")
  return f"model.layers.{layer}.{architecture.layer[rest]}"


def _weight(tensor, architecture, config):
  """A tensor as numpy array, as a Hugging Face checkpoint has it."""
  w = need("gguf.quants").dequantize(tensor.data, tensor.tensor_type)
  if architecture.permuted and tensor.name.endswith("attn_q.weight"):
    w = _unpermute(w, config["num_attention_heads"])
  elif architecture.permuted and tensor.name.endswith("attn_k.weight"):
    w = _unpermute(w, config["num_key_value_heads"])
  elif tensor.name.endswith("norm.weight") and architecture.offset:
    w = w - np.float32(architecture.offset)
  dtype = config["torch_dtype"]
  kind = ml_dtypes.bfloat16 if dtype == "bfloat16" else np.dtype(dtype)
  return np.ascontiguousarray(w.astype(kind))


def _unpermute(w, heads):
  """Reorders the rows of a head for RoPE.

  RoPE pairs neighbouring rows in Llama's GGUF, and in a Hugging Face
  checkpoint a row of the first half with one of the second half.
  """
  rows = w.shape[0] // heads
  return w.reshape(heads, rows // 2, 2, -1).swapaxes(1, 2).reshape(w.shape)
