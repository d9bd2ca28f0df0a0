"""Low-rank adapters (Hu et al. 2021, arXiv 2106.09685): W + alpha / r A B.

In the parameters they are leaves `lora_a` [in, r] and `lora_b` [r, out] beside
a `kernel` [in, out], all stacked over the layers. A model with adapters trains
these alone, see `parameters.facts_of`. A tree without them is the plain model.
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
      "model: the parameters have adapters, for which lora_rank=0 is none;"
      " give the model the lora_rank and lora_alpha of their training"
    )
  return config.lora_alpha / config.lora_rank


def merge(config: ModelConfig, params: Any) -> Any:
  """The parameters of the plain model that computes the same.

  Args:
    config: the `ModelConfig` of the adapters.
    params: nested dict, the whole of a model's or a part.

  Returns:
    nested dict without adapters. Kernels that had one are float32, for the
    caller to round once; everything else is as it was.
  """
  if not isinstance(params, dict):
    return params
  if "lora_a" not in params:
    return {k: merge(config, x) for k, x in params.items()}
  # Accelerators would round float32 operands without being asked not to.
  change = jnp.matmul(
    params["lora_a"], params["lora_b"], precision=jax.lax.Precision.HIGHEST
  )
  kernel = params["kernel"].astype(jnp.float32) + scale(config) * change
  rest = {k: x for k, x in params.items() if k not in NAMES}
  return rest | {"kernel": kernel}
