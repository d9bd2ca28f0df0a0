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
Schulman = "Approximating KL Divergence" (2020), DAPO = arXiv 2503.14476,
Dr. GRPO = arXiv 2503.20783, GSPO = arXiv 2507.18071, CISPO = MiniMax-M1, arXiv
2506.13585.
"""

import dataclasses

import chex
import jax
import jax.numpy as jnp

from r1jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Variant:
  """Which policy-gradient loss; the defaults are GRPO.

  Attributes:
    objective: "clip" (PPO, GRPO, DAPO), "gspo" or "cispo".
    epsilon_high: upper half-width of the clip; None, as the lower one.
    dual_clip: c > 1, see `dual_clip`; None, without.
    kl: "k1", "k2" or "k3", the estimate in the loss.
    mean: over what the loss is a mean: "sequence", "token" or "constant".
    advantage: "deviation", "centred" or "leave_one_out".
    correction: between the sampler's log-probabilities and the learner's:
      "none", "truncate" (TIS) or "mask" (IcePop).
    correction_range: (low, high), where the ratio is kept; "truncate" knows
      the upper bound only.
  """

  objective: str = "clip"
  epsilon_high: float | None = None
  dual_clip: float | None = None
  kl: str = "k3"
  mean: str = "sequence"
  advantage: str = "deviation"
  correction: str = "none"
  correction_range: tuple = (0.5, 2.0)

  def __post_init__(self):
    for name, known in (
      ("objective", ("clip", "gspo", "cispo")),
      ("kl", tuple(KL)),
      ("mean", ("sequence", "token", "constant")),
      ("advantage", tuple(ADVANTAGES)),
      ("correction", ("none", "truncate", "mask")),
    ):
      if getattr(self, name) not in known:
        raise UserError(
          f'loss: {name}="{getattr(self, name)}" is unknown; known:'
          f" {', '.join(known)}"
        )
    if self.dual_clip is not None and self.dual_clip <= 1:
      raise UserError(f"loss: dual_clip={self.dual_clip} must be above 1")
    if self.epsilon_high is not None and self.epsilon_high < 0:
      raise UserError(
        f"loss: epsilon_high={self.epsilon_high} must be at least 0"
      )
    low_high = self.correction_range
    if len(low_high) != 2 or not 0 <= low_high[0] < 1 < low_high[1]:
      raise UserError(
        f"loss: correction_range={low_high} must be a low below 1 and a high"
        " above it"
      )


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


def centred_advantages(rewards):
  """Without the division by the deviation: A_i = r_i - mean(r_1..r_G).

  Dr. GRPO, 3.2: the division favours prompts that are almost always or almost
  never solved. Rewards [N, G] to advantages [N, G].
  """
  chex.assert_rank(rewards, 2)
  return rewards - rewards.mean(axis=1, keepdims=True)


def leave_one_out_advantages(rewards):
  """The baseline is the mean of the others.

      A_i = r_i - sum_{j != i} r_j / (G - 1) = G / (G - 1) (r_i - mean)

  RLOO: Kool et al. 2019; Ahmadian et al., arXiv 2402.14740, Eq. 8. Unbiased,
  where the mean of all shrinks the gradient by (G - 1) / G. Rewards [N, G],
  G of 2 or more, to advantages [N, G].
  """
  group = rewards.shape[1]
  return centred_advantages(rewards) * (group / (group - 1))


ADVANTAGES = {
  "deviation": group_advantages,
  "centred": centred_advantages,
  "leave_one_out": leave_one_out_advantages,
}


def overlong_penalty(lengths, limit, margin):
  """Soft punishment of completions that come near their limit.

      0                              |o| <= limit - margin
      (limit - margin - |o|) / margin    up to the limit
      -1                             beyond

  DAPO Eq. 13, added to the reward. Lengths are of tokens.

  Args:
    lengths: any shape. limit: tokens, DAPO's L_max. margin: L_cache.

  Returns:
    float32 of that shape, in [-1, 0].
  """
  lengths = jnp.asarray(lengths, jnp.float32)
  return jnp.clip((limit - margin - lengths) / margin, -1.0, 0.0)


def clipped_surrogate(
  logprobs, old_logprobs, advantages, epsilon, epsilon_high=None
):
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
    epsilon_high: the upper half-width if it differs, DAPO Eq. 10
      ("clip-higher": unlikely tokens may gain more).

  Returns:
    [B, T] objective; [B, T] bool, where the clip took the gradient away.
  """
  chex.assert_equal_shape((logprobs, old_logprobs, advantages))
  ratio = jnp.exp(logprobs - old_logprobs)
  free = ratio * advantages
  high = epsilon if epsilon_high is None else epsilon_high
  clipped = jnp.clip(ratio, 1 - epsilon, 1 + high) * advantages
  return jnp.minimum(free, clipped), clipped < free


def dual_clip(objective, advantages, bound):
  """A floor under the objective of bad tokens that became likelier.

      max(objective, c A)  where A < 0

  Ye et al. 2020, arXiv 1912.09729, Eq. 5: `clipped_surrogate` is unbounded
  where rho is large and A negative.

  Args:
    objective, advantages: [B, T]. bound: c > 1.
  """
  floor = jnp.maximum(objective, bound * advantages)
  return jnp.where(advantages < 0, floor, objective)


def sequence_log_ratio(logprobs, old_logprobs, real, segments):
  """GSPO's ratio of whole sequences, given to each of their tokens.

      log s_i = 1 / |o_i| sum_t (log pi_theta(o_it) - log pi_old(o_it))

  GSPO Eq. 7; as Eq. 13 there (GSPO-token) its value is s_i and its gradient
  by a token that of the token's own ratio, scaled: summed with equal weights
  over a sequence these are GSPO's, whatever row the sequence lies in.

  Args:
    logprobs, old_logprobs: [B, T]. real: [B, T] bool, trained tokens.
    segments: [B, T] int32, which of a row's sequences a token is in.

  Returns:
    [B, T], log s_i; 0 outside `real`.
  """
  difference = jnp.where(real, logprobs - old_logprobs, 0.0)

  def mean(x, r, s):
    total = jnp.zeros(len(x) + 1).at[s].add(x)
    count = jnp.zeros(len(x) + 1).at[s].add(r)
    return (total / jnp.maximum(count, 1))[s]

  value = jax.vmap(mean)(difference, real.astype(jnp.float32), segments)
  stop = jax.lax.stop_gradient
  return jnp.where(real, stop(value) + difference - stop(difference), 0.0)


def cispo(logprobs, old_logprobs, advantages, epsilon, epsilon_high=None):
  """Clips the weight of a token's gradient, and never the gradient away.

      sg(clip(rho, 1 - epsilon, 1 + epsilon_high)) A log pi_theta(o_t)

  CISPO Eq. 4 and 5; to be maximised. Arguments and results as of
  `clipped_surrogate`.
  """
  ratio = jax.lax.stop_gradient(jnp.exp(logprobs - old_logprobs))
  high = epsilon if epsilon_high is None else epsilon_high
  weight = jnp.clip(ratio, 1 - epsilon, 1 + high)
  return weight * advantages * logprobs, weight != ratio


def importance_correction(learner, sampler, kind, low, high):
  """Weights that make up for a sampler that is not quite the policy.

      truncate:  min(pi_old / pi_sampler, high)
      mask:      pi_old / pi_sampler where it lies in [low, high], else 0

  "truncate" is TIS, Yao et al. 2025 ("Your Efficient RL Framework Secretly
  Brings You Off-Policy RL Training"); "mask" is IcePop, Ling team, arXiv
  2510.18855, Eq. 3. Both multiply a token's objective; no gradient.

  Args:
    learner, sampler: [B, T], log-probabilities of the same tokens by the same
      parameters, in the learner's arithmetic and in the sampler's.
  """
  ratio = jax.lax.stop_gradient(jnp.exp(learner - sampler))
  if kind == "truncate":
    return jnp.minimum(ratio, high)
  return jnp.where((ratio >= low) & (ratio <= high), ratio, 0.0)


def kl_k1(logprobs, ref_logprobs):
  """Schulman's k1 = log pi_theta - log pi_ref: unbiased, and may be negative.

  Its gradient as a loss, dk1/dlog pi_theta = 1, is zero in expectation on
  policy: it regularises nothing, and serves as a part of the reward or as a
  metric. [B, T] each.
  """
  chex.assert_equal_shape((logprobs, ref_logprobs))
  return logprobs - ref_logprobs


def kl_k2(logprobs, ref_logprobs):
  """Schulman's k2 = (log pi_theta - log pi_ref)^2 / 2: biased, never negative.

  Its gradient as a loss, dk2/dlog pi_theta = log(pi_theta / pi_ref), is in
  expectation on policy that of KL(pi_theta || pi_ref). [B, T] each.
  """
  return 0.5 * jnp.square(kl_k1(logprobs, ref_logprobs))


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


KL = {"k1": kl_k1, "k2": kl_k2, "k3": kl_k3}


def grpo_loss(
  logprobs, old_logprobs, ref_logprobs, advantages, weights, epsilon, beta,
  *, variant=None, segments=None, sampler_logprobs=None,
):  # fmt: skip
  """Group relative policy optimisation and its variants.

      L = - sum_{i,t} w_it { min(rho_it A_i, clip(rho_it, 1 - eps, 1 + eps) A_i)
                             - beta k3_it }

  DSM Eq. 3, with w_it = 1 / (C |o_i|) from `sequence_mean`; R1 Eq. 1. On
  policy (rho = 1) the gradient by log pi of the bracket is
  A_i + beta (r_it - 1). A `Variant` replaces the minimum by another objective,
  k3 by another estimate, and may weigh the objective by
  `importance_correction`.

  Args:
    logprobs, old_logprobs, ref_logprobs: [B, T] of pi_theta, pi_old, pi_ref.
    advantages: [B, T], constant along a completion.
    weights: [B, T], summing to one over the optimiser step, 0 in prompts,
      prefilled tokens and padding.
    epsilon: clip range. beta: coefficient of the KL term.
    variant: a `Variant`; None for its defaults.
    segments: [B, T] int32, for "gspo".
    sampler_logprobs: [B, T], for a correction: pi_old in the sampler's
      arithmetic, `old_logprobs` being the learner's.

  Returns:
    [] loss; dict of [] sums, weighted likewise: "kl" in nats, "clip_fraction".
  """
  v = Variant() if variant is None else variant
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
  if v.objective == "cispo":
    objective, clipped = cispo(
      logprobs, old_logprobs, advantages, epsilon, v.epsilon_high
    )
  else:
    log_ratio = logprobs - old_logprobs
    if v.objective == "gspo":
      log_ratio = sequence_log_ratio(logprobs, old_logprobs, real, segments)
    objective, clipped = clipped_surrogate(
      log_ratio, jnp.zeros_like(log_ratio), advantages, epsilon, v.epsilon_high
    )
  if v.dual_clip is not None:
    objective = dual_clip(objective, advantages, v.dual_clip)
  if v.correction != "none":
    sampler_logprobs = jnp.where(real, sampler_logprobs, 0.0)
    objective *= importance_correction(
      old_logprobs, sampler_logprobs, v.correction, *v.correction_range
    )
  kl = KL[v.kl](logprobs, ref_logprobs)
  loss = -(weights * (objective - beta * kl)).sum()
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


def constant_mean(mask, length):
  """Weights of a sum over tokens, divided by a constant: w_it = 1 / (C L).

  Dr. GRPO, 3.2: a completion's length enters neither as a reward for long
  wrong answers nor as a price of long right ones. The sum of the weights is
  the share of C L tokens that there are.

  Args:
    mask: [C, T] bool, the tokens that are trained.
    length: L, the tokens that a completion may have.

  Returns:
    [C, T] float32.
  """
  chex.assert_rank(mask, 2)
  return mask / jnp.float32(mask.shape[0] * length)


def mean_weights(kind, mask, length):
  """The weights of a `Variant.mean`; arguments as of `constant_mean`."""
  if kind == "constant":
    return constant_mean(mask, length)
  return {"sequence": sequence_mean, "token": token_mean}[kind](mask)
