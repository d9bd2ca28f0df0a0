"""Losses against constants worked out by hand, REINFORCE and differences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from r1jax import losses, means
from r1jax.errors import UserError

WITH_AND_WITHOUT_JIT = pytest.mark.parametrize(
  "variant", [lambda f: f, jax.jit], ids=["eager", "jit"]
)
LN2 = float(np.log(2))


def softmax(z):
  e = np.exp(z - z.max(axis=-1, keepdims=True))
  return e / e.sum(axis=-1, keepdims=True)


@WITH_AND_WITHOUT_JIT
def test_advantages_of_one_right_answer_in_four(variant):
  # Mean 1/4, population deviation sqrt(3)/4: 0.75 / 0.4330 and -0.25 / 0.4330.
  got = variant(losses.group_advantages)(jnp.array([[1.0, 0.0, 0.0, 0.0]]))
  want = [[1.7321, -0.5774, -0.5774, -0.5774]]
  np.testing.assert_allclose(got, want, atol=1e-4)


ADVANTAGES = pytest.mark.parametrize(
  "advantages",
  [
    losses.group_advantages,
    losses.centred_advantages,
    losses.leave_one_out_advantages,
  ],
)


@ADVANTAGES
@pytest.mark.parametrize("group", [2, 3, 4, 6, 8, 16, 64])
def test_equal_rewards_give_exactly_zero(advantages, group):
  # Sums of weighted parts, whose mean rounds to something else.
  rewards = [0.0, 1.0, 0.1, 0.3, 1.1, 1.2, 1 / 3, -2.7, 1e4, 1e-30, -0.0]
  rewards = np.asarray(rewards, np.float32)[:, None].repeat(group, axis=1)
  for given in (rewards, jnp.asarray(rewards)):
    got = np.asarray(advantages(given))
    assert (got == 0).all() and got.shape == (11, group)


@ADVANTAGES
def test_a_reward_that_is_not_finite_is_not_hidden(advantages):
  got = np.asarray(advantages(jnp.array([[1, np.inf, 0], [0, 1, 2]])))
  assert np.isnan(got[0]).any() and np.isfinite(got[1]).all()


def test_advantages_of_seven_equal_rewards_and_one():
  """Mean 0.425, deviation sqrt(7 * 0.075^2 + 0.525^2) / sqrt(8) = 0.19843."""
  rewards = np.float32([[0.35] * 7 + [0.95]])
  np.testing.assert_allclose(
    losses.group_advantages(rewards), [[-0.377964] * 7 + [2.645751]], rtol=1e-4
  )
  np.testing.assert_allclose(
    losses.centred_advantages(rewards), [[-0.075] * 7 + [0.525]], rtol=1e-5
  )
  # The others' means are 3.05 / 7 and 0.35.
  np.testing.assert_allclose(
    losses.leave_one_out_advantages(rewards),
    [[0.35 - 3.05 / 7] * 7 + [0.6]], rtol=1e-5,
  )  # fmt: skip


def test_groups_are_normalised_on_their_own():
  rewards = np.random.default_rng(0).normal(size=(5, 8)).astype(np.float32)
  rewards[2] *= 100
  got = losses.group_advantages(jnp.asarray(rewards))
  for row, r in zip(np.asarray(got), rewards):
    want = (r - np.mean(r)) / np.sqrt(np.mean((r - np.mean(r)) ** 2))
    np.testing.assert_allclose(row, want, rtol=1e-4, atol=1e-5)


@WITH_AND_WITHOUT_JIT
def test_k3_constants(variant):
  d = jnp.array([[0.0, LN2, -LN2]])  # log pi_ref - log pi_theta
  got = variant(losses.kl_k3)(jnp.zeros_like(d), d)
  np.testing.assert_allclose(got, [[0.0, 0.3069, 0.1931]], atol=1e-4)


@WITH_AND_WITHOUT_JIT
@pytest.mark.parametrize(
  "rho, advantage, want, clipped",
  [
    (12.0, 1.0, 11.0, True),
    (12.0, -1.0, -12.0, False),
    (0.01, 1.0, 0.01, False),
    (0.01, -1.0, -0.01, False),
  ],
)
def test_clip_constants_of_r1(variant, rho, advantage, want, clipped):
  log_rho = jnp.full((1, 1), np.log(rho), jnp.float32)
  got, was = variant(losses.clipped_surrogate)(
    log_rho, jnp.zeros((1, 1)), jnp.full((1, 1), advantage), 10.0
  )
  np.testing.assert_allclose(got, [[want]], rtol=1e-5)
  assert bool(was[0, 0]) is clipped


@pytest.mark.parametrize(
  "rho, advantage, slope",
  [
    # d/dlog pi of the objective: rho A where it is free, 0 where clipped.
    (1.5, 1.0, 0.0),
    (1.5, -1.0, -1.5),
    (0.5, 1.0, 0.5),
    (0.5, -1.0, 0.0),
    (1.1, 2.0, 2.2),
  ],
)
def test_clip_takes_the_gradient_on_one_side_only(rho, advantage, slope):
  def objective(lp):
    a = jnp.full((1, 1), advantage)
    return losses.clipped_surrogate(lp, jnp.zeros((1, 1)), a, 0.2)[0].sum()

  got = jax.grad(objective)(jnp.full((1, 1), np.log(rho), jnp.float32))
  np.testing.assert_allclose(got, [[slope]], rtol=1e-5, atol=1e-7)


def test_clip_fraction_counts_weight_without_gradient():
  lp = jnp.log(jnp.array([[1.5, 1.5, 0.5, 1.0]], jnp.float32))
  zeros = jnp.zeros_like(lp)
  advantages = jnp.array([[1.0, -1.0, -1.0, 1.0]])
  weights = jnp.array([[0.4, 0.3, 0.2, 0.1]])
  _, metrics = losses.grpo_loss(lp, zeros, lp, advantages, weights, 0.2, 0.0)
  np.testing.assert_allclose(metrics["clip_fraction"], 0.6, rtol=1e-6)


@pytest.mark.parametrize("group", [2, 5])
def test_on_policy_gradient_is_reinforce(group):
  """By hand: sum w A (p - onehot), from a [N G, T, V] table of logits."""
  n, t, v = 3, 6, 5
  c = n * group
  rng = np.random.default_rng(group)
  logits = rng.normal(size=(c, t, v)).astype(np.float32)
  tokens = rng.integers(v, size=(c, t))
  lengths = rng.integers(1, t + 1, size=c)
  rewards = rng.normal(size=(n, group)).astype(np.float32)

  mean = rewards.mean(axis=1, keepdims=True)
  std = np.sqrt(((rewards - mean) ** 2).mean(axis=1, keepdims=True))
  advantage = ((rewards - mean) / std).reshape(-1)
  want = np.zeros_like(logits)
  for i in range(c):
    for j in range(lengths[i]):
      onehot = np.eye(v)[tokens[i, j]]
      score = onehot - softmax(logits[i, j])
      want[i, j] = -advantage[i] * score / (c * lengths[i])

  mask = jnp.arange(t)[None] < jnp.asarray(lengths)[:, None]

  @jax.jit
  @jax.grad
  def gradient(z):
    lp = jax.nn.log_softmax(z)
    lp = jnp.take_along_axis(lp, tokens[..., None], axis=-1)[..., 0]
    a = losses.group_advantages(jnp.asarray(rewards)).reshape(-1, 1)
    value, _ = losses.grpo_loss(
      lp, jax.lax.stop_gradient(lp), jnp.zeros_like(lp),
      jnp.broadcast_to(a, lp.shape), means.sequence_mean(mask), 10.0, 0.0,
    )  # fmt: skip
    return value

  got = gradient(jnp.asarray(logits))
  np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-6)
  assert np.abs(want).max() > 0.01


def test_on_policy_gradient_with_a_kl_term():
  """Of one token's bracket: A + beta (r - 1)."""
  rng = np.random.default_rng(3)
  lp, ref = (rng.normal(-2, 1, size=(2, 3)).astype(np.float32) for _ in "ab")
  a = rng.normal(size=(2, 3)).astype(np.float32)
  w = np.full((2, 3), 1 / 6, np.float32)
  got = jax.grad(lambda x: losses.grpo_loss(x, lp, ref, a, w, 0.2, 0.3)[0])(lp)
  want = -w * (a + 0.3 * (np.exp(ref - lp) - 1))
  np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-7)


def test_zero_spread_group_has_zero_gradient():
  rewards = jnp.array([[0.7, 0.7, 0.7], [0.0, 1.0, 1.0]])
  lp = jnp.asarray(
    np.random.default_rng(0).normal(-2, 1, size=(6, 4)), jnp.float32
  )
  w = means.sequence_mean(jnp.ones((6, 4), bool))
  a = losses.group_advantages(rewards).reshape(-1, 1)
  a = jnp.broadcast_to(a, (6, 4))
  grad = jax.jit(
    jax.grad(lambda x: losses.grpo_loss(x, lp, lp, a, w, 0.2, 0.0)[0])
  )(lp)
  np.testing.assert_array_equal(grad[:3], np.zeros((3, 4)))
  assert (np.abs(grad[3:]) > 0).all()


def test_k3_gradient_is_one_minus_r():
  rng = np.random.default_rng(1)
  lp, ref = (rng.normal(-3, 1, size=(4, 5)).astype(np.float32) for _ in "ab")
  got = jax.grad(lambda x: losses.kl_k3(x, ref).sum())(lp)
  np.testing.assert_allclose(got, 1 - np.exp(ref - lp), rtol=1e-4, atol=1e-5)


def test_expected_k3_gradient_is_that_of_the_reverse_of_k1():
  """Exact expectations over a categorical.

  The sample's path gives E[(1 - r) d log pi] = -sum_v q_v d log pi_v, the
  gradient of KL(pi_ref || pi_theta); k1's is zero. With the score term added
  (dependence of the samples on theta) k3's is the gradient of
  KL(pi_theta || pi_ref) itself.
  """
  rng = np.random.default_rng(2)
  z = jnp.asarray(rng.normal(size=(1, 6)), jnp.float32)
  log_q = jax.nn.log_softmax(jnp.asarray(rng.normal(size=(1, 6)), jnp.float32))

  def expected(estimate, z, frozen):
    lp = jax.nn.log_softmax(z)
    p = jnp.exp(jax.lax.stop_gradient(lp) if frozen else lp)
    return (p * estimate(lp, log_q)).sum()

  def forward(z):
    return -(jnp.exp(log_q) * jax.nn.log_softmax(z)).sum()

  def reverse(z):
    lp = jax.nn.log_softmax(z)
    return (jnp.exp(lp) * (lp - log_q)).sum()

  def k1(lp, log_q):
    return lp - log_q

  path = jax.grad(lambda z: expected(losses.kl_k3, z, True))(z)
  np.testing.assert_allclose(path, jax.grad(forward)(z), atol=1e-5)
  total = jax.grad(lambda z: expected(losses.kl_k3, z, False))(z)
  np.testing.assert_allclose(total, jax.grad(reverse)(z), atol=1e-5)
  np.testing.assert_allclose(
    expected(losses.kl_k3, z, False), reverse(z), atol=1e-5
  )
  vanishing = jax.grad(lambda z: expected(k1, z, True))(z)
  np.testing.assert_allclose(vanishing, np.zeros((1, 6)), atol=1e-6)
  assert np.abs(path).max() > 0.01


def test_grpo_gradient_by_central_differences():
  with jax.enable_x64(True):
    rng = np.random.default_rng(4)
    shape = (3, 4)
    old, ref = rng.normal(-2, 1, size=shape), rng.normal(-2, 1, size=shape)
    # Ratios on both sides of both edges of the clip, none at a kink.
    lp = old + np.log(rng.choice([0.5, 0.9, 1.13, 1.6], size=shape))
    a, w = rng.normal(size=shape), rng.uniform(size=shape)
    w[0, 0] = 0.0
    w /= w.sum()

    def loss(x):
      return losses.grpo_loss(x, old, ref, a, w, 0.2, 0.05)[0]

    loss = jax.jit(loss)
    got = jax.grad(loss)(jnp.asarray(lp))
    assert got.dtype == jnp.float64
    h = 1e-6
    for i in np.ndindex(shape):
      step = np.zeros(shape)
      step[i] = h
      want = (float(loss(lp + step)) - float(loss(lp - step))) / (2 * h)
      assert abs(float(got[i]) - want) < 1e-8
    assert float(got[0, 0]) == 0.0


@jax.jit
def loss_and_gradient(lp, old, ref, advantages, weights):
  def loss(x):
    return losses.grpo_loss(x, old, ref, advantages, weights, 0.2, 0.1)

  (value, metrics), grad = jax.value_and_grad(loss, has_aux=True)(lp)
  return {"value": value, "gradient": grad, **metrics}


@pytest.mark.parametrize("trash", [1e30, -1e30, np.inf, -np.inf, np.nan])
@pytest.mark.parametrize("argument", ["old", "ref", "advantages"])
def test_padding_changes_nothing(trash, argument):
  rng = np.random.default_rng(5)
  real = rng.random((3, 5)) < 0.6
  weights = np.where(real, 1 / real.sum(), 0).astype(np.float32)
  clean = {
    k: rng.normal(size=(3, 5)).astype(np.float32)
    for k in ("old", "ref", "advantages")
  }
  lp = clean["old"] + 0.1
  dirty = {**clean, argument: np.where(real, clean[argument], trash)}
  dirty[argument] = dirty[argument].astype(np.float32)
  want = loss_and_gradient(lp, *clean.values(), weights)
  got = loss_and_gradient(lp, *dirty.values(), weights)
  for k in want:
    np.testing.assert_array_equal(got[k], want[k], err_msg=k)
  np.testing.assert_array_equal(np.asarray(got["gradient"])[~real], 0.0)


def test_cross_entropy_by_hand():
  lp = jnp.array([[-1.0, -2.0, -np.inf], [-3.0, np.nan, -5.0]])
  w = jnp.array([[0.5, 0.25, 0.0], [0.125, 0.0, 0.125]])
  value, grad = jax.value_and_grad(losses.cross_entropy)(lp, w)
  np.testing.assert_allclose(value, 0.5 + 0.5 + 0.375 + 0.625)
  np.testing.assert_array_equal(grad, -np.asarray(w))


def test_weights_by_hand():
  mask = jnp.array([[0, 1, 1, 1, 1], [0, 0, 1, 0, 0]], bool)
  np.testing.assert_allclose(
    means.sequence_mean(mask),
    [[0, 0.125, 0.125, 0.125, 0.125], [0, 0, 0.5, 0, 0]],
  )
  np.testing.assert_allclose(
    means.token_mean(mask), [[0, 0.2, 0.2, 0.2, 0.2], [0, 0, 0.2, 0, 0]]
  )


@pytest.mark.parametrize("make", [means.sequence_mean, means.token_mean])
def test_weights_sum_to_one(make):
  rng = np.random.default_rng(6)
  for c, t in ((1, 1), (4, 7), (33, 100)):
    mask = rng.random((c, t)) < 0.3
    mask[:, 0] = True
    weights = make(jnp.asarray(mask))
    np.testing.assert_allclose(weights.sum(), 1.0, rtol=1e-5)
    assert (np.asarray(weights)[~mask] == 0).all()
  assert np.isfinite(make(jnp.zeros((2, 3), bool))).all()


def test_shapes_are_checked():
  x = jnp.zeros((2, 3))
  with pytest.raises(UserError):
    losses.group_advantages(jnp.zeros(3))
  with pytest.raises(UserError):
    losses.cross_entropy(x, jnp.zeros((3, 2)))
  with pytest.raises(UserError):
    losses.grpo_loss(x, x, x, jnp.zeros((2, 1)), x, 0.2, 0.0)
