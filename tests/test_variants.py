"""The variants of the policy-gradient loss, against numbers made by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from r1jax import losses
from r1jax.errors import UserError
from r1jax.losses import Variant


def random_batch(seed=0, shape=(3, 12)):
  """Rows of three sequences each, with prompts between them and padding."""
  rng = np.random.default_rng(seed)
  segments = np.tile(np.repeat([1, 2, 3, 0], 3), (shape[0], 1))
  real = (segments > 0) & (rng.random(shape) < 0.8)
  advantages = rng.normal(size=(shape[0], 4))[
    np.arange(shape[0])[:, None], segments
  ]
  old = -rng.exponential(size=shape)
  logprobs = old + 0.4 * rng.normal(size=shape)
  ref = old + 0.4 * rng.normal(size=shape)
  weights = real * rng.random(shape)
  return [
    jnp.asarray(x, jnp.float32)
    for x in (logprobs, old, ref, advantages, weights / weights.sum())
  ], jnp.asarray(segments)


def test_clip_higher():
  """rho = 1.25 with A = 1: cut at 1.2, free below 1.28; A = -1: never cut."""
  lp, zero = jnp.log(jnp.array([1.25, 1.25])), jnp.zeros(2)
  a = jnp.array([1.0, -1.0])
  symmetric, _ = losses.clipped_surrogate(lp, zero, a, 0.2)
  higher, cut = losses.clipped_surrogate(lp, zero, a, 0.2, 0.28)
  np.testing.assert_allclose(symmetric, [1.2, -1.25], rtol=1e-6)
  np.testing.assert_allclose(higher, [1.25, -1.25], rtol=1e-6)
  assert not cut.any()


def test_dual_clip():
  got = losses.dual_clip(
    jnp.array([-9.0, -2.0, 5.0]), jnp.array([-1.0, -1.0, 1.0]), 3.0
  )
  np.testing.assert_allclose(got, [-3.0, -2.0, 5.0])


def test_advantages_by_hand():
  rewards = jnp.array([[1.0, 0.0, 0.0, 0.0]])
  np.testing.assert_allclose(
    losses.centred_advantages(rewards), [[0.75, -0.25, -0.25, -0.25]]
  )
  # The others' means are 0, 1/3, 1/3, 1/3.
  np.testing.assert_allclose(
    losses.leave_one_out_advantages(rewards),
    [[1, -1 / 3, -1 / 3, -1 / 3]], rtol=1e-6,
  )  # fmt: skip


def test_the_overlong_penalty():
  """DAPO's numbers: a limit of 20,480 with the last 4,096 punished."""
  got = losses.overlong_penalty([100, 16384, 18432, 20480, 30000], 20480, 4096)
  np.testing.assert_allclose(got, [0, 0, -0.5, -1, -1])


def test_means():
  mask = jnp.array([[1, 1, 0, 0], [1, 0, 0, 0]], bool)
  for kind, want in (
    ("sequence", [[0.25, 0.25, 0, 0], [0.5, 0, 0, 0]]),
    ("token", [[1 / 3, 1 / 3, 0, 0], [1 / 3, 0, 0, 0]]),
    ("constant", [[1 / 8, 1 / 8, 0, 0], [1 / 8, 0, 0, 0]]),
  ):
    np.testing.assert_allclose(losses.mean_weights(kind, mask, 4), want)


def gspo_by_sequence(logprobs, old, advantages, segments, real, epsilon):
  """GSPO Eq. 5 sequence by sequence, a mean over all of them."""
  total, count = 0.0, 0
  for row in range(len(segments)):
    for s in np.unique(segments[row]):
      own = real[row] & (segments[row] == s)
      if own.any():
        ratio = jnp.exp((logprobs[row] - old[row])[own].mean())
        a = advantages[row][own][0]
        clipped = jnp.clip(ratio, 1 - epsilon, 1 + epsilon)
        total += jnp.minimum(ratio * a, clipped * a)
        count += 1
  return -total / count


@pytest.mark.parametrize("seed", range(3))
def test_gspo_is_its_equation_in_packed_rows(seed):
  (logprobs, old, _, advantages, _), segments = random_batch(seed)
  rng = np.random.default_rng(seed)
  real = np.asarray((segments > 0) & (rng.random(segments.shape) < 0.8))
  segments = np.asarray(segments)
  sequences = [
    (row, s) for row in range(3) for s in (1, 2, 3)
    if (real[row] & (segments[row] == s)).any()
  ]  # fmt: skip
  weights = np.zeros(real.shape, np.float32)
  for row, s in sequences:
    own = real[row] & (segments[row] == s)
    weights[row][own] = 1 / (own.sum() * len(sequences))

  def ours(x):
    return losses.grpo_loss(
      x, old, old, advantages, weights, 0.1, 0.0,
      variant=Variant(objective="gspo"), segments=jnp.asarray(segments),
    )[0]  # fmt: skip

  def theirs(x):
    return gspo_by_sequence(x, old, advantages, segments, real, 0.1)

  got, want = (jax.value_and_grad(f)(logprobs) for f in (ours, theirs))
  np.testing.assert_allclose(got[0], want[0], rtol=1e-5)
  np.testing.assert_allclose(got[1], want[1], atol=1e-6)


def test_cispo_keeps_the_gradient_of_what_it_clips():
  lp, old = jnp.log(jnp.array([3.0, 1.0, 0.2])), jnp.zeros(3)
  a = jnp.array([1.0, -2.0, 1.0])
  got = jax.grad(lambda x: losses.cispo(x, old, a, 1.0, 0.5)[0].sum())(lp)
  # Weights 1.5 (cut), 1 and 0.2, times A.
  np.testing.assert_allclose(got, [1.5, -2.0, 0.2], rtol=1e-6)


def test_corrections():
  learner = jnp.log(jnp.array([4.0, 1.0, 0.3]))
  got = {
    kind: losses.importance_correction(learner, jnp.zeros(3), kind, 0.5, 2.0)
    for kind in ("truncate", "mask")
  }
  np.testing.assert_allclose(got["truncate"], [2.0, 1.0, 0.3], rtol=1e-6)
  np.testing.assert_allclose(got["mask"], [0.0, 1.0, 0.0], rtol=1e-6)


@pytest.mark.parametrize("kind", ["truncate", "mask"])
def test_a_correction_weighs_the_objective_and_not_the_kl(kind):
  (lp, old, ref, a, w), _ = random_batch()
  sampler = old + 0.5 * jnp.sin(jnp.arange(old.size)).reshape(old.shape)

  def loss(kind, a, beta):
    variant = Variant(correction=kind, correction_range=(0.7, 1.3))
    return losses.grpo_loss(
      lp, old, ref, a, w, 0.2, beta, variant=variant, sampler_logprobs=sampler
    )[0]

  c = np.exp(np.asarray(old - sampler))
  c = np.minimum(c, 1.3) if kind == "truncate" else c * (abs(c - 1) <= 0.3)
  # The objective is linear in A where A's sign stays.
  np.testing.assert_allclose(
    loss(kind, a, 0.0), loss("none", a * c, 0.0), rtol=1e-5
  )
  np.testing.assert_allclose(
    loss(kind, 0 * a, 0.3), loss("none", 0 * a, 0.3), rtol=1e-6
  )


def categorical_gradient(estimate, logits, ref):
  """E_y[grad of the estimate at y], y drawn by the policy: exact."""
  p = jax.nn.softmax(logits)

  def of(y):
    return jax.grad(
      lambda z: estimate(
        jax.nn.log_softmax(z)[y][None], jax.nn.log_softmax(ref)[y][None]
      )[0]
    )(logits)

  return sum(p[y] * of(y) for y in range(len(p)))


def test_the_gradient_that_each_kl_really_has():
  """As a loss: k1 none, k2 that of KL(pi || ref), k3 that of KL(ref || pi)."""
  rng = np.random.default_rng(0)
  z, ref = jnp.asarray(rng.normal(size=(2, 6)), jnp.float32)

  def forward(z):
    p, q = jax.nn.log_softmax(z), jax.nn.log_softmax(ref)
    return (jnp.exp(p) * (p - q)).sum()

  def backward(z):
    p, q = jax.nn.log_softmax(z), jax.nn.log_softmax(ref)
    return (jnp.exp(q) * (q - p)).sum()

  wants = (jnp.zeros(6), jax.grad(forward)(z), jax.grad(backward)(z))
  for name, want in zip(("k1", "k2", "k3"), wants):
    got = categorical_gradient(losses.KL[name], z, ref)
    np.testing.assert_allclose(got, want, atol=1e-6)


@pytest.mark.parametrize(
  "variant",
  [
    Variant(),
    Variant(epsilon_high=0.28),
    Variant(dual_clip=1.5),
    Variant(objective="gspo"),
    Variant(kl="k2"),
  ],
  ids=str,
)
def test_gradients_by_finite_differences(variant):
  with jax.enable_x64():
    arrays, segments = random_batch(3)
    lp, old, ref, a, w = (jnp.asarray(x, jnp.float64) for x in arrays)

    @jax.jit
    def loss(x):
      # GSPO-token has GSPO's gradient only with equal weights in a sequence.
      weights = (w > 0) / 18.0 if variant.objective == "gspo" else w
      return losses.grpo_loss(
        x, old, ref, a, weights, 0.2, 0.1, variant=variant, segments=segments
      )[0]

    got = jax.grad(loss)(lp)
    h = 1e-6
    for at in np.ndindex(lp.shape):
      up, down = loss(lp.at[at].add(h)), loss(lp.at[at].add(-h))
      want = float((up - down) / (2 * h))
      assert float(got[at]) == pytest.approx(want, abs=1e-7)


def test_padding_and_neighbours_change_nothing():
  (lp, old, ref, a, w), segments = random_batch()
  variant = Variant(objective="gspo")

  def grad(lp, old):
    return jax.grad(
      lambda x: losses.grpo_loss(
        x, old, ref, a, w, 0.2, 0.1, variant=variant, segments=segments
      )[0]
    )(lp)

  # What is not trained may be anything; another sequence of the row too.
  junk = jnp.where(w > 0, lp, jnp.inf)
  np.testing.assert_array_equal(grad(lp, old), grad(junk, old))
  other = jnp.where(segments == 2, lp - 1.0, lp)
  same = np.asarray(segments != 2)
  np.testing.assert_array_equal(
    np.asarray(grad(lp, old))[same], np.asarray(grad(other, old))[same]
  )


@pytest.mark.parametrize(
  "fields, message",
  [
    (dict(objective="ppo"), 'objective="ppo" is unknown; known: clip, gspo'),
    (dict(kl="k4"), "kl"),
    (dict(mean="batch"), "mean"),
    (dict(advantage="std"), "advantage"),
    (dict(correction="is"), "correction"),
    (dict(dual_clip=1.0), "dual_clip=1.0 must be above 1"),
    (dict(epsilon_high=-0.1), "epsilon_high"),
    (dict(correction_range=(1.5, 2.0)), "correction_range"),
  ],
)
def test_an_unknown_variant_is_named(fields, message):
  with pytest.raises(UserError, match=message):
    Variant(**fields)
