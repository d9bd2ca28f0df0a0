"""Llama: SmolLM2 and R1-Distill-Llama too."""

from collections.abc import Mapping, Sequence
from typing import Any

from r1jax.hf import config
from r1jax.hf.family import PLAIN, TRANSPOSED, Family, Part
from r1jax.model import ModelConfig

_LAYER = "model.layers.{}"
HEAD, EMBEDDING = "lm_head.weight", "model.embed_tokens.weight"

# Parameter of ours -> tensor, with the number of the layer as "{}", and form.
TENSORS = {
  "embed/embedding": (EMBEDDING, PLAIN),
  "norm/scale": ("model.norm.weight", PLAIN),
  "head/kernel": (HEAD, TRANSPOSED),
  "layers/attention_norm/scale": (f"{_LAYER}.input_layernorm.weight", PLAIN),
  "layers/mlp_norm/scale": (f"{_LAYER}.post_attention_layernorm.weight", PLAIN),
  **{
    f"layers/{x}/kernel": (f"{_LAYER}.self_attn.{x}_proj.weight", TRANSPOSED)
    for x in "qkvo"
  },
  **{
    f"layers/{x}/kernel": (f"{_LAYER}.mlp.{x}_proj.weight", TRANSPOSED)
    for x in ("gate", "up", "down")
  },
}


class Llama(Family):
  """The decoder without biases and without norms of q and k.

  Attributes:
    fixed: entries of config.json that may have one value only.
    tensors: parameter of ours -> name of the tensor and form.
  """

  architecture = "LlamaForCausalLM"
  model_type = "llama"
  fixed = config.FIXED | {"attention_bias": False}
  tensors = TENSORS

  def fields(self, raw: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The fields of the `ModelConfig` for a config.json; see `Family`."""
    return {**self.features, **config.read(raw, where, self.fixed)}

  def raw(self, model: ModelConfig) -> dict[str, Any]:
    """The dict of config.json for a `ModelConfig`; see `Family`."""
    return {
      "architectures": [self.architecture],
      "model_type": self.model_type,
      **config.write(model),
    }

  def parts(self, leaf: str, shape: Sequence[int]) -> list[Part]:
    """The parts that a parameter is made of; see `Family`."""
    if leaf not in self.tensors:
      return []
    name, form = self.tensors[leaf]
    if not leaf.startswith("layers/"):
      return [Part(leaf, (), (name,), form)]
    return [Part(leaf, (i,), (name.format(i),), form) for i in range(shape[0])]

  def ignores(self, tensor: str, model: ModelConfig) -> bool:
    """Whether a checkpoint may hold this tensor though no parameter needs it.

    An old checkpoint may hold its table of frequencies.
    """
    return tensor.endswith("rotary_emb.inv_freq")

  def copies(self, model: ModelConfig) -> Mapping[str, str]:
    """A tied checkpoint may hold its head twice; see `Family`."""
    return {HEAD: EMBEDDING} if model.tied else {}


FAMILIES = (Llama(),)
