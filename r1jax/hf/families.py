"""The architectures that are known: their configs and the names of weights.

A family is a row of `FAMILIES`; `config.json` and `ModelConfig` are turned
into each other by the one table `FIELDS`, and weights by `tensors`.
"""

import dataclasses
import math

from r1jax.errors import UserError
from r1jax.model import RopeScaling


@dataclasses.dataclass(frozen=True)
class Family:
  """What an architecture fixes.

  Attributes:
    architecture, model_type: as `config.json` has them.
    qkv_bias, qk_norm: of `ModelConfig`.
  """

  architecture: str
  model_type: str
  qkv_bias: bool = False
  qk_norm: bool = False


FAMILIES = (
  Family("LlamaForCausalLM", "llama"),  # SmolLM2 and R1-Distill-Llama too
  Family("Qwen2ForCausalLM", "qwen2", qkv_bias=True),  # R1-Distill-Qwen too
  Family("Qwen3ForCausalLM", "qwen3", qk_norm=True),
)

# ModelConfig <- config.json, and the value where config.json is silent
# (`...`: it must not be).
FIELDS = {
  "vocab_size": ("vocab_size", ...),
  "d_model": ("hidden_size", ...),
  "n_layers": ("num_hidden_layers", ...),
  "n_heads": ("num_attention_heads", ...),
  "n_kv_heads": ("num_key_value_heads", None),
  "head_dim": ("head_dim", None),
  "d_ff": ("intermediate_size", ...),
  "max_length": ("max_position_embeddings", ...),
  "rms_eps": ("rms_norm_eps", 1e-6),
  "tied": ("tie_word_embeddings", False),
}

# What we compute in one way only: key -> the value that it must have.
FIXED = {
  "hidden_act": "silu",
  "mlp_bias": False,
  "use_sliding_window": False,
}

# RopeScaling <- config.json.
SCALING = {
  "factor": "factor",
  "original_max_length": "original_max_position_embeddings",
  "low_freq_factor": "low_freq_factor",
  "high_freq_factor": "high_freq_factor",
  "beta_fast": "beta_fast",
  "beta_slow": "beta_slow",
  "attention_factor": "attention_factor",
  "truncate": "truncate",
}


def from_hf(raw, where="config.json"):
  """The fields of a `ModelConfig` for a `config.json`.

  Args:
    raw: its dict.
    where: of messages.

  Returns:
    dict of keyword arguments.

  Raises:
    UserError: the architecture is unknown, a key is absent, or asks for what
      the decoder does not compute.
  """
  family = _family(raw, where)
  fields = {"qkv_bias": family.qkv_bias, "qk_norm": family.qk_norm}
  for ours, (theirs, default) in FIELDS.items():
    value = raw.get(theirs)
    if value is None and default is ...:
      raise UserError(f'{where}: the key "{theirs}" is missing')
    fields[ours] = default if value is None else value
  if fields["n_kv_heads"] is None:
    fields["n_kv_heads"] = fields["n_heads"]
  if fields["head_dim"] is None:
    fields["head_dim"] = fields["d_model"] // fields["n_heads"]
  fixed = FIXED if family.qkv_bias else FIXED | {"attention_bias": False}
  for key, value in fixed.items():
    if raw.get(key, value) != value:
      raise UserError(
        f"{where}: {key}={raw[key]!r} is not supported; only {value!r} is"
      )
  # Newer files hold all of RoPE in one entry.
  rope = raw.get("rope_parameters") or raw.get("rope_scaling") or {}
  theta = raw.get("rope_theta", rope.get("rope_theta"))
  fields["rope_theta"] = float(10_000.0 if theta is None else theta)
  fields["rope_scaling"] = _scaling(rope, fields["max_length"], where)
  return fields


def _family(raw, where):
  names = raw.get("architectures") or [f'model_type "{raw.get("model_type")}"']
  for family in FAMILIES:
    if family.architecture in names or (
      "architectures" not in raw and raw.get("model_type") == family.model_type
    ):
      return family
  known = ", ".join(f.architecture for f in FAMILIES)
  raise UserError(
    f"{where}: the architecture {', '.join(names)} is unknown; known: {known}"
  )


def _scaling(rope, max_length, where):
  kind = rope.get("rope_type", rope.get("type", "default"))
  if kind == "default":
    return None
  given = {
    ours: rope[theirs]
    for ours, theirs in SCALING.items()
    if rope.get(theirs) is not None
  }
  if kind == "yarn":
    given.setdefault("original_max_length", max_length)
    scales = rope.get("mscale"), rope.get("mscale_all_dim")
    if "attention_factor" not in given and all(scales):
      first, second = (_mscale(rope["factor"], m) for m in scales)
      given["attention_factor"] = first / second
  try:
    return RopeScaling(kind, **given)
  except (UserError, TypeError) as e:
    raise UserError(f"{where}: {e}") from None


def _mscale(factor, scale):
  return 0.1 * scale * math.log(factor) + 1.0 if factor > 1 else 1.0


def to_hf(model):
  """The `config.json` of a `ModelConfig`, as a dict.

  Raises:
    UserError: no architecture has its features.
  """
  for family in FAMILIES:
    if (family.qkv_bias, family.qk_norm) == (model.qkv_bias, model.qk_norm):
      break
  else:
    raise UserError(
      f"no known architecture has qkv_bias={model.qkv_bias} with"
      f" qk_norm={model.qk_norm}; known:"
      f" {', '.join(f.architecture for f in FAMILIES)}"
    )
  raw = {
    "architectures": [family.architecture],
    "model_type": family.model_type,
    "hidden_act": "silu",
    "torch_dtype": model.param_dtype,
    "rope_theta": model.rope_theta,
  }
  raw |= {theirs: getattr(model, ours) for ours, (theirs, _) in FIELDS.items()}
  if model.rope_scaling is not None:
    s = dataclasses.asdict(model.rope_scaling)
    raw["rope_scaling"] = {"rope_type": s["kind"]} | {
      theirs: s[ours] for ours, theirs in SCALING.items() if s[ours] is not None
    }
  return raw


@dataclasses.dataclass(frozen=True)
class Tensor:
  """Where a leaf of our parameters lies in a checkpoint.

  Attributes:
    name: of the tensor; "{}" stands for the number of the layer.
    transposed: whether it is [out, in] there and [in, out] here.
  """

  name: str
  transposed: bool = False

  def of(self, layer):
    """The name of one layer's tensor."""
    return self.name.format(layer)


_ATTENTION = "model.layers.{}.self_attn"

# Leaf of our parameters -> tensor; the leaves of `layers` are stacked.
TABLE = {
  "embed/embedding": Tensor("model.embed_tokens.weight"),
  "norm/scale": Tensor("model.norm.weight"),
  "head/kernel": Tensor("lm_head.weight", True),
  "layers/attention_norm/scale": Tensor(
    "model.layers.{}.input_layernorm.weight"
  ),
  "layers/mlp_norm/scale": Tensor(
    "model.layers.{}.post_attention_layernorm.weight"
  ),
  **{
    f"layers/{x}/kernel": Tensor(f"{_ATTENTION}.{x}_proj.weight", True)
    for x in "qkvo"
  },
  **{f"layers/{x}/bias": Tensor(f"{_ATTENTION}.{x}_proj.bias") for x in "qkv"},
  **{
    f"layers/{x}_norm/scale": Tensor(f"{_ATTENTION}.{x}_norm.weight")
    for x in "qk"
  },
  **{
    f"layers/{x}/kernel": Tensor(f"model.layers.{{}}.mlp.{x}_proj.weight", True)
    for x in ("gate", "up", "down")
  },
}  # fmt: skip


def is_stacked(leaf):
  """Whether a leaf holds one tensor of every layer."""
  return leaf.startswith("layers/")
