"""From the completions of a rollout to packed batches for the learner."""

from typing import Any

import numpy as np

from r1jax import kept as kept_lib
from r1jax import sharding, variants
from r1jax.phases.actor import Scored
from r1jax.phases.common import Setup
from r1jax.training import packing
from r1jax.types import Batch


def pack(
  config: Any, s: Setup, scored: Scored, advantages: np.ndarray, step: int
) -> list[Batch]:
  """The rollout's completions as `minibatches` packed batches.

  They are shuffled first, as R1 does (v2, 2.1), so that a group is spread
  over the optimizer steps. Without a KL term the gradient of a completion
  whose advantage is 0 is exactly 0, so it is left out.

  Args:
    config: `GRPO`.
    s: the phase's `Setup`.
    scored: `Scored`.
    advantages: [N, G].
    step: from 0.

  Returns:
    list of `Batch` of numpy arrays.
  """
  new = config.sampler.max_new_tokens
  rows = sharding.whole_rows(config.rows, s.mesh)
  micro = packing.capacity(
    len(scored.texts) // config.minibatches,
    max(map(len, scored.prompts)) + new,
    config.row_length, rows, config.share_prompts,
  )  # fmt: skip
  truncates = config.sampler.truncates
  words = kept_lib.words(config.model.vocab_size) if truncates else 0
  return [
    packing.pack(
      list(_sequences(config, scored, advantages, members).values()),
      row_length=config.row_length,
      rows=rows,
      micro_batches=micro,
      pad_id=s.tokenizer.pad_id,
      shared=config.share_prompts,
      words=words,
    )
    for members in _minibatches(config, scored, step)
  ]


def _minibatches(config, scored, step):
  """The numbers of the completions of each mini-batch."""
  seed = (config.seed, step)
  order = np.random.default_rng(seed).permutation(len(scored.texts))
  return np.split(order, config.minibatches)


def problems(
  config: Any, s: Setup, scored: Scored, advantages: np.ndarray, step: int
) -> list[list[list[str]]]:
  """The ids of the problems in what `pack` makes of the same arguments.

  Returns:
    for each mini-batch, for each of its micro-batches that has any, the ids.
  """
  rows = sharding.whole_rows(config.rows, s.mesh)
  found = []
  for numbers in _minibatches(config, scored, step):
    sequences = _sequences(config, scored, advantages, numbers)
    held = packing.members(
      list(sequences.values()), config.row_length, rows, config.share_prompts
    )
    ids = [scored.problems[i // scored.group].id for i in sequences]
    found.append([[ids[i] for i in micro] for micro in held])
  return found


def _sequences(config, scored, advantages, members):
  """Number of each completion that is trained -> its `packing.Sequence`.

  Args:
    config: `GRPO`.
    scored: `Scored`.
    advantages: [N, G].
    members: numbers of the completions of a mini-batch.
  """
  rollout, group = scored.rollout, advantages.shape[1]
  columns = np.arange(rollout.tokens.shape[1])
  trained = columns < rollout.lengths[members, None]
  weights = np.asarray(
    variants.weights_of(config.loss, trained, config.sampler.max_new_tokens)
  )
  return {
    int(i): sequence(
      scored.prompts[i // group],
      rollout.tokens[i, : rollout.lengths[i]],
      w[: rollout.lengths[i]],
      advantages[i // group, i % group],
      rollout.logprobs[i, : rollout.lengths[i]],
      None if rollout.kept is None else rollout.kept[i, : rollout.lengths[i]],
    )
    for i, w in zip(members, weights)
    if config.loss.beta or advantages[i // group, i % group]
  }


def sequence(
  prompt: np.ndarray,
  completion: np.ndarray,
  weights: np.ndarray,
  advantage: float,
  old_logprobs: np.ndarray,
  kept: np.ndarray | None = None,
) -> packing.Sequence:
  """A `packing.Sequence`; nothing of the prompt is trained."""
  blank = np.zeros(len(prompt), np.float32)
  if kept is not None:
    nothing = np.zeros((len(prompt), kept.shape[1]), kept.dtype)
    kept = np.concatenate((nothing, kept))
  return packing.Sequence(
    np.concatenate((prompt, completion)),
    np.concatenate((blank, weights)),
    advantage,
    np.concatenate((blank, old_logprobs)),
    prompt=len(prompt),
    kept=kept,
  )
