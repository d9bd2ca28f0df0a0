"""Every equation of the project: arrays in, arrays out.

A loss here never sees a model, a config or a mesh. Where it is averaged is
decided elsewhere, once: each token carries a weight, the weights of one
optimiser step sum to one, and every loss is `-(weight * objective).sum()`.
Sums of such losses over micro-batches, packed rows and devices are therefore
exact, where means of means are not. The weights are made by `sequence_mean`
and `token_mean` below.

Shapes are [B, T] unless said otherwise; every function also takes any other
common shape. Log-probabilities are natural logarithms.

Sources: R1 = arXiv 2501.12948v2, DSM = DeepSeekMath, arXiv 2402.03300,
Schulman = "Approximating KL Divergence" (2020).
"""

import chex
import jax
import jax.numpy as jnp


def group_advantages(rewards, epsilon=1e-6):
  """How much better each completion is than its group, in deviations.

      A_i = (r_i - mean(r_1..r_G)) / (std(r_1..r_G) + epsilon)

  R1 Eq. 3; DSM 4.1.2, outcome supervision. No text of DeepSeek states the
  estimator of std nor epsilon: we take the population's, and a group whose
  rewards are all equal gets exactly 0, hence no gradient.

  Args:
    rewards: [N, G] float32, one row a prompt.
    epsilon: added to the standard deviation.

  Returns:
    [N, G] float32.
  """
  chex.assert_rank(rewards, 2)
  centred = rewards - rewards.mean(axis=1, keepdims=True)
  advantages = centred / (rewards.std(axis=1, keepdims=True) + epsilon)
  # The mean of equal rewards may round to another number; what is left would
  # be divided by a deviation as small as itself.
  equal = (rewards == rewards[:, :1]).all(axis=1, keepdims=True)
  return jnp.where(equal, 0.0, advantages)


def clipped_surrogate(logprobs, old_logprobs, advantages, epsilon):
  """PPO's pessimistic objective of each token, to be maximised.

      min(rho A, clip(rho, 1 - epsilon, 1 + epsilon) A),
      rho = pi_theta(o_t | q, o_<t) / pi_old(o_t | q, o_<t)

  R1 Eq. 1 prints rho as a ratio of whole outputs; the ratio of a token here
  is DSM Eq. 3, which R1's remarks on clipping tokens presuppose.

  Args:
    logprobs, old_logprobs: [B, T] log pi_theta and log pi_old.
    advantages: [B, T], A of the completion that the token belongs to.
    epsilon: half-width of the interval; R1's 10 only ever caps rho at 11
      where A > 0.

  Returns:
    [B, T] objective; [B, T] bool, where the clip took the gradient away.
  """
  chex.assert_equal_shape((logprobs, old_logprobs, advantages))
  ratio = jnp.exp(logprobs - old_logprobs)
  free = ratio * advantages
  clipped = jnp.clip(ratio, 1 - epsilon, 1 + epsilon) * advantages
  return jnp.minimum(free, clipped), clipped < free


def kl_k3(logprobs, ref_logprobs):
  """Schulman's k3 estimate of KL(pi_theta || pi_ref), token by token.

      k3 = r - log r - 1,   r = pi_ref(o_t | .) / pi_theta(o_t | .)

  R1 Eq. 2, DSM Eq. 4. Never negative, and an unbiased estimate under
  pi_theta. Its gradient is dk3/dlog pi_theta = 1 - r: in expectation on
  policy that of KL(pi_ref || pi_theta), the other direction, whereas the
  gradient of k1 = -log r would be zero.

  Args:
    logprobs, ref_logprobs: [B, T] log pi_theta and log pi_ref.

  Returns:
    [B, T], nats.
  """
  chex.assert_equal_shape((logprobs, ref_logprobs))
  log_r = ref_logprobs - logprobs
  return jnp.expm1(log_r) - log_r


def grpo_loss(
  logprobs, old_logprobs, ref_logprobs, advantages, weights, epsilon, beta
):
  """Group relative policy optimisation.

      L = - sum_{i,t} w_it { min(rho_it A_i, clip(rho_it, 1 - eps, 1 + eps) A_i)
                             - beta k3_it }

  DSM Eq. 3, with w_it = 1 / (C |o_i|) from `sequence_mean`; R1 Eq. 1. On
  policy (rho = 1) the gradient by log pi of the bracket is
  A_i + beta (r_it - 1).

  Args:
    logprobs, old_logprobs, ref_logprobs: [B, T] of pi_theta, pi_old, pi_ref.
    advantages: [B, T], constant along a completion.
    weights: [B, T], summing to one over the optimiser step, 0 in prompts,
      prefilled tokens and padding.
    epsilon: clip range. beta: coefficient of the KL term.

  Returns:
    [] loss; dict of [] sums, weighted likewise: "kl" in nats, "clip_fraction".
  """
  chex.assert_equal_shape(
    (logprobs, old_logprobs, ref_logprobs, advantages, weights)
  )
  # What stands in padding may be anything, and 0 * inf would be NaN, in the
  # gradient too: it goes before, not after.
  real = weights > 0
  logprobs, old_logprobs, ref_logprobs, advantages = (
    jnp.where(real, x, 0.0)
    for x in (logprobs, old_logprobs, ref_logprobs, advantages)
  )
  surrogate, clipped = clipped_surrogate(
    logprobs, old_logprobs, advantages, epsilon
  )
  kl = kl_k3(logprobs, ref_logprobs)
  loss = -(weights * (surrogate - beta * kl)).sum()
  metrics = {
    "kl": (weights * kl).sum(),
    "clip_fraction": (weights * clipped).sum(),
  }
  return loss, jax.lax.stop_gradient(metrics)


def cross_entropy(logprobs, weights):
  """Supervised fine-tuning: the negative log-likelihood of given tokens.

      L = - sum_{i,t} w_it log pi_theta(y_it | x_i, y_i,<t)

  Args:
    logprobs: [B, T] of the target tokens.
    weights: [B, T], summing to one over the optimiser step.

  Returns:
    [] loss in nats per token.
  """
  chex.assert_equal_shape((logprobs, weights))
  return -jnp.where(weights > 0, weights * logprobs, 0.0).sum()


def sequence_mean(mask):
  """Weights of a mean over sequences of the mean over their tokens.

      w_it = 1 / (C |o_i|)

  DSM Eq. 3 (its 1/G and 1/|o_i|). Long completions weigh no more than short
  ones, so a token of a long one weighs less.

  Args:
    mask: [C, T] bool, the tokens that are trained.

  Returns:
    [C, T] float32; sums to one if every sequence has a token.
  """
  chex.assert_rank(mask, 2)
  lengths = jnp.maximum(mask.sum(axis=1, keepdims=True), 1)
  return mask / (lengths * mask.shape[0]).astype(jnp.float32)


def token_mean(mask):
  """Weights of a mean over all tokens: w_it = 1 / sum_i |o_i|.

  Args:
    mask: [C, T] bool, the tokens that are trained.

  Returns:
    [C, T] float32; sums to one if there is a token.
  """
  chex.assert_rank(mask, 2)
  return mask / jnp.maximum(mask.sum(), 1).astype(jnp.float32)
