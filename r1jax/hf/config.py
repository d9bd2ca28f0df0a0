"""config.json <-> the fields of `ModelConfig` that all dense families have."""

import dataclasses
import math
import re
from collections.abc import Mapping
from typing import Any

from r1jax import config as config_lib
from r1jax.config import shown
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

# Entry of config.json -> the largest whole number that it may be. Nonsense in
# such a file must cost neither time nor memory.
MOST = {"num_hidden_layers": 10_000}
_MOST = 2**31 - 1

# Entry of config.json -> the only value that the decoder computes.
FIXED = {
  "hidden_act": "silu",
  "mlp_bias": False,
  "partial_rotary_factor": 1.0,
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
  hints = config_lib.keys(ModelConfig)
  fields: dict[str, Any] = {}
  for ours, (theirs, default) in FIELDS.items():
    value = raw.get(theirs)
    if value is None and default is ...:
      raise UserError(f'{where}: the key "{theirs}" is missing')
    if value is None:
      fields[ours] = default
    elif hints[ours] is bool:
      fields[ours] = config_lib.convert(bool, value, f"{where}: {theirs}")
    else:
      fields[ours] = number(raw, theirs, where, hints[ours])
  if fields["n_kv_heads"] is None:
    fields["n_kv_heads"] = fields["n_heads"]
  if fields["head_dim"] is None:
    fields["head_dim"] = fields["d_model"] // fields["n_heads"]
  _check_heads(fields, where)
  for key, value in fixed.items():
    if raw.get(key, value) != value:
      raise UserError(
        f"{where}: {key}={shown(raw[key])} is not supported; only"
        f" {shown(value)} is"
      )
  # Newer files hold all of RoPE in one entry.
  key = "rope_parameters" if raw.get("rope_parameters") else "rope_scaling"
  rope = raw.get(key) or {}
  if not isinstance(rope, Mapping):
    raise UserError(f"{where}: {key}={shown(rope)} must be an object")
  source = raw if raw.get("rope_theta") is not None else rope
  theta = number(source, "rope_theta", where, float, 10_000.0)
  fields["rope_theta"] = theta
  fields["rope_scaling"] = scaling(rope, fields["max_length"], where)
  return fields


def number(
  raw: Mapping[str, Any], key: str, where: str, kind: type, default: Any = None
) -> Any:
  """A positive number of config.json.

  Args:
    raw: the dict of config.json, or an object in it.
    key: of the entry.
    where: name of the file, for messages.
    kind: int or float.
    default: where the entry is absent.

  Raises:
    UserError: it is not such a number, or too large.
  """
  value = raw.get(key)
  if value is None:
    return default
  most = MOST.get(key, _MOST)
  # A whole number of JSON may be too large for a float.
  if not isinstance(value, int) or abs(value) <= _MOST:
    value = config_lib.convert(kind, value, f"{where}: {key}")
    if value > 0 and (kind is float or 1 <= value <= most):
      return value
  wanted = f"from 1 to {most}" if kind is int else f"above 0, below {_MOST}"
  raise UserError(f"{where}: {key}={shown(value)} must be {wanted}")


def _check_heads(fields, where):
  heads, kv = fields["n_heads"], fields["n_kv_heads"]
  if heads % kv:
    raise UserError(
      f"{where}: num_key_value_heads={kv} must divide"
      f" num_attention_heads={heads}"
    )
  if fields["head_dim"] % 2 or not fields["head_dim"]:
    raise UserError(
      f"{where}: heads of {fields['head_dim']} dimensions (head_dim, or"
      " hidden_size / num_attention_heads) are not supported; RoPE needs an"
      " even number"
    )


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


def scaling(
  rope: Mapping[str, Any], max_length: int, where: str
) -> RopeScaling | None:
  """The `RopeScaling` of an entry for RoPE, or None.

  Args:
    rope: the entry.
    max_length: of the model, in tokens.
    where: name of the file, for messages.

  Raises:
    UserError: it is of an unknown kind, or a value is missing or no number.
  """
  if rope.get("partial_rotary_factor", 1.0) != 1.0:
    raise UserError(f"{where}: partial_rotary_factor is not supported; only 1")
  kind = rope.get("rope_type", rope.get("type", "default"))
  if kind == "default":
    return None
  given = {
    ours: rope[theirs]
    for ours, theirs in SCALING.items()
    if rope.get(theirs) is not None
  }
  if "factor" not in given:
    raise UserError(f"{where}: the scaling of RoPE has no factor")
  if kind == "yarn":
    given.setdefault("original_max_length", max_length)
    if "attention_factor" not in given:
      factor = number(rope, "factor", where, float)
      scales = [
        _mscale(factor, number(rope, key, where, float))
        for key in ("mscale", "mscale_all_dim")
        if rope.get(key)
      ]
      if len(scales) == 2:
        given["attention_factor"] = scales[0] / scales[1]
  try:
    return RopeScaling(kind, **given)
  except (UserError, TypeError) as e:
    field, *rest = re.split(r"\b", str(e), maxsplit=2)[1:]
    words = SCALING.get(field, field) + "".join(rest)
    raise UserError(f"{where}: the scaling of RoPE: {words}") from None


def _mscale(factor, scale):
  return 0.1 * scale * math.log(factor) + 1.0 if factor > 1 else 1.0
