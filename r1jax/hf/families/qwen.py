"""Qwen2, which has biases, and Qwen3, which has norms: R1-Distill-Qwen too."""

from r1jax.hf import config
from r1jax.hf.families import llama
from r1jax.hf.family import PLAIN

_ATTENTION = "model.layers.{}.self_attn"


class Qwen2(llama.Llama):
  """Llama with biases on q, k and v."""

  architecture = "Qwen2ForCausalLM"
  model_type = "qwen2"
  features = {"qkv_bias": True}
  fixed = config.FIXED
  tensors = llama.TENSORS | {
    f"layers/{x}/bias": (f"{_ATTENTION}.{x}_proj.bias", PLAIN) for x in "qkv"
  }


class Qwen3(llama.Llama):
  """Llama with an RMSNorm of each head's q and k."""

  architecture = "Qwen3ForCausalLM"
  model_type = "qwen3"
  features = {"qk_norm": True}
  tensors = llama.TENSORS | {
    f"layers/{x}_norm/scale": (f"{_ATTENTION}.{x}_norm.weight", PLAIN)
    for x in "qk"
  }


FAMILIES = (Qwen2(), Qwen3())
