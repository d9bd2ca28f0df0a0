"""Gemma 3, its text models: layers with a window, and norms on both sides."""

from collections.abc import Mapping
from typing import Any

from r1jax.config import shown
from r1jax.errors import UserError
from r1jax.hf import config
from r1jax.hf.families import llama
from r1jax.hf.family import PLAIN
from r1jax.model import ModelConfig

_LAYER = "model.layers.{}"
NEAR, FULL = "sliding_attention", "full_attention"

# Entry of config.json -> its value where it is absent.
DEFAULTS = {
  "head_dim": 256,
  "tie_word_embeddings": True,
  "rope_theta": 1_000_000.0,
  "rope_local_base_freq": 10_000.0,
  "query_pre_attn_scalar": 256,
  "sliding_window": 4096,
  "sliding_window_pattern": 6,
}


class Gemma3(llama.Llama):
  """GeGLU, norms of 1 + gain, of heads, and after what they precede in Llama.

  Five of six layers see a window of the last tokens and have a rotary base of
  their own.
  """

  architecture = "Gemma3ForCausalLM"
  model_type = "gemma3_text"
  features = {
    "activation": "gelu_tanh",
    "gain_from_one": True,
    "post_norms": True,
    "qk_norm": True,
    "scaled_embedding": True,
  }
  stored = ("score_scale", "window", "window_period", "window_theta")
  fixed = {
    "hidden_activation": "gelu_pytorch_tanh",
    "attention_bias": False,
    "attn_logit_softcapping": None,
    "final_logit_softcapping": None,
    "use_bidirectional_attention": False,
  }
  tensors = llama.TENSORS | {
    f"layers/{ours}/scale": (f"{_LAYER}.{theirs}.weight", PLAIN)
    for ours, theirs in (
      ("q_norm", "self_attn.q_norm"),
      ("k_norm", "self_attn.k_norm"),
      ("attention_post_norm", "post_attention_layernorm"),
      ("mlp_norm", "pre_feedforward_layernorm"),
      ("mlp_post_norm", "post_feedforward_layernorm"),
    )
  }

  def fields(self, raw: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The fields of the `ModelConfig` for a config.json; see `Family`."""
    given = {k: x for k, x in raw.items() if x is not None}
    given = {**DEFAULTS, **_flat(given, where)}
    fields = super().fields(given, where)

    def number(key, kind):
      return config.number(given, key, where, kind)

    scale = float(number("query_pre_attn_scalar", float))
    windows = _windows(given, fields["n_layers"], where)
    return {
      **fields,
      # This is what attention divides by anyway.
      "score_scale": None if scale == fields["head_dim"] else scale,
      "window": number("sliding_window", int) if windows else None,
      "window_period": windows or ModelConfig.window_period,
      "window_theta": number("rope_local_base_freq", float),
    }

  def raw(self, model: ModelConfig) -> dict[str, Any]:
    """The dict of config.json for a `ModelConfig`; see `Family`."""
    raw = {**super().raw(model), **self.fixed}
    del raw["hidden_act"]
    scale = model.head_dim if model.score_scale is None else model.score_scale
    return raw | {
      "layer_types": [FULL if w is None else NEAR for w in model.windows],
      # `transformers` takes a whole number only.
      "query_pre_attn_scalar": int(scale) if scale == int(scale) else scale,
      "rope_local_base_freq": model.window_theta,
      "sliding_window": model.window or DEFAULTS["sliding_window"],
    }


def _flat(raw, where):
  """The entries with those of RoPE as older files have them."""
  rope = raw.get("rope_parameters")
  if not isinstance(rope, dict) or not {NEAR, FULL} & rope.keys():
    return raw
  near, full = rope.get(NEAR) or {}, rope.get(FULL) or {}
  if not isinstance(near, dict) or not isinstance(full, dict):
    raise UserError(f"{where}: rope_parameters={shown(rope)} must hold objects")
  if near.get("rope_type", "default") != "default":
    raise UserError(
      f"{where}: rope_parameters.{NEAR} with rope_type="
      f'{shown(near["rope_type"])} is not supported; only "default" is'
    )
  flat = {k: x for k, x in raw.items() if k != "rope_parameters"}
  flat["rope_scaling"] = full
  if full.get("rope_theta") is not None:
    flat["rope_theta"] = full["rope_theta"]
  if near.get("rope_theta") is not None:
    flat["rope_local_base_freq"] = near["rope_theta"]
  return flat


def _windows(raw, layers, where):
  """Of how many layers the last has no window; 0 if none has one."""
  kinds = raw.get("layer_types")
  if kinds is None:
    return config.number(raw, "sliding_window_pattern", where, int)
  known = isinstance(kinds, list) and all(k in (NEAR, FULL) for k in kinds)
  if known and len(kinds) == layers:
    most = max(layers + 1, ModelConfig.window_period)
    period = kinds.index(FULL) + 1 if FULL in kinds else most
    if kinds == [FULL] * layers:
      return 0
    want = [NEAR if (i + 1) % period else FULL for i in range(layers)]
    if kinds == want:
      return period
  raise UserError(
    f"{where}: layer_types={shown(kinds)} is not supported; only one kind for"
    f' each of the {layers} layers is, "{FULL}" for every n-th and "{NEAR}" for'
    " the others"
  )


FAMILIES = (Gemma3(),)
