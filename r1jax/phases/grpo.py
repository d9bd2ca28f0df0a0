"""Reinforcement learning with group relative policy optimization."""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from r1jax import checks, meshes, sharding, variants
from r1jax.errors import UserError
from r1jax.meshes import MeshConfig
from r1jax.phases import grpo_batch, grpo_report, grpo_update, skips, usage
from r1jax.phases.actor import Actor, Scored
from r1jax.phases.common import Sampling, Setup, Training
from r1jax.phases.preview import Preview
from r1jax.rewards import score as rewards_lib
from r1jax.run.phase_io import PhaseIO
from r1jax.training import learner
from r1jax.training import state as state_lib
from r1jax.types import TrainState
from r1jax.variants import Loss


@dataclasses.dataclass(frozen=True, kw_only=True)
class GRPO(Training, Sampling):
  """The keys of reinforcement learning; a step is a rollout and its updates."""

  IS_PLOTTED: ClassVar[bool] = True
  # RL may start from random parameters.
  NEEDS_START: ClassVar[bool] = False

  # Problems of a rollout, N.
  prompts: int
  # Completions of each problem, G; they are compared with each other.
  group: int
  # Optimizer steps of a rollout.
  minibatches: int = 1
  # Part of the reward -> weight; also `gates`, `kinds` and `models`, see
  # r1jax/rewards/score.py.
  rewards: Mapping[str, float | Mapping[str, Any]]
  # The loss.
  loss: Loss = Loss()
  # Rollouts between two replacements of the reference policy by the policy;
  # only for loss.beta above 0.
  ref_every: int | None = None
  # How often groups whose rewards are all equal may be replaced in a rollout.
  refill: int = 0
  # Whether the completions of a packed row share their prompt.
  share_prompts: bool = False
  # Devices of the sampler alone; those of `mesh` are then the others. Without
  # it the sampler runs on the devices of the learner.
  sampler_mesh: MeshConfig | None = None

  def __post_init__(self):
    Training.__post_init__(self)
    Sampling.__post_init__(self)
    checks.at_least(self, 1, "prompts", "minibatches", "ref_every")
    checks.at_least(self, 0, "refill")
    rewards_lib.check_weights(self.rewards)
    new = self.sampler.max_new_tokens
    if self.group < 2:
      raise UserError(
        f"group={self.group} must be at least 2: a group of one has nothing to"
        " be compared with"
      )
    if self.sampler.greedy:
      raise UserError(
        "sampler.greedy=True has no meaning here: all completions of a group"
        " would be the same, and nothing could be learned; remove it"
      )
    if self.prompts * self.group % self.minibatches:
      raise UserError(
        f"minibatches={self.minibatches} does not divide the"
        f" {self.prompts * self.group} completions of a rollout (prompts times"
        " group)"
      )
    if self.loss.overlong > new:
      raise UserError(
        f"loss.overlong={self.loss.overlong} must be at most"
        f" sampler.max_new_tokens={new}"
      )
    if self.loss.beta and self.ref_every is None:
      raise UserError(
        f"ref_every is missing; with loss.beta={self.loss.beta} the reference"
        " is replaced after so many rollouts"
      )

  def replaces_reference(self, step: int) -> bool:
    """Whether the policy becomes the reference before this step, from 0."""
    every = self.ref_every
    return bool(self.loss.beta and step and every and step % every == 0)

  def meshes(self) -> tuple[Any, Any]:
    """The mesh of the learner and the mesh of the sampler."""
    return meshes.apart(self.mesh, self.sampler_mesh)

  def check(self, preview: Preview) -> None:
    """As `Phase.check`."""
    super().check(preview)
    problems = preview.problems(self, "train")
    rewards_lib.check_weights(self.rewards, {p.kind for p in problems})
    least = self.check_prompts(preview, "train") - 1
    least += self.sampler.max_new_tokens
    if self.row_length < least:
      raise UserError(
        f"row_length={self.row_length} is too short: the longest prompt and"
        f" sampler.max_new_tokens={self.sampler.max_new_tokens} need"
        f" {least} tokens"
      )


def grpo(
  config: GRPO, state: TrainState | None, data: Any, io: PhaseIO
) -> tuple[TrainState, None]:
  """R1's RL: sample groups, verify, compare within the group, update.

  Args:
    config: `GRPO`.
    state: `TrainState` whose parameters RL starts from; None is random.
    data: not used; the problems are the "train" split of the task.
    io: the phase's `PhaseIO`.

  Returns:
    the final `TrainState`, and None.
  """
  s = config.setup()
  problems = config.task.load(io.root, s.tokenizer)["train"]
  state = state_lib.new_state(
    config.model, config.optimizer, s.mesh, state, s.key
  )
  actor = Actor(
    config, s, config.group, config.rewards, config.loss.overlong, keep=True
  )
  # Without a KL term there is no reference to keep; with one, only what is
  # trained of it.
  tree = {"state": state}
  if config.loss.beta:
    tree["reference"] = reference_of(config, s, state.params)
  first, tree = io.restore(tree) or (0, tree)
  watch = skips.Watch(io, config.name, config.max_skipped, config.minibatches)
  silence = grpo_report.Silence(io, config.steps)
  io.bar(config.steps, first, show=("reward", "accuracy", "tokens"))
  for step in range(first, config.steps):
    params = tree["state"].params
    # The reference is replaced: the policy becomes the new reference.
    if config.replaces_reference(step):
      tree["reference"] = reference_of(config, s, params)
    clock = grpo_report.Clock()
    actor.load(params)
    with io.stoppable(step, tree):
      drawn, scored = sample_with_signal(config, actor, problems, step)
    actor.unload()
    clock("sample")
    tree["state"], updates = learn(config, s, tree, scored, step, clock)
    clock("update")
    watch_updates(config, s, watch, scored, step, updates)
    metrics = grpo_report.report(
      drawn, advantages_of(config, drawn), updates, clock.seconds
    )
    metrics["lr"] = config.learning_rate(step)
    metrics["skipped_steps"] = watch.total
    io.report(step, metrics | usage.memory())
    io.samples(step, drawn.rows(4))
    silence(drawn)
    watch.check()
    if io.due(step + 1, config.save_every, config.steps):
      io.save(step + 1, tree)
  return tree["state"], None


def advantages_of(config: GRPO, scored: Scored) -> np.ndarray:
  """[N, G] of a rollout, by the config's estimator."""
  # numpy computes it on the host; JAX would round otherwise.
  reward: Any = scored.reward
  # An infinite reward makes advantages that are not numbers. The update finds
  # them and is not applied.
  with np.errstate(invalid="ignore"):
    advantages = np.asarray(variants.advantages_of(config.loss, reward))
  # No reward is known of a problem that cannot be judged: nothing is learned.
  return np.where(scored.judged[:, None], advantages, 0.0)


def sample_with_signal(
  config: GRPO, actor: Actor, problems: Any, step: int
) -> tuple[Scored, Scored]:
  """A rollout, and the same rollout with some groups replaced.

  A group whose rewards are all equal has no gradient. As in DAPO (3.2,
  "dynamic sampling"), other groups are drawn in its place, `config.refill`
  times at most.

  Args:
    config: `GRPO`.
    actor: `Actor` with the parameters of the policy.
    problems: of the task, with `take`.
    step: from 0.

  Returns:
    two `Scored`: what the step's problems gave, for the metrics; and what is
    trained.
  """

  def draw(redraw):
    # Every redraw of every step has problems and randomness of its own.
    number = step * (config.refill + 1) + redraw
    chosen = problems.take(number, config.prompts, config.seed)
    return actor.rollout(chosen, step, redraw)

  drawn = scored = draw(0)
  for redraw in range(1, config.refill + 1):
    (missing,) = np.nonzero(~scored.has_signal)
    if not len(missing):
      break
    other = draw(redraw)
    (found,) = np.nonzero(other.has_signal)
    count = min(len(missing), len(found))
    scored = scored.replace(missing[:count], other, found[:count])
  return drawn, scored


def learn(
  config: GRPO,
  s: Setup,
  tree: dict[str, Any],
  scored: Scored,
  step: int,
  clock: grpo_report.Clock,
) -> tuple[TrainState, list[dict[str, Any]]]:
  """The optimizer steps of one rollout.

  Args:
    config: `GRPO`.
    s: the phase's `Setup`.
    tree: dict of "state", a `TrainState`, and, with a KL term, "reference".
    scored: `Scored`, what is trained.
    step: from 0.
    clock: `grpo_report.Clock`.

  Returns:
    the new `TrainState`; list of the metrics of each optimizer step.
  """
  state = tree["state"]
  advantages = advantages_of(config, scored)
  packed = grpo_batch.pack(config, s, scored, advantages, step)
  reference = None
  if config.loss.beta:
    _, frozen = state_lib.split(config.model, state.params)
    reference = state_lib.join(tree["reference"], frozen)
  packed = [
    grpo_update.with_logprobs(config, s.mesh, state.params, reference, batch)
    for batch in packed
  ]
  if config.optimizer.offload:
    reference = None
  clock("pack")
  update = grpo_update.update_fn(config.model, config.optimizer, s.mesh)
  updates = []
  for batch in packed:
    state, metrics = update(
      state, learner.place(batch, s.mesh), config.learning_rate(step),
      reference, config.loss, config.temperature,
    )  # fmt: skip
    updates.append(metrics)
  return state, jax.device_get(updates)


def watch_updates(
  config: GRPO,
  s: Setup,
  watch: skips.Watch,
  scored: Scored,
  step: int,
  updates: list[dict[str, Any]],
) -> None:
  """Notes which optimizer steps of a rollout were not applied.

  Args:
    config: `GRPO`.
    s: the phase's `Setup`.
    watch: `skips.Watch`.
    scored: `Scored`, what was trained.
    step: from 0.
    updates: the metrics of each optimizer step.
  """
  for i, metrics in enumerate(updates):

    def names(i=i):
      advantages = advantages_of(config, scored)
      return grpo_batch.problems(config, s, scored, advantages, step)[i]

    watch(step, i, metrics["checks"], names)


def reference_of(config: GRPO, s: Setup, params: Any) -> Any:
  """The reference policy: a copy of what is trained of these parameters.

  The copy survives the donation of the originals.
  """
  trained, _ = state_lib.split(config.model, params)
  trained = _copy(trained)
  if config.optimizer.offload:
    return sharding.to_host(trained)
  return trained


@jax.jit
def _copy(tree):
  return jax.tree.map(jnp.copy, tree)
