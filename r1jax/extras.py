"""Packages of the extras in pyproject.toml, which not every run needs."""

import importlib
from typing import Any

from r1jax.errors import UserError

# Module -> the extra that installs it.
EXTRAS = {
  "datasets": "datasets",
  "gguf": "gguf",
  "matplotlib": "plot",
  "py3langid": "ifeval",
  "pyarrow": "parquet",
  "reasoning_gym": "gym",
  "tensorflow_datasets": "tfds",
  "tensorboardX": "tensorboard",
  "trackio": "trackio",
  "wandb": "wandb",
}


def need(module: str) -> Any:
  """Imports a module of an extra.

  Args:
    module: one of `EXTRAS`, or "PACKAGE.MODULE" of one.

  Returns:
    the module.

  Raises:
    UserError: it is not installed; the message has the command that does.
  """
  try:
    return importlib.import_module(module)
  except ModuleNotFoundError as e:
    package = module.partition(".")[0]
    if (e.name or "").partition(".")[0] != package:
      raise
    raise UserError(
      f"{package} is not installed; install the extra that has it:"
      f' pip install -e ".[{EXTRAS[package]}]"'
    ) from None
