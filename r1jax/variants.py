"""The key `loss` of a config selects among the equations of `losses`.

To add a variant: write its equation in `losses`, name it in a table below and
in the field of `Loss`, and test it. CONTRIBUTING.md has an example.
"""

import dataclasses
import inspect
import math
import numbers
import typing
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax import Array

from r1jax import arguments, corrections, losses, means
from r1jax.errors import UserError

# The objective of a token. GSPO clips as PPO does, with another ratio. A
# function has those of the arguments `epsilon` and `epsilon_high` that it
# reads; `Loss` refuses a field that its functions do not read.
OBJECTIVES = {
  "clip": losses.clipped_surrogate,
  "gspo": losses.clipped_surrogate,
  "cispo": losses.cispo,
}
# Objectives without a lower bound, which `dual_clip` can give one.
UNBOUNDED = ("clip", "gspo")
KL = {"k1": losses.kl_k1, "k2": losses.kl_k2, "k3": losses.kl_k3}
MEANS = {
  "sequence": lambda mask, length: means.sequence_mean(mask),
  "token": lambda mask, length: means.token_mean(mask),
  "constant": means.constant_mean,
}
ADVANTAGES = {
  "deviation": losses.group_advantages,
  "centred": losses.centred_advantages,
  "leave_one_out": losses.leave_one_out_advantages,
}


@dataclasses.dataclass(frozen=True)
class Loss:
  """Which policy-gradient loss RL minimizes; the defaults are GRPO's.

  In JAX it is a pytree: `epsilon` and `beta` are traced, so that other values
  need no other program; the other fields are static.
  """

  # "clip" (PPO, GRPO, DAPO), "gspo" or "cispo".
  objective: Literal["clip", "gspo", "cispo"] = "clip"
  # Half-width of the clip of the ratio pi_theta / pi_old.
  epsilon: float = 0.2
  # Upper half-width of the clip (DAPO's clip-higher); None: epsilon.
  epsilon_high: float | None = None
  # Lower limit c A of the objective where A < 0, c > 1; None: no limit.
  dual_clip: float | None = None
  # Estimate of the KL divergence from the reference: "k1", "k2" or "k3".
  kl: Literal["k1", "k2", "k3"] = "k3"
  # Coefficient of the KL term; 0: no KL term and no reference.
  beta: float = 0.0
  # What the loss averages over: "sequence" (GRPO), "token" (DAPO) or
  # "constant" (Dr. GRPO).
  mean: Literal["sequence", "token", "constant"] = "sequence"
  # "deviation" (GRPO), "centred" (Dr. GRPO) or "leave_one_out" (RLOO).
  advantage: Literal["deviation", "centred", "leave_one_out"] = "deviation"
  # Tokens before max_new_tokens at which DAPO's length penalty starts; 0: no
  # penalty. The penalty is a part of the reward.
  overlong: int = 0
  # Correction of the difference between sampler and learner: "none",
  # "truncate" (TIS) or "mask" (IcePop).
  correction: Literal["none", "truncate", "mask"] = "none"
  # (low, high), the kept range of the corrected ratio; None: (0.0, 2.0) for
  # "truncate", whose low is 0, and (0.5, 2.0) for "mask".
  correction_range: tuple[float, float] | None = None

  def __post_init__(self):
    for name, hint in typing.get_type_hints(Loss).items():
      known = typing.get_args(hint)
      named = typing.get_origin(hint) is Literal
      if named and getattr(self, name) not in known:
        raise UserError(
          f"loss.{name}={getattr(self, name)!r} is unknown; known:"
          f" {', '.join(known)}"
        )
    _require(self, "epsilon", "above 0", lambda x: x > 0)
    _require(self, "beta", "at least 0", lambda x: x >= 0)
    if self.epsilon_high is not None:
      _require(self, "epsilon_high", "at least 0", lambda x: x >= 0)
    if self.dual_clip is not None:
      _require(self, "dual_clip", "above 1", lambda x: x > 1)
    if type(self.overlong) is not int or self.overlong < 0:
      raise UserError(
        f"loss.overlong={self.overlong!r} must be a whole number of tokens, at"
        " least 0"
      )
    self._check_correction_range()
    self._check_unread()

  def _check_correction_range(self):
    given = self.correction_range
    if given is None:
      return
    pair = tuple(given) if isinstance(given, list | tuple) else ()
    good = len(pair) == 2 and all(map(_is_number, pair))
    if not good or not 0 <= pair[0] < 1 < pair[1]:
      raise UserError(
        f"loss.correction_range={given!r} must be (low, high) with"
        " 0 <= low < 1 < high"
      )
    if self.correction == "none":
      raise UserError(
        "loss.correction_range has no meaning without a correction; set"
        ' loss.correction to "truncate" or "mask"'
      )
    if self.correction == "truncate" and pair[0]:
      raise UserError(
        f"loss.correction_range={given!r}: its lower bound has no meaning with"
        f' correction="truncate"; write (0.0, {pair[1]})'
      )
    # Static fields of a pytree must be hashable; a config may give a list.
    object.__setattr__(self, "correction_range", pair)

  def _check_unread(self):
    """Refuses fields that the chosen functions do not read."""
    unread = {"epsilon", "epsilon_high"} - set(reads(self.objective))
    if self.objective not in UNBOUNDED:
      unread.add("dual_clip")
    for name in sorted(unread):
      if getattr(self, name) != getattr(Loss, name):
        raise UserError(
          f"loss.{name} has no meaning with objective={self.objective!r},"
          " which does not read it; remove it"
        )
    if self.kl != Loss.kl and not self.beta:
      raise UserError(
        f"loss.kl={self.kl!r} has no meaning with loss.beta=0, without a KL"
        " term; set loss.beta or remove loss.kl"
      )


def reads(objective: str) -> tuple[str, ...]:
  """Which of `epsilon` and `epsilon_high` an objective reads."""
  known = inspect.signature(OBJECTIVES[objective]).parameters
  return tuple(name for name in ("epsilon", "epsilon_high") if name in known)


def _is_number(x):
  real = isinstance(x, numbers.Real) and not isinstance(x, bool)
  return real and math.isfinite(x)


def _require(loss, name, words, good):
  x = getattr(loss, name)
  if not _is_number(x) or not good(x):
    raise UserError(f"loss.{name}={x!r} must be a number {words}")


_TRACED = ("epsilon", "beta")


def _flatten(loss):
  fields = {f.name: getattr(loss, f.name) for f in dataclasses.fields(loss)}
  traced = tuple(fields.pop(name) for name in _TRACED)
  return traced, tuple(fields.items())


def _unflatten(static, traced):
  # JAX puts tracers and placeholders into the traced fields, so nothing can be
  # checked here.
  loss = object.__new__(Loss)
  for name, value in (*static, *zip(_TRACED, traced)):
    object.__setattr__(loss, name, value)
  return loss


jax.tree_util.register_pytree_node(Loss, _flatten, _unflatten)


def policy_loss(
  loss: Loss, logprobs: Array, old_logprobs: Array, ref_logprobs: Array | None,
  advantages: Array, weights: Array, segments: Array | None = None,
  sampler_logprobs: Array | None = None,
) -> tuple[Array, dict[str, Array]]:  # fmt: skip
  """`losses.grpo_loss` with the parts that a config's `loss` names.

  Args:
    loss: `Loss`.
    logprobs: [B, T], log pi_theta of each token.
    old_logprobs: [B, T], log pi_old.
    ref_logprobs: [B, T], log pi_ref; None if `loss.beta` is 0.
    advantages: [B, T], the same for all tokens of a completion.
    weights: [B, T]; 0 in prompts and padding.
    segments: [B, T] int32, the number of a token's sequence in its row; only
      the objective "gspo" needs it.
    sampler_logprobs: [B, T], log pi_old as the sampler computed it; only a
      correction needs it. `old_logprobs` must then be the learner's.

  Returns:
    [] loss; dict of weighted [] sums: "kl" in nats, "clip_fraction".

  Raises:
    UserError: an array is missing or has another shape.
  """
  _check_loss(loss)
  _check_given(loss, segments, sampler_logprobs)

  def surrogate(logprobs, old, advantages, epsilon):
    real = weights > 0
    log_ratio = logprobs, old
    if loss.objective == "gspo":
      ratio = losses.sequence_log_ratio(logprobs, old, real, segments)
      log_ratio = ratio, jnp.zeros_like(ratio)
    widths = {"epsilon": epsilon, "epsilon_high": loss.epsilon_high}
    objective, clipped = OBJECTIVES[loss.objective](
      *log_ratio, advantages, **{k: widths[k] for k in reads(loss.objective)}
    )
    if loss.dual_clip is not None:
      objective = losses.dual_clip(objective, advantages, loss.dual_clip)
    if loss.correction != "none":
      low = 0.0 if loss.correction == "truncate" else 0.5
      objective *= corrections.importance_correction(
        old,
        jnp.where(real, sampler_logprobs, 0.0),
        loss.correction,
        *(loss.correction_range or (low, 2.0)),
      )
    return objective, clipped

  return losses.grpo_loss(
    logprobs, old_logprobs, ref_logprobs, advantages, weights, loss.epsilon,
    loss.beta, (surrogate, KL[loss.kl]),
  )  # fmt: skip


def _check_given(loss, segments, sampler_logprobs):
  """Raises `UserError` unless the arrays are given that a loss needs."""
  if loss.objective == "gspo":
    arguments.given(
      "[B, T] int32, the number of a token's sequence in its row",
      'objective="gspo"', segments=segments,
    )  # fmt: skip
  if loss.correction != "none":
    arguments.given(
      "[B, T], log pi_old as the sampler computed it",
      f'correction="{loss.correction}"', sampler_logprobs=sampler_logprobs,
    )  # fmt: skip


def weights_of(loss: Loss, mask: Array, length: int) -> Array:
  """Token weights of a mini-batch, by `loss.mean`.

  Args:
    loss: `Loss`.
    mask: [C, T] bool, True at trained tokens.
    length: the most tokens that a completion may have.

  Returns:
    [C, T] float32.

  Raises:
    UserError: the mask has another shape.
  """
  _check_loss(loss)
  return MEANS[loss.mean](mask, length)


def advantages_of(loss: Loss, rewards: Any) -> Array:
  """Advantages of completions within their groups, by `loss.advantage`.

  Args:
    loss: `Loss`.
    rewards: [N, G] float32, one row per prompt.

  Returns:
    [N, G] float32; exactly 0 in a group whose rewards are all equal.

  Raises:
    UserError: the rewards have another shape.
  """
  _check_loss(loss)
  return ADVANTAGES[loss.advantage](rewards)


def _check_loss(loss):
  if not isinstance(loss, Loss):
    raise UserError(
      f"loss must be a variants.Loss, not a {type(loss).__name__}; of a dict,"
      " Loss(**fields) makes one"
    )
