"""The families of Hugging Face models, one a file; a new file is found here.

Each file lists instances of `r1jax.hf.family.Family` in `FAMILIES`.
"""

import dataclasses
import importlib
import pkgutil
from collections.abc import Mapping
from typing import Any

from r1jax.config import shown
from r1jax.errors import UserError
from r1jax.hf.family import Family
from r1jax.model import ModelConfig


def find() -> tuple[Family, ...]:
  """Imports the files of this package; returns a tuple of their families."""
  return tuple(
    family
    for module in pkgutil.iter_modules(__path__, f"{__name__}.")
    for family in importlib.import_module(module.name).FAMILIES
  )


FAMILIES = find()


def of_config(raw: Mapping[str, Any], where: str) -> Family:
  """The family that a config.json names.

  Args:
    raw: the dict of config.json.
    where: name of the file, for messages.

  Raises:
    UserError: the architecture is unknown.
  """
  names = raw.get("architectures") or []
  if not isinstance(names, list):
    raise UserError(f"{where}: architectures={shown(names)} must be a list")
  for family in FAMILIES:
    if family.architecture in names or (
      not names and raw.get("model_type") == family.model_type
    ):
      return family
  asked = ", ".join(map(str, names)) or f'model_type "{raw.get("model_type")}"'
  raise UserError(
    f"{where}: the architecture {' '.join(asked.split())[:100]} is unknown;"
    f" known: {_known()}"
  )


def of_model(model: ModelConfig) -> Family:
  """The family that has the features of a `ModelConfig`.

  Args:
    model: the `ModelConfig`.

  Raises:
    UserError: there is none.
  """
  names = dict.fromkeys(n for f in FAMILIES for n in (*f.features, *f.stored))
  plain = {f.name: f.default for f in dataclasses.fields(ModelConfig)}
  wanted = {name: getattr(model, name) for name in names}
  for family in FAMILIES:
    own = {n: wanted[n] for n in family.stored}
    default = {n: plain[n] for n in names}
    if wanted == {**default, **family.features, **own}:
      return family
  found = " with ".join(f"{name}={value}" for name, value in wanted.items())
  raise UserError(f"no known architecture has {found}; known: {_known()}")


def _known():
  return ", ".join(family.architecture for family in FAMILIES)
