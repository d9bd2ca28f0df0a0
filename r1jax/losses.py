"""The equations of reinforcement learning and supervised training.

Every function here takes arrays and returns arrays. None of them sees a model,
a config or a mesh. `r1jax.variants` picks the functions that a config names.

A loss has the form `-(weights * objective).sum()`. Each token carries its own
weight, from `r1jax.means`, and the weights of one optimizer step sum to one.
Losses of micro-batches, packed rows and devices can therefore be added exactly.

Arrays are [B, T] (rows, tokens) unless a docstring says otherwise. The
functions also accept any other common shape. Log-probabilities are natural
logarithms. `rho` is the ratio pi_theta / pi_old.

Sources:
  R1         arXiv 2501.12948v2
  DSM        DeepSeekMath, arXiv 2402.03300
  Schulman   "Approximating KL Divergence", 2020
  DAPO       arXiv 2503.14476
  Dr. GRPO   arXiv 2503.20783
  GSPO       arXiv 2507.18071
  CISPO      MiniMax-M1, arXiv 2506.13585
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array

from r1jax import arguments
from r1jax.errors import UserError

Scalar = float | Array


def grpo_loss(
  logprobs: Array, old_logprobs: Array, ref_logprobs: Array | None,
  advantages: Array, weights: Array, epsilon: Scalar, beta: Scalar,
  parts: tuple[Callable, Callable] | None = None,
) -> tuple[Array, dict[str, Array]]:  # fmt: skip
  """Group relative policy optimization (GRPO).

      L = - sum_{i,t} w_it { min(rho_it A_i, clip(rho_it, 1 - eps, 1 + eps) A_i)
                             - beta k3_it }

  R1 Eq. 1; DSM Eq. 3, with w_it = 1 / (C |o_i|) from `means.sequence_mean`. The
  gradient of the bracket by log pi_theta is A_i + beta (r_it - 1) if rho = 1.

  Args:
    logprobs: [B, T], log pi_theta of each token.
    old_logprobs: [B, T], log pi_old.
    ref_logprobs: [B, T], log pi_ref; None without a KL term.
    advantages: [B, T], A_i, the same for all tokens of a completion.
    weights: [B, T], w_it; 0 in prompts and padding.
    epsilon: half-width of the clip.
    beta: coefficient of the KL term; 0 for none.
    parts: functions in place of (`clipped_surrogate`, `kl_k3`).

  Returns:
    [] loss; dict of weighted [] sums: "kl" in nats, "clip_fraction".

  Raises:
    UserError: an array is missing or has another shape.
  """
  if ref_logprobs is None:
    if isinstance(beta, jax.core.Tracer) or beta != 0:
      raise UserError(
        f"ref_logprobs is missing: beta={beta} needs log pi_ref, [B, T]"
      )
    ref_logprobs = jax.lax.stop_gradient(logprobs)
  arguments.tokens(
    logprobs=logprobs, old_logprobs=old_logprobs, ref_logprobs=ref_logprobs,
    advantages=advantages, weights=weights,
  )  # fmt: skip
  # Padding may hold infinity, and 0 * inf is NaN, in the gradient too.
  logprobs, old, ref, advantages = (
    jnp.where(weights > 0, x, 0.0)
    for x in (logprobs, old_logprobs, ref_logprobs, advantages)
  )
  surrogate, estimate = parts or (clipped_surrogate, kl_k3)
  objective, clipped = surrogate(logprobs, old, advantages, epsilon)
  kl = estimate(logprobs, ref)
  loss = -(weights * (objective - beta * kl)).sum()
  metrics = {"kl": weights * kl, "clip_fraction": weights * clipped}
  return loss, jax.lax.stop_gradient(jax.tree.map(jnp.sum, metrics))


def clipped_surrogate(
  logprobs: Array, old_logprobs: Array, advantages: Array,
  epsilon: Scalar, epsilon_high: Scalar | None = None,
) -> tuple[Array, Array]:  # fmt: skip
  """PPO's pessimistic objective of each token, to be maximized.

      min(rho A, clip(rho, 1 - epsilon, 1 + epsilon) A),
      rho = pi_theta(o_t | q, o_<t) / pi_old(o_t | q, o_<t)

  R1 Eq. 1 prints rho as a ratio of whole outputs. DSM Eq. 3 has the ratio of
  a token, which R1's remarks on clipping tokens presuppose; so do we.

  Args:
    logprobs: [B, T], log pi_theta.
    old_logprobs: [B, T], log pi_old.
    advantages: [B, T], A of the token's completion.
    epsilon: half-width of the interval. R1's 10 only caps rho at 11 if A > 0.
    epsilon_high: upper half-width if it differs (DAPO Eq. 10, "clip-higher").

  Returns:
    [B, T] objective; [B, T] bool, True where the clip removes the gradient.
  """
  arguments.tokens(
    logprobs=logprobs,
    old_logprobs=old_logprobs,
    advantages=advantages,
  )
  ratio = jnp.exp(logprobs - old_logprobs)
  free = ratio * advantages
  high = epsilon if epsilon_high is None else epsilon_high
  clipped = jnp.clip(ratio, 1 - epsilon, 1 + high) * advantages
  return jnp.minimum(free, clipped), clipped < free


def kl_k3(logprobs: Array, ref_logprobs: Array) -> Array:
  """Schulman's k3 estimate of KL(pi_theta || pi_ref), token by token.

      k3 = r - log r - 1,   r = pi_ref(o_t | .) / pi_theta(o_t | .)

  R1 Eq. 2, DSM Eq. 4. It is never negative, and it is unbiased under pi_theta.
  Its gradient is dk3/dlog pi_theta = 1 - r. On policy the expected gradient is
  that of KL(pi_ref || pi_theta), the other direction.

  Args:
    logprobs: [B, T], log pi_theta.
    ref_logprobs: [B, T], log pi_ref.

  Returns:
    [B, T], nats.
  """
  arguments.tokens(logprobs=logprobs, ref_logprobs=ref_logprobs)
  log_r = ref_logprobs - logprobs
  return jnp.expm1(log_r) - log_r


def kl_k1(logprobs: Array, ref_logprobs: Array) -> Array:
  """Schulman's k1 = log pi_theta - log pi_ref: unbiased, may be negative.

  As a loss its gradient is dk1/dlog pi_theta = 1, whose expectation on policy
  is zero: k1 does not regularize. It serves as a metric.

  Args:
    logprobs: [B, T], log pi_theta.
    ref_logprobs: [B, T], log pi_ref.

  Returns:
    [B, T], nats.
  """
  arguments.tokens(logprobs=logprobs, ref_logprobs=ref_logprobs)
  return logprobs - ref_logprobs


def kl_k2(logprobs: Array, ref_logprobs: Array) -> Array:
  """Schulman's k2 = (log pi_theta - log pi_ref)^2 / 2: biased, never negative.

  As a loss its gradient is dk2/dlog pi_theta = log(pi_theta / pi_ref). On
  policy the expected gradient is that of KL(pi_theta || pi_ref).

  Args:
    logprobs: [B, T], log pi_theta.
    ref_logprobs: [B, T], log pi_ref.

  Returns:
    [B, T], nats.
  """
  return 0.5 * jnp.square(kl_k1(logprobs, ref_logprobs))


def group_advantages(rewards: Array, epsilon: float = 1e-6) -> Array:
  """GRPO's advantages: each reward relative to its group, in deviations.

      A_i = (r_i - mean(r_1..r_G)) / (std(r_1..r_G) + epsilon)

  R1 Eq. 3; DSM 4.1.2, outcome supervision. No text of DeepSeek gives epsilon
  or says which estimator std is. We take the population's. A group whose
  rewards are all equal gets exactly 0, hence no gradient.

  Args:
    rewards: [N, G] float32, one row per prompt.
    epsilon: added to the standard deviation.

  Returns:
    [N, G] float32.
  """
  centred = _centred(rewards)
  std = rewards.std(axis=1, keepdims=True)
  return _zero_if_equal(rewards, centred / (std + epsilon))


def centred_advantages(rewards: Array) -> Array:
  """Dr. GRPO's advantages: A_i = r_i - mean(r_1..r_G).

  Dr. GRPO, 3.2: dividing by the standard deviation, as GRPO does, favours
  prompts that are almost always or almost never solved. A group whose rewards
  are all equal gets exactly 0, though their mean may round to another number.

  Args:
    rewards: [N, G] float32, one row per prompt.

  Returns:
    [N, G] float32.
  """
  return _zero_if_equal(rewards, _centred(rewards))


def _centred(rewards):
  arguments.matrix("[N, G], a row for each prompt", rewards=rewards)
  return rewards - rewards.mean(axis=1, keepdims=True)


def _zero_if_equal(rewards, advantages):
  """Last of all: what numpy computes before is rounded as numpy rounds."""
  equal = (rewards == rewards[:, :1]).all(axis=1, keepdims=True)
  return jnp.where(equal, 0.0, advantages)


def leave_one_out_advantages(rewards: Array) -> Array:
  """RLOO's advantages: the baseline is the mean reward of the others.

      A_i = r_i - sum_{j != i} r_j / (G - 1) = G / (G - 1) (r_i - mean)

  Kool et al. 2019; Ahmadian et al., arXiv 2402.14740, Eq. 8. Unbiased; the
  mean of all rewards would shrink the gradient by (G - 1) / G.

  Args:
    rewards: [N, G] float32, one row per prompt, G at least 2.

  Returns:
    [N, G] float32.
  """
  centred = _centred(rewards)
  group = rewards.shape[1]
  if group < 2:
    raise UserError(
      f"rewards has the shape {rewards.shape}; G in [N, G] must be at least 2"
    )
  return _zero_if_equal(rewards, centred * (group / (group - 1)))


def sequence_log_ratio(
  logprobs: Array, old_logprobs: Array, real: Array, segments: Array
) -> Array:
  """GSPO's ratio: log s_i of a whole sequence, at each of its tokens.

      log s_i = 1 / |o_i| sum_t (log pi_theta(o_it) - log pi_old(o_it))

  GSPO Eq. 7. The value at a token is log s_i. The gradient by a token is that
  of the token's own log-ratio (GSPO-token, Eq. 13). Summed over a sequence with
  equal weights, the gradients are GSPO's, also in packed rows.

  Args:
    logprobs: [B, T], log pi_theta.
    old_logprobs: [B, T], log pi_old.
    real: [B, T] bool, True at trained tokens.
    segments: [B, T] int32, the number of a token's sequence in its row.

  Returns:
    [B, T], log s_i; 0 outside `real`.
  """
  arguments.tokens(
    logprobs=logprobs,
    old_logprobs=old_logprobs,
    real=real,
    segments=segments,
  )
  difference = jnp.where(real, logprobs - old_logprobs, 0.0)

  def mean(x, r, s):
    total = jnp.zeros(len(x) + 1).at[s].add(x)
    count = jnp.zeros(len(x) + 1).at[s].add(r)
    return (total / jnp.maximum(count, 1))[s]

  value = jax.vmap(mean)(difference, real.astype(jnp.float32), segments)
  stop = jax.lax.stop_gradient
  return jnp.where(real, stop(value) + difference - stop(difference), 0.0)


def cispo(
  logprobs: Array, old_logprobs: Array, advantages: Array,
  epsilon: Scalar, epsilon_high: Scalar | None = None,
) -> tuple[Array, Array]:  # fmt: skip
  """CISPO's objective of each token: clips its weight, keeps its gradient.

      sg(clip(rho, 1 - epsilon, 1 + epsilon_high)) A log pi_theta(o_t)

  CISPO Eq. 4 and 5; to be maximized. `sg` stops the gradient.

  Args:
    logprobs: [B, T], log pi_theta.
    old_logprobs: [B, T], log pi_old.
    advantages: [B, T], A of the token's completion.
    epsilon: lower half-width of the interval.
    epsilon_high: upper half-width; None for the lower one.

  Returns:
    [B, T] objective; [B, T] bool, True where the weight was clipped.
  """
  arguments.tokens(
    logprobs=logprobs,
    old_logprobs=old_logprobs,
    advantages=advantages,
  )
  ratio = jax.lax.stop_gradient(jnp.exp(logprobs - old_logprobs))
  high = epsilon if epsilon_high is None else epsilon_high
  weight = jnp.clip(ratio, 1 - epsilon, 1 + high)
  return weight * advantages * logprobs, weight != ratio


def dual_clip(objective: Array, advantages: Array, bound: float) -> Array:
  """Limits the objective from below where the advantage is negative.

      max(objective, c A)  where A < 0

  Ye et al. 2020, arXiv 1912.09729, Eq. 5. Without the limit
  `clipped_surrogate` is unbounded where rho is large and A negative.

  Args:
    objective: [B, T], from `clipped_surrogate`.
    advantages: [B, T], A of the token's completion.
    bound: c, above 1.

  Returns:
    [B, T] objective.
  """
  arguments.tokens(objective=objective, advantages=advantages)
  floor = jnp.maximum(objective, bound * advantages)
  return jnp.where(advantages < 0, floor, objective)


def cross_entropy(logprobs: Array, weights: Array) -> Array:
  """Supervised training: the negative log-likelihood of given tokens.

      L = - sum_{i,t} w_it log pi_theta(y_it | x_i, y_i,<t)

  Args:
    logprobs: [B, T], log pi_theta of the target tokens.
    weights: [B, T], w_it; 0 where a token is not trained.

  Returns:
    [] loss in nats per token.
  """
  arguments.tokens(logprobs=logprobs, weights=weights)
  return -jnp.where(weights > 0, weights * logprobs, 0.0).sum()
