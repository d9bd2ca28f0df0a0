"""What every phase sets up first: model, mesh, tokenizer, keys; and what can
be said of its config before any phase runs."""

import dataclasses
import zlib
from typing import Any

import jax

from r1jax import meshes, variants, verifiers
from r1jax.data import jsonl, sources
from r1jax.errors import UserError
from r1jax.model import ModelConfig
from r1jax.phases import keys, rollout
from r1jax.rewards import score as rewards
from r1jax.text.tokenizer import from_config
from r1jax.training import optimizer as optim


@dataclasses.dataclass(frozen=True)
class Setup:
  """The objects that a phase's config describes."""

  model: ModelConfig
  optimizer: optim.OptimizerConfig
  mesh: jax.sharding.Mesh
  tokenizer: Any
  loss: variants.Loss
  key: jax.Array
  seed: int


def setup(config):
  """Builds a `Setup` from a phase's config.

  Args:
    config: ConfigDict with `name`, `seed`, `model`, `tokenizer`, and optionally
      `mesh`, `optimizer` and `loss`.
  """
  tokenizer = from_config(config.tokenizer)
  model = dict(config.model)
  model.setdefault("vocab_size", tokenizer.vocab_size)
  return Setup(
    model=_build(ModelConfig, model, f"{config.name}: model"),
    optimizer=_build(
      optim.OptimizerConfig,
      dict(config.get("optimizer", {})),
      f"{config.name}: optimizer",
    ),
    mesh=meshes.make_mesh(**config.get("mesh", {"data": -1})),
    tokenizer=tokenizer,
    loss=_build(
      variants.Loss, dict(config.get("loss", {})), f"{config.name}: loss"
    ),
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


def check(config, earlier=()):
  """Finds what is wrong with a phase's config without running it.

  An error in the last phase of a config is worth knowing before the first has
  run for a day.

  Args:
    config: as for `setup`, with `phase`, `data` and what the phase needs.
    earlier: names of the phases before it.

  Raises:
    UserError: naming the phase and the key; AttributeError: one that is
      missing.
  """
  try:
    _check(config, earlier)
  except UserError as e:
    named = str(e).startswith((f"{config.name}.", f"{config.name}:"))
    raise UserError(str(e) if named else f"{config.name}: {e}") from None


def _check(config, earlier):
  keys.check(config)
  s = setup(config)
  if config.phase in ("grpo", "rejection", "evaluate"):
    rollout.sampler_config(config, s.tokenizer)
    if config.temperature <= 0:
      raise UserError(
        f"{config.name}.temperature={config.temperature} must be above 0"
      )
    if config.max_new_tokens >= s.model.max_length:
      raise UserError(
        f"{config.name}.max_new_tokens={config.max_new_tokens} leaves no room"
        f" for a prompt in the model's max_length={s.model.max_length}"
      )
    task = config.task
    kinds = set(verifiers.MODULES)
    if task.kind == "files":
      kinds = {
        problem.kind
        for split in ("train", "test")
        for problem in jsonl.read_problems(task[split], task.get("kinds"))
      }
  if config.phase == "sft" and config.data not in earlier:
    sources.check_data(config.task, config.data, config.name)
  if config.phase == "rejection":
    rewards.check_weights(config.least)
  if config.phase == "grpo":
    rewards.check_weights(config.rewards, kinds)
    if config.group < 2:
      raise UserError(
        f"{config.name}.group={config.group}: a group of one has nothing to"
        " be compared with; 2 is the least"
      )
    if s.loss.overlong > config.max_new_tokens:
      raise UserError(
        f"{config.name}.loss.overlong={s.loss.overlong} must be at most"
        f" max_new_tokens={config.max_new_tokens}"
      )
    if s.loss.beta:
      _ = config.ref_every  # raises an AttributeError if it is missing
    if config.prompts * config.group % config.minibatches:
      raise UserError(
        f"{config.name}.minibatches={config.minibatches} does not divide the"
        f" {config.prompts * config.group} completions of a rollout (prompts"
        " times group)"
      )
