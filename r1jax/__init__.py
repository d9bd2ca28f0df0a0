"""r1jax: the DeepSeek-R1 pipeline in JAX.

import r1jax

model = r1jax.load("hf:smollm2")
for completion in model.sample(["What is 3 + 4?"], max_new_tokens=64):
  print(completion.text)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
  from r1jax.language_model import LanguageModel

__version__ = "0.1.0"


def load(name: str, dtype: str | None = None) -> LanguageModel:
  """Loads a model with its tokenizer, to sample from.

  Args:
    name: "hf:DIR", "run:DIR/PHASE", "run:DIR/PHASE@STEP", a directory or a
      hub id; see `r1jax.origin`.
    dtype: of parameters and activations; None: as stored.

  Returns:
    `LanguageModel`; its method `sample` returns completions.

  Raises:
    UserError: there is no model of this name, or it is damaged.
  """
  # Not before: `import r1jax` alone starts neither JAX nor a tokenizer.
  from r1jax import language_model

  return language_model.load(name, dtype)
