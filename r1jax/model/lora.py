"""Low-rank adapters (Hu et al. 2021, arXiv 2106.09685): W + alpha / r A B.

An adapter is two parameters beside a `kernel` [in, out]: `lora_a` [in, r] and
`lora_b` [r, out], all stacked over the layers. A model with adapters trains
nothing else, see `parameters.facts_of`. Parameters without adapters are those
of the plain model.
"""

from typing import Any

import jax
import jax.numpy as jnp

from r1jax.errors import UserError
from r1jax.model.config import ModelConfig

NAMES = ("lora_a", "lora_b")


def scale(config: ModelConfig) -> float:
  """alpha / r of a `ModelConfig`.

  Raises:
    UserError: the model has no adapters, and the parameters do.
  """
  if not config.lora_rank:
    raise UserError(
      "model: the parameters have adapters, and lora_rank=0 says that the model"
      " has none; set lora_rank and lora_alpha as in the training"
    )
  return config.lora_alpha / config.lora_rank


def merge(config: ModelConfig, params: Any) -> Any:
  """Merges adapters into their kernels; the result computes the same.

  Args:
    config: the `ModelConfig` of the adapters.
    params: nested dict of parameters, all of a model or a part.

  Returns:
    nested dict without adapters. Merged kernels are float32, so that the caller
    rounds them only once. Other parameters are unchanged.
  """
  if not isinstance(params, dict):
    return params
  if "lora_a" not in params:
    return {k: merge(config, x) for k, x in params.items()}
  # By default accelerators round float32 operands of a product.
  change = jnp.matmul(
    params["lora_a"], params["lora_b"], precision=jax.lax.Precision.HIGHEST
  )
  kernel = params["kernel"].astype(jnp.float32) + scale(config) * change
  rest = {k: x for k, x in params.items() if k not in NAMES}
  return rest | {"kernel": kernel}
