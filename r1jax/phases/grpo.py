"""Reinforcement learning with group relative policy optimisation."""

import functools
import time

import jax
import jax.numpy as jnp
import numpy as np

from r1jax import losses, meshes, sharding, variants
from r1jax.data import sources
from r1jax.model import lora
from r1jax.phases import rollout as rollout_lib
from r1jax.phases.common import setup
from r1jax.training import learner, packing, policy
from r1jax.training import optimizer as optim
from r1jax.verifiers import reflection, repetition


def grpo(config, state, data, io):
  """R1's RL: sample groups, verify, compare within the group, update.

  Args:
    config: steps (rollouts), prompts (N), group (G), minibatches (optimiser
      steps a rollout), lr, schedule and warmup (in rollouts), ref_every
      (rollouts between replacements of the reference, if loss.beta is not 0),
      temperature, rewards (name -> weight), slots, max_new_tokens,
      row_length, rows, save_every; optionally share_prompts (whether the
      completions of a row share their prompt), loss (fields of
      `variants.Loss`), refill (how often groups without
      signal may be replaced in a rollout) and the sampler's
      `rollout.SAMPLER_OPTIONS`.
    state: `TrainState` whose parameters RL starts from.
    data: not used; the problems are those of `config.task`.
    io: the phase's `PhaseIO`.

  Returns:
    the final `TrainState`, and None.
  """
  s = setup(config)
  problems = sources.problems(config.task, io, s.tokenizer)["train"]
  update = update_fn(s.model, s.optimizer, s.mesh)
  state = learner.new_state(s.model, s.optimizer, s.mesh, state, s.key)
  # Without a KL term there is no second set of parameters to keep; with one,
  # it is of what is trained only.
  tree = {"state": state}
  if s.loss.beta:
    tree["reference"] = reference_of(s, state.params)
  first, tree = io.restore(tree) or (0, tree)
  io.bar(config.steps, first, show=("reward", "accuracy", "tokens"))
  for step in range(first, config.steps):
    state = tree["state"]
    if s.loss.beta and step and step % config.ref_every == 0:
      tree["reference"] = reference_of(s, state.params)
    clock = Clock()
    drawn, scored = sample_with_signal(s, config, state.params, problems, step)
    clock("sample")
    packed = pack_rollout(s, config, scored, advantages_of(s, scored), step)
    reference = None
    if s.loss.beta:
      _, frozen = lora.split(state.params)
      reference = lora.join(tree["reference"], frozen)
    packed = [
      with_logprobs(s, config, state.params, reference, p) for p in packed
    ]
    if s.optimizer.offload:
      reference = None
    clock("pack")
    lr = optim.learning_rate(
      step,
      lr=config.lr,
      steps=config.steps,
      schedule=config.schedule,
      warmup=config.warmup,
    )
    updates = []
    for minibatch in packed:
      state, metrics = update(
        state, learner.place(minibatch, s.mesh), lr, reference, s.loss,
        config.temperature,
      )  # fmt: skip
      updates.append(metrics)
    tree["state"] = state
    updates = jax.device_get(updates)
    clock("update")
    advantages = advantages_of(s, drawn)
    io.report(step, report(drawn, advantages, updates, clock.seconds))
    io.samples(step, rollout_lib.sample_rows(drawn, 4))
    if (step + 1) % config.save_every == 0 or step + 1 == config.steps:
      io.save(step + 1, tree)
  return tree["state"], None


def advantages_of(s, scored):
  """[N, G] of a rollout, by the config's estimator."""
  advantages = np.asarray(variants.advantages_of(s.loss, scored.reward))
  # No reward is known of a problem that cannot be judged: nothing is learned.
  return np.where(scored.judged[:, None], advantages, 0.0)


def sample_with_signal(s, config, params, problems, step):
  """A rollout, and the same with some groups replaced.

  Groups whose rewards are all equal teach nothing. As in DAPO (3.2, "dynamic
  sampling"), others are drawn in their place, `config.refill` times at most.

  Returns:
    two `Scored`: what the step's problems gave, which is what metrics are of;
    and what is trained.
  """

  def draw(turn):
    # Every turn of every step has problems and randomness of its own.
    turns = config.get("refill", 0) + 1
    key = jax.random.fold_in(s.key, step)
    return rollout_lib.sample_and_score(
      s, config, params,
      problems.take(step * turns + turn, config.prompts, s.seed),
      config.group, jax.random.fold_in(key, turn) if turn else key,
      config.temperature, config.rewards,
    )  # fmt: skip

  def blank(scored):
    return (advantages_of(s, scored) == 0).all(axis=1)

  drawn = scored = draw(0)
  for turn in range(1, config.get("refill", 0) + 1):
    (missing,) = np.nonzero(blank(scored))
    if not len(missing):
      break
    other = draw(turn)
    (found,) = np.nonzero(~blank(other))
    count = min(len(missing), len(found))
    scored = scored.replace(missing[:count], other, found[:count])
  return drawn, scored


def reference_of(s, params):
  """The reference policy: what is trained of these parameters, to keep.

  They survive the donation of the originals.
  """
  trained, _ = lora.split(params)
  trained = _copy(trained)
  return sharding.to_host(s.mesh, trained) if s.optimizer.offload else trained


@jax.jit
def _copy(tree):
  return jax.tree.map(jnp.copy, tree)


def with_logprobs(s, config, params, reference, batch):
  """A packed batch with what is computed before the updates.

  That is log pi_old in the learner's arithmetic, where a correction asks for
  it; with one update a rollout, the update itself computes it. And log pi_ref,
  where the reference waits in the hosts' memory and the updates do without it.

  Args:
    params, reference: of the policy; of the reference, or None.
    batch: `Batch` of numpy arrays.
  """
  if s.loss.correction != "none" and config.minibatches > 1:
    batch = batch._replace(
      learner_logprobs=logprobs_of(s, config, params, batch)
    )
  if reference is not None and s.optimizer.offload:
    batch = batch._replace(
      reference_logprobs=logprobs_of(s, config, reference, batch)
    )
  return batch


def logprobs_of(s, config, params, batch):
  """Log-probabilities [M, B, T] of a packed batch, in the learner's arithmetic.

  Args:
    params: on the devices, or as `sharding.to_host` leaves them.
    batch: `Batch` of numpy arrays.
  """
  scores = _score_fn(s.model, s.mesh)
  placed = learner.place(batch, s.mesh)
  return np.asarray(scores(params, placed, config.temperature))


@functools.lru_cache
def _score_fn(model, mesh):
  """(params, batch, temperature) -> log-probabilities [M, B, T]."""

  def score(params, batch, temperature):
    def micro(i, out):
      b = learner.micro_batch(batch, i)
      logprobs, _ = score_batch(model, params, b, temperature)
      return out.at[i].set(logprobs)

    params = sharding.to_device(mesh, params)
    with meshes.on(mesh):
      zeros = jnp.zeros(batch.tokens.shape, jnp.float32)
      return jax.lax.fori_loop(0, batch.count, micro, zeros)

  return jax.jit(score, out_shardings=sharding.replicated(mesh))


def score_batch(model, params, batch, temperature):
  """`policy.logprobs` of a micro-batch."""
  return policy.logprobs(
    model, params, batch.tokens, batch.positions, batch.segments,
    batch.targets, prefixes=batch.prefixes, trained=batch.weights > 0,
    temperature=temperature,
  )  # fmt: skip


def pack_rollout(s, config, scored, advantages, step):
  """The rollout's completions as `minibatches` packed batches.

  They are shuffled first, as R1 does (v2, 2.1), so that a group is spread
  over the optimiser steps. Where the advantage is 0 and there is no KL term
  the gradient is 0 as well, exactly, and nothing is computed.
  """
  rollout, group = scored.rollout, advantages.shape[1]
  order = np.random.default_rng((s.seed, step)).permutation(len(scored.texts))
  longest = max(map(len, scored.prompts)) + config.max_new_tokens
  rows = sharding.whole_rows(config.rows, s.mesh)
  shared = config.get("share_prompts", False)
  micro = packing.capacity(
    len(order) // config.minibatches, longest, config.row_length, rows, shared
  )
  batches = []
  for members in np.split(order, config.minibatches):
    trained = (
      np.arange(rollout.tokens.shape[1]) < rollout.lengths[members, None]
    )
    weights = np.asarray(
      variants.weights_of(s.loss, trained, config.max_new_tokens)
    )
    sequences = [
      sequence(
        scored.prompts[i // group],
        rollout.tokens[i, : rollout.lengths[i]],
        w[: rollout.lengths[i]],
        advantages[i // group, i % group],
        rollout.logprobs[i, : rollout.lengths[i]],
      )
      for i, w in zip(members, weights)
      if s.loss.beta or advantages[i // group, i % group]
    ]
    batches.append(
      packing.pack(
        sequences,
        row_length=config.row_length,
        rows=rows,
        micro_batches=micro,
        pad_id=s.tokenizer.pad_id,
        shared=shared,
      )
    )
  return batches


def sequence(prompt, completion, weights, advantage, old_logprobs):
  """A `packing.Sequence`; nothing of the prompt is trained."""
  blank = np.zeros(len(prompt), np.float32)
  return packing.Sequence(
    np.concatenate((prompt, completion)),
    np.concatenate((blank, weights)),
    advantage,
    np.concatenate((blank, old_logprobs)),
    prompt=len(prompt),
  )


@functools.lru_cache
def update_fn(model, optimizer, mesh):
  """The jitted step.

  (state, batch, lr, reference, loss, temperature) -> (state, metrics), where
  `loss` is a `variants.Loss`.
  """
  return learner.update_fn(loss_fn(model), model, optimizer, mesh)


def loss_fn(model):
  """The loss of a micro-batch, as `learner.update_fn` takes it.

  (params, micro-batch, reference, loss, temperature) -> (value, metrics),
  where `loss` is a `variants.Loss`.
  """

  def loss_of(params, batch, reference, loss, temperature):
    logprobs, entropy = score_batch(model, params, batch, temperature)
    if batch.reference_logprobs is not None:
      ref_logprobs = batch.reference_logprobs
    elif reference is None:  # loss.beta is 0
      ref_logprobs = jax.lax.stop_gradient(logprobs)
    else:
      ref_logprobs, _ = jax.lax.stop_gradient(
        score_batch(model, reference, batch, temperature)
      )
    old = batch.old_logprobs
    if loss.correction != "none":
      old = batch.learner_logprobs
      old = jax.lax.stop_gradient(logprobs) if old is None else old
    value, metrics = variants.policy_loss(
      loss, logprobs, old, ref_logprobs, batch.advantages, batch.weights,
      segments=batch.segments, sampler_logprobs=batch.old_logprobs,
    )  # fmt: skip
    real = batch.weights > 0
    gap = jnp.where(real, logprobs - batch.old_logprobs, 0.0)
    return value, {
      **metrics,
      "trained": batch.weights.sum(),
      "entropy": (batch.weights * entropy).sum(),
      "old_gap": (batch.weights * jnp.abs(gap)).sum(),
      "old_kl": (batch.weights * losses.kl_k3(jnp.zeros_like(gap), gap)).sum(),
      "old_ratio": (batch.weights * jnp.exp(gap)).sum(),
    }

  return loss_of


def report(scored, advantages, updates, seconds):
  """The metrics of one rollout and its updates, as plain numbers.

  Those of tokens are means over what the updates computed: without a KL term
  completions without advantage are left out.
  """
  rollout = scored.rollout
  tokens = int(rollout.lengths.sum())
  parts = {k for x in scored.scores for k in x} - {"reward", "reason"}
  reasons = [x["reason"] for x in scored.scores]
  return {
    "reward": float(scored.reward.mean()),
    **{part: scored.mean(part) for part in sorted(parts)},
    "tokens": tokens / len(rollout.lengths),
    "reflection": float(np.mean([reflection.count(t) for t in scored.texts])),
    "repetition": float(np.mean([repetition.share(t) for t in scored.texts])),
    "cut": float(1 - rollout.ended.mean()),
    "no_signal": float((np.abs(advantages).max(axis=1) == 0).mean()),
    **{
      k: float(np.mean([u[k] for u in updates])) for k in ("loss", "grad_norm")
    },
    **{k: token_mean(updates, k) for k in ("kl", "entropy", "clip_fraction")},
    # Before the first update theta is theta_old: what is left is the
    # difference between the sampler's arithmetic and the learner's.
    **{
      f"sampler_learner_{k}": token_mean(updates[:1], f"old_{k}")
      for k in ("gap", "kl", "ratio")
    },
    "sampler_tokens_per_s": tokens / seconds["sample"],
    "learner_tokens_per_s": tokens / seconds["update"],
    **{f"seconds_{k}": v for k, v in seconds.items()},
    # A part of seconds_sample, in which it hides.
    "seconds_reward": scored.seconds,
    **{f"reason_{r}": reasons.count(r) / len(reasons) for r in {*reasons}},
  }


def token_mean(updates, name):
  """A metric's mean over the tokens that updates trained; NaN without any."""
  trained = sum(float(u["trained"]) for u in updates)
  total = sum(float(u[name]) for u in updates)
  return total / trained if trained else float("nan")


class Clock:
  """Seconds of the named parts of a step."""

  def __init__(self):
    self.seconds = {}
    self._last = time.perf_counter()

  def __call__(self, name):
    """Everything since the last call belongs to `name`."""
    now = time.perf_counter()
    self.seconds[name] = now - self._last
    self._last = now
