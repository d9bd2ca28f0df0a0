"""The keys that phases share, and what a phase sets up first."""

import dataclasses
import math
import zlib
from collections.abc import Mapping
from typing import Any, ClassVar, Literal, NamedTuple

import jax

from r1jax import checks, config, origin
from r1jax import model as model_lib
from r1jax.data import sources
from r1jax.errors import UserError
from r1jax.meshes import Mesh, MeshConfig
from r1jax.model import ModelConfig
from r1jax.origin import Shape
from r1jax.phases.preview import Preview
from r1jax.sampling.sampler import SamplerConfig
from r1jax.text import tokenizer as tokenizer_lib
from r1jax.training import optimizer as optim


class Setup(NamedTuple):
  """What a phase makes of its config first.

  Attributes:
    mesh: the devices of the learner.
    sampler_mesh: the devices of the sampler, as a rule the same.
    tokenizer: the tokenizer.
    key: PRNG key; phases of different names have different keys.
  """

  mesh: Mesh
  sampler_mesh: Mesh
  tokenizer: tokenizer_lib.Tokenizer
  key: jax.Array


@dataclasses.dataclass(frozen=True, kw_only=True)
class Phase:
  """The keys of every phase; each kind of phase adds its own."""

  # Facts of a kind of phase: whether others can learn from what it returns,
  # whether report.png shows it, whether it needs parameters to start from.
  MAKES_EXAMPLES: ClassVar[bool] = False
  IS_PLOTTED: ClassVar[bool] = False
  NEEDS_START: ClassVar[bool] = False
  # Keys that decide where the work is done and how often it is saved, not what
  # comes out. They may change at any time.
  FREE: ClassVar[tuple[str, ...]] = (
    "mesh", "sampler_mesh", "optimizer.offload", "save_every", "log_every"
  )  # fmt: skip

  # Kind of phase, which decides its other keys.
  phase: str
  # Name of the phase, the key of its group in the config.
  name: str = config.filled()
  # Seed of the run.
  seed: int = config.filled()
  # Phase whose parameters this one starts from; "" starts from the model's
  # own weights if it has any, else from random parameters.
  init: str = ""
  # Name -> an earlier phase, whose parameters `io.parent(name)` reads.
  parents: Mapping[str, str] = dataclasses.field(default_factory=dict)
  # Name of a model in c.models, "hf:" and a directory or hub id, or "run:" and
  # DIR/PHASE or DIR/PHASE@STEP.
  model: ModelConfig = config.filled(
    written=str | Shape, default="that of init"
  )
  # Name of the first parameters, as `origin.find` takes it, or None.
  weights: str | None = config.filled()

  def check(self, preview: Preview) -> None:
    """Finds errors that files, devices or other phases show.

    Args:
      preview: `Preview`.

    Raises:
      UserError: naming the key.
    """

  def is_free(self, key: str) -> bool:
    """Whether a dotted key is one of `FREE` or inside one."""
    return any(key == free or key.startswith(f"{free}.") for free in self.FREE)

  def may_change(self, key: str, before: Mapping[str, Any], done: int) -> bool:
    """Whether a phase that has begun may go on with another value of a key.

    Args:
      key: the dotted key.
      before: the keys that the phase began with.
      done: number of steps that it has behind it.
    """
    return self.is_free(key)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Common(Phase):
  """The keys of every phase that runs a model."""

  # The text that the model reads and writes.
  tokenizer: tokenizer_lib.Tokenizers
  # Where problems and synthetic examples come from.
  task: sources.Tasks
  # The devices, and how they share the work.
  mesh: MeshConfig = MeshConfig()

  def meshes(self) -> tuple[Mesh, Mesh]:
    """The mesh of the learner and the mesh of the sampler.

    Raises:
      UserError: their sizes do not fit the devices.
    """
    mesh = self.mesh.make()
    return mesh, mesh

  def setup(self) -> Setup:
    """The `Setup`."""
    mesh, sampler_mesh = self.meshes()
    return Setup(
      mesh=mesh,
      sampler_mesh=sampler_mesh,
      tokenizer=tokenizer_lib.load(self.tokenizer),
      key=jax.random.fold_in(
        jax.random.key(self.seed), zlib.crc32(self.name.encode())
      ),
    )

  def check(self, preview: Preview) -> None:
    """As `Phase.check`."""
    for mesh in self.meshes():
      model_lib.shardings(self.model, mesh)  # names what a mesh does not fit
    if self.weights is not None:
      origin.find(self.weights).check(self.model)
    tokenizer = tokenizer_lib.load(self.tokenizer)
    tokenizer_lib.check_fits(tokenizer, self.model.vocab_size, "model.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Training(Common):
  """The keys of phases that train."""

  # Steps of the phase: batches of SFT, rollouts of RL.
  steps: int
  # Peak learning rate.
  lr: float
  # "cosine" falls from `lr` to a tenth of it.
  schedule: Literal["constant", "cosine"] = "constant"
  # Steps of linear warm-up.
  warmup: int = 0
  # Tokens of a packed row.
  row_length: int
  # Rows of a micro-batch, rounded up to what the mesh splits evenly.
  rows: int
  # Steps between two checkpoints.
  save_every: int
  # Optimizer steps in a row whose loss or gradient is not finite, at which the
  # phase ends. None of them is applied.
  max_skipped: int = 3
  # The optimizer; its learning rate is `lr`.
  optimizer: optim.OptimizerConfig = optim.OptimizerConfig()

  def __post_init__(self):
    checks.at_least(
      self, 1, "steps", "row_length", "rows", "save_every", "max_skipped"
    )
    checks.at_least(self, 0, "warmup")
    checks.above(self, 0, "lr")
    checks.below(self, math.inf, "lr")

  def learning_rate(self, step: int) -> float:
    """The learning rate of a step, counted from 0."""
    return optim.learning_rate(
      step,
      lr=self.lr,
      steps=self.steps,
      schedule=self.schedule,
      warmup=self.warmup,
    )

  def may_change(self, key: str, before: Mapping[str, Any], done: int) -> bool:
    """As `Phase.may_change`; the schedule may, where the past has the same."""
    if key not in ("steps", "lr", "schedule", "warmup"):
      return super().may_change(key, before, done)
    schedule = {k: before[k] for k in ("steps", "lr", "schedule", "warmup")}
    return done <= self.steps and all(
      self.learning_rate(step) == optim.learning_rate(step, **schedule)
      for step in range(done)
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sampling(Common):
  """The keys of phases that sample completions."""

  NEEDS_START: ClassVar[bool] = True

  # Divides the logits before a token is drawn.
  temperature: float
  # How completions are decoded.
  sampler: SamplerConfig

  def __post_init__(self):
    self.check_temperature()
    new = self.sampler.max_new_tokens
    if new >= self.model.max_length:
      raise UserError(
        f"sampler.max_new_tokens={new} leaves no room for a prompt in the"
        f" model's max_length={self.model.max_length}"
      )

  def check_temperature(self) -> None:
    """Raises `UserError` for a temperature that the phase cannot use."""
    checks.above(self, 0, "temperature")

  def decoder(self, tokenizer: tokenizer_lib.Tokenizer) -> SamplerConfig:
    """The `SamplerConfig`; the tokenizer ends completions if no key does."""
    if self.sampler.end_ids:
      return self.sampler
    return dataclasses.replace(self.sampler, eos_id=tokenizer.end_ids)

  def check_prompts(
    self, preview: Preview, split: str, count: int | None = None
  ) -> int:
    """The tokens of the longest prompt, if there is room for a completion.

    Args:
      preview: `Preview`.
      split: of the task, "train" or "test".
      count: only so many problems, from the first; None: all.

    Raises:
      UserError: the split is empty, or a prompt is too long.
    """
    longest, problem = preview.longest_prompt(self, split, count)
    new, most = self.sampler.max_new_tokens, self.model.max_length
    if longest + new > most:
      raise UserError(
        f"sampler.max_new_tokens={new}: the prompt of problem {problem} has"
        f" {longest} tokens, and together they exceed the model's"
        f" max_length={most}; shorten the prompt or change either"
      )
    return longest
