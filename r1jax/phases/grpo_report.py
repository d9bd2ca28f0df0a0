"""The metrics of RL."""

import time
from typing import Any

import numpy as np

from r1jax.phases.actor import Scored
from r1jax.verifiers import reflection, repetition


def report(
  scored: Scored,
  advantages: np.ndarray,
  updates: list[dict[str, Any]],
  seconds: dict[str, float],
) -> dict[str, Any]:
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


def token_mean(updates: list[dict[str, Any]], name: str) -> float:
  """A metric's mean over the tokens that updates trained; NaN without any."""
  trained = sum(float(u["trained"]) for u in updates)
  total = sum(float(u[name]) for u in updates)
  return total / trained if trained else float("nan")


class Clock:
  """Seconds of the named parts of a step."""

  def __init__(self) -> None:
    self.seconds = {}
    self._last = time.perf_counter()

  def __call__(self, name: str) -> None:
    """Everything since the last call belongs to `name`."""
    now = time.perf_counter()
    self.seconds[name] = now - self._last
    self._last = now
