"""What every phase sets up first: model, mesh, tokenizer, keys."""

import dataclasses
import zlib
from typing import Any

import jax

from r1jax import optimizer as optim
from r1jax import sharding
from r1jax.data import sources
from r1jax.errors import UserError
from r1jax.model import ModelConfig


@dataclasses.dataclass(frozen=True)
class Setup:
  """The objects that a phase's config describes."""

  model: ModelConfig
  optimizer: optim.OptimizerConfig
  mesh: jax.sharding.Mesh
  tokenizer: Any
  key: jax.Array
  seed: int


def setup(config):
  """Builds a `Setup` from a phase's config.

  Args:
    config: ConfigDict with `name`, `seed`, `model`, `tokenizer`, and optionally
      `mesh` and `optimizer`.
  """
  tokenizer = sources.tokenizer(config.tokenizer)
  model = dict(config.model)
  model.setdefault("vocab_size", tokenizer.vocab_size)
  return Setup(
    model=_build(ModelConfig, model, f"{config.name}: model"),
    optimizer=_build(
      optim.OptimizerConfig,
      dict(config.get("optimizer", {})),
      f"{config.name}: optimizer",
    ),
    mesh=sharding.make_mesh(**config.get("mesh", {"data": -1})),
    tokenizer=tokenizer,
    key=jax.random.fold_in(
      jax.random.key(config.seed), zlib.crc32(config.name.encode())
    ),
    # Independent of the phase: problems come in the same order in all.
    seed=config.seed,
  )


def _build(cls, fields, where):
  known = {f.name for f in dataclasses.fields(cls)}
  for name in fields:
    if name not in known:
      raise UserError(
        f'{where}: "{name}" is unknown; known: {", ".join(sorted(known))}'
      )
  try:
    return cls(**fields)
  except TypeError as e:
    raise UserError(f"{where}: {e}") from None
