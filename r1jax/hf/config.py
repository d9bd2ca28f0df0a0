"""config.json <-> the fields of `ModelConfig` that all dense families have."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from r1jax.errors import UserError
from r1jax.model import ModelConfig, RopeScaling

# Field of ModelConfig -> entry of config.json, and its value where the entry
# is absent (`...`: the entry must not be absent).
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

# Entry of config.json -> the only value that the decoder computes.
FIXED = {
  "hidden_act": "silu",
  "mlp_bias": False,
  "use_sliding_window": False,
}

# Field of RopeScaling -> entry of config.json.
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


def read(
  raw: Mapping[str, Any], where: str, fixed: Mapping[str, Any] = FIXED
) -> dict[str, Any]:
  """Reads the fields that all dense families have.

  Args:
    raw: the dict of config.json.
    where: name of the file, for messages.
    fixed: entry of config.json -> the only value that it may have.

  Returns:
    dict of keyword arguments of `ModelConfig`.

  Raises:
    UserError: an entry is missing, or has a value that is not supported.
  """
  fields: dict[str, Any] = {}
  for ours, (theirs, default) in FIELDS.items():
    value = raw.get(theirs)
    if value is None and default is ...:
      raise UserError(f'{where}: the key "{theirs}" is missing')
    fields[ours] = default if value is None else value
  if fields["n_kv_heads"] is None:
    fields["n_kv_heads"] = fields["n_heads"]
  if fields["head_dim"] is None:
    fields["head_dim"] = fields["d_model"] // fields["n_heads"]
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


def write(model: ModelConfig) -> dict[str, Any]:
  """The entries of config.json that all dense families have.

  Args:
    model: the `ModelConfig`.

  Returns:
    dict, without the name of the architecture.
  """
  raw: dict[str, Any] = {
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


def _scaling(rope, max_length, where):
  """The `RopeScaling` of the entry for RoPE, or None."""
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
