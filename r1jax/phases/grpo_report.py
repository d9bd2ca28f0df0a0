"""The metrics of RL."""

import time
from collections import Counter
from typing import Any

import numpy as np

from r1jax.phases import skips
from r1jax.phases.actor import Scored
from r1jax.run import layout
from r1jax.run.phase_io import PhaseIO
from r1jax.verifiers import reflection, repetition


def report(
  scored: Scored,
  advantages: np.ndarray,
  updates: list[dict[str, Any]],
  seconds: dict[str, float],
) -> dict[str, Any]:
  """The metrics of one rollout and its updates, as plain numbers.

  docs/metrics.md explains each. Those of tokens are means over what the applied
  updates computed: without a KL term completions without advantage are left
  out.

  Args:
    scored: `Scored`.
    advantages: [N, G] of it.
    updates: the metrics of each optimizer step.
    seconds: name of a part of the step -> seconds.
  """
  rollout = scored.rollout
  steps = skips.applied(updates)
  tokens = int(rollout.lengths.sum())
  parts = {k for x in scored.scores for k in x} - {"reward", "reason"}
  reasons = [x["reason"] for x in scored.scores]
  return {
    "reward": float(scored.reward.mean()),
    "reward_std": _deviation(scored.reward),
    "advantage_std": _deviation(advantages),
    **{part: scored.mean(part) for part in sorted(parts)},
    "tokens": tokens / len(rollout.lengths),
    **_percentiles(rollout.lengths),
    "reflection": float(np.mean([reflection.count(t) for t in scored.texts])),
    "repetition": float(np.mean([repetition.share(t) for t in scored.texts])),
    "cut": float(1 - rollout.ended.mean()),
    "no_signal": float(1 - scored.has_signal.mean()),
    **{
      k: float(np.mean([u[k] for u in steps])) if steps else float("nan")
      for k in ("loss", "grad_norm")
    },
    **{k: token_mean(steps, k) for k in ("kl", "entropy", "clip_fraction")},
    # Before the first update theta is theta_old: what is left is the
    # difference between the sampler's arithmetic and the learner's.
    **{
      f"sampler_learner_{k}": token_mean(updates[:1], f"old_{k}")
      for k in ("gap", "kl", "ratio")
    },
    "sampler_learner_gap_max": _largest_gap(updates[0]),
    "sampler_tokens_per_s": tokens / seconds["sample"],
    "learner_tokens_per_s": tokens / seconds["update"],
    **{f"seconds_{k}": v for k, v in seconds.items()},
    # A part of seconds_sample, in which it hides.
    "seconds_reward": scored.seconds,
    **{f"reason_{r}": reasons.count(r) / len(reasons) for r in {*reasons}},
  }


def _largest_gap(update):
  """In nats; NaN if no token was trained, as `token_mean`."""
  trained = float(update["trained"]) > 0
  return float(update["largest"]["old_gap"]) if trained else float("nan")


class Silence:
  """Says so when rewards have been equal in every group, step after step.

  Nothing is learned then, and nothing else looks wrong.

  Args:
    io: the phase's `PhaseIO`.
    steps: of the phase.
    patience: steps in a row without signal at which a line is printed.
  """

  def __init__(self, io: PhaseIO, steps: int, patience: int = 3) -> None:
    self._io, self._patience = io, min(steps, patience)
    self._in_a_row = 0

  def __call__(self, scored: Scored) -> None:
    """Notes a rollout; prints a line at the last step of the patience.

    Args:
      scored: `Scored`.
    """
    self._in_a_row = 0 if scored.has_signal.any() else self._in_a_row + 1
    if self._in_a_row != self._patience:
      return
    reasons = Counter(x["reason"] for x in scored.scores)
    shares = ", ".join(
      f"{reason} {count / len(scored.scores):.0%}"
      for reason, count in reasons.most_common(3)
    )
    self._io.say(
      f"nothing was learned in the last {self._in_a_row} step(s): in each group"
      f" all rewards were equal ({shares}); {self._io.dir / layout.SAMPLES}"
      " has completions to read"
    )


def _deviation(x):
  """The standard deviation over all completions of a rollout."""
  with np.errstate(invalid="ignore"):  # an infinite reward has none
    return float(np.asarray(x, np.float64).std())


def _percentiles(lengths):
  """The lengths below which a tenth, half and nine tenths of them lie."""
  values = np.percentile(lengths, (10, 50, 90, 100))
  return {
    f"tokens_{name}": float(value)
    for name, value in zip(("p10", "p50", "p90", "max"), values)
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
