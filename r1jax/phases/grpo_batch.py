"""From the completions of a rollout to packed batches for the learner."""

from typing import Any

import numpy as np

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
  seed = (config.seed, step)
  order = np.random.default_rng(seed).permutation(len(scored.texts))
  rows = sharding.whole_rows(config.rows, s.mesh)
  micro = packing.capacity(
    len(order) // config.minibatches, max(map(len, scored.prompts)) + new,
    config.row_length, rows, config.share_prompts,
  )  # fmt: skip
  return [
    packing.pack(
      _sequences(config, scored, advantages, members),
      row_length=config.row_length,
      rows=rows,
      micro_batches=micro,
      pad_id=s.tokenizer.pad_id,
      shared=config.share_prompts,
    )
    for members in np.split(order, config.minibatches)
  ]


def _sequences(config, scored, advantages, members):
  """The `packing.Sequence` of each completion that is trained.

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
  return [
    sequence(
      scored.prompts[i // group],
      rollout.tokens[i, : rollout.lengths[i]],
      w[: rollout.lengths[i]],
      advantages[i // group, i % group],
      rollout.logprobs[i, : rollout.lengths[i]],
    )
    for i, w in zip(members, weights)
    if config.loss.beta or advantages[i // group, i % group]
  ]


def sequence(
  prompt: np.ndarray,
  completion: np.ndarray,
  weights: np.ndarray,
  advantage: float,
  old_logprobs: np.ndarray,
) -> packing.Sequence:
  """A `packing.Sequence`; nothing of the prompt is trained."""
  blank = np.zeros(len(prompt), np.float32)
  return packing.Sequence(
    np.concatenate((prompt, completion)),
    np.concatenate((blank, weights)),
    advantage,
    np.concatenate((blank, old_logprobs)),
    prompt=len(prompt),
  )
