"""The variants of the policy-gradient loss, against numbers made by hand."""

import typing

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from r1jax import corrections, losses, means, variants
from r1jax.errors import UserError
from r1jax.variants import Loss


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


def test_means():
  mask = jnp.array([[1, 1, 0, 0], [1, 0, 0, 0]], bool)
  for kind, want in (
    ("sequence", [[0.25, 0.25, 0, 0], [0.5, 0, 0, 0]]),
    ("token", [[1 / 3, 1 / 3, 0, 0], [1 / 3, 0, 0, 0]]),
    ("constant", [[1 / 8, 1 / 8, 0, 0], [1 / 8, 0, 0, 0]]),
  ):
    np.testing.assert_allclose(
      variants.weights_of(Loss(mean=kind), mask, 4), want
    )


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
    return variants.policy_loss(
      Loss(objective="gspo", epsilon=0.1), x, old, old, advantages, weights,
      segments=jnp.asarray(segments),
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
    kind: corrections.importance_correction(
      learner, jnp.zeros(3), kind, 0.5, 2.0
    )
    for kind in ("truncate", "mask")
  }
  np.testing.assert_allclose(got["truncate"], [2.0, 1.0, 0.3], rtol=1e-6)
  np.testing.assert_allclose(got["mask"], [0.0, 1.0, 0.0], rtol=1e-6)


@pytest.mark.parametrize("kind", ["truncate", "mask"])
def test_a_correction_weighs_the_objective_and_not_the_kl(kind):
  (lp, old, ref, a, w), _ = random_batch()
  sampler = old + 0.5 * jnp.sin(jnp.arange(old.size)).reshape(old.shape)

  def loss(kind, a, beta):
    settings = Loss(beta=beta)
    if kind != "none":
      low = 0.0 if kind == "truncate" else 0.7
      settings = Loss(beta=beta, correction=kind, correction_range=(low, 1.3))
    return variants.policy_loss(
      settings, lp, old, ref, a, w, sampler_logprobs=sampler
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
    got = categorical_gradient(variants.KL[name], z, ref)
    np.testing.assert_allclose(got, want, atol=1e-6)


@pytest.mark.parametrize(
  "settings",
  [
    Loss(beta=0.1),
    Loss(beta=0.1, epsilon_high=0.28),
    Loss(beta=0.1, dual_clip=1.5),
    Loss(beta=0.1, objective="gspo"),
    Loss(beta=0.1, kl="k2"),
  ],
  ids=["grpo", "clip_higher", "dual_clip", "gspo", "k2"],
)
def test_gradients_by_finite_differences(settings):
  with jax.enable_x64():
    arrays, segments = random_batch(3)
    lp, old, ref, a, w = (jnp.asarray(x, jnp.float64) for x in arrays)

    @jax.jit
    def loss(x):
      # GSPO-token has GSPO's gradient only with equal weights in a sequence.
      weights = (w > 0) / 18.0 if settings.objective == "gspo" else w
      return variants.policy_loss(
        settings, x, old, ref, a, weights, segments=segments
      )[0]

    got = jax.grad(loss)(lp)
    h = 1e-6
    for at in np.ndindex(lp.shape):
      up, down = loss(lp.at[at].add(h)), loss(lp.at[at].add(-h))
      want = float((up - down) / (2 * h))
      assert float(got[at]) == pytest.approx(want, abs=1e-7)


def test_padding_and_neighbours_change_nothing():
  (lp, old, ref, a, w), segments = random_batch()
  settings = Loss(objective="gspo", beta=0.1)

  def grad(lp, old):
    return jax.grad(
      lambda x: variants.policy_loss(
        settings, x, old, ref, a, w, segments=segments
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
    (dict(objective="ppo"), "objective='ppo' is unknown; known: clip, gspo"),
    (dict(kl="k4"), "kl='k4' is unknown; known: k1, k2, k3"),
    (dict(mean="batch"), "mean='batch' is unknown"),
    (dict(advantage=["std"]), r"advantage=\['std'\] is unknown"),
    (dict(correction="is"), "correction='is' is unknown"),
    (dict(epsilon=0.0), "epsilon=0.0 must be a number above 0"),
    (dict(epsilon="0.2"), "epsilon='0.2' must be a number above 0"),
    (dict(epsilon=None), "epsilon=None must be a number above 0"),
    (dict(epsilon=float("nan")), "epsilon=nan must be a number above 0"),
    (dict(beta=-0.1), "beta=-0.1 must be a number at least 0"),
    (dict(beta=True), "beta=True must be a number at least 0"),
    (dict(beta=float("inf")), "beta=inf must be a number at least 0"),
    (dict(epsilon_high=-0.1), "epsilon_high=-0.1 must be a number at least 0"),
    (dict(dual_clip=1.0), "dual_clip=1.0 must be a number above 1"),
    (dict(objective="cispo", dual_clip=2.0), "dual_clip has no meaning"),
    (dict(overlong=-1), "overlong=-1 must be a whole number"),
    (dict(overlong=0.5), "overlong=0.5 must be a whole number"),
    (dict(overlong=True), "overlong=True must be a whole number"),
    (
      dict(correction="mask", correction_range=(1.5, 2.0)),
      r"correction_range=\(1.5, 2.0\) must be",
    ),
    (dict(correction="mask", correction_range="ab"), "correction_range='ab'"),
    (dict(correction="mask", correction_range=0.5), "correction_range=0.5"),
    (dict(correction_range=(0.5, 2.0)), "correction_range has no meaning"),
    (
      dict(correction="truncate", correction_range=(0.5, 2.0)),
      r"correction_range=\(0.5, 2.0\): its lower bound has no meaning with"
      r' correction="truncate"; write \(0.0, 2.0\)',
    ),
    (dict(kl="k1"), "kl='k1' has no meaning with loss.beta=0"),
  ],
)
def test_a_wrong_field_is_named(fields, message):
  with pytest.raises(UserError, match=f"^loss.{message}"):
    Loss(**fields)


def test_a_width_that_an_objective_does_not_read_is_refused(monkeypatch):
  monkeypatch.setitem(variants.OBJECTIVES, "cispo", lambda lp, old, a: (a, a))
  for fields in (dict(epsilon=0.1), dict(epsilon_high=0.3)):
    with pytest.raises(UserError, match=f"loss.{list(fields)[0]} has no mean"):
      Loss(objective="cispo", **fields)
  assert variants.reads("cispo") == ()
  assert variants.reads("clip") == ("epsilon", "epsilon_high")


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize(
  "change, message",
  [
    (
      dict(loss=Loss(objective="gspo"), segments=None),
      r'segments is missing: objective="gspo" needs it, \[B, T\] int32, the',
    ),
    (
      dict(loss=Loss(objective="gspo"), segments=jnp.zeros((2, 12), int)),
      r"segments has the shape \(2, 12\), but logprobs has \(3, 12\)",
    ),
    (
      dict(loss=Loss(correction="mask")),
      r'sampler_logprobs is missing: correction="mask" needs it, \[B, T\]',
    ),
    (
      dict(ref_logprobs=None, loss=Loss(beta=0.1)),
      r"ref_logprobs is missing: beta=.* needs log pi_ref, \[B, T\]",
    ),
    (dict(weights=None), r"weights is missing; it must be an array \[B, T\]"),
    (dict(old_logprobs=[0.0]), "old_logprobs must be an array .* not a list"),
    (
      dict(advantages=jnp.zeros((1, 3))),
      r"advantages has the shape \(1, 3\), but logprobs has \(3, 12\); both"
      r" must be \[B, T\], a value for each token; of \[N, G\], jnp.broad",
    ),
    (dict(loss=dict(beta=0.1)), r"loss must be a variants.Loss, not a dict"),
  ],
)
def test_a_wrong_argument_is_named(change, message, compiled):
  names = ("logprobs", "old_logprobs", "ref_logprobs", "advantages", "weights")
  arrays, segments = random_batch()
  given = dict(zip(names, arrays), segments=segments, loss=Loss()) | change

  def value(logprobs):
    return variants.policy_loss(**given | dict(logprobs=logprobs))[0]

  function = jax.jit(value) if compiled else value
  with pytest.raises(UserError, match=f"^{message}"):
    function(given["logprobs"])


def test_without_a_kl_term_no_reference_is_needed():
  """The same bits, and under jit too where `beta` is a number."""
  (lp, old, ref, a, w), _ = random_batch()
  for beta in (0, 0.0):
    want, _ = losses.grpo_loss(lp, old, ref, a, w, 0.2, beta)
    got, metrics = losses.grpo_loss(lp, old, None, a, w, 0.2, beta)
    assert got == want and metrics["kl"] == 0
  traced = jax.jit(lambda beta: losses.grpo_loss(lp, old, None, a, w, 1, beta))
  with pytest.raises(UserError, match="ref_logprobs is missing: beta="):
    traced(0.0)


def test_rewards_and_masks_have_two_axes():
  for function, name in (
    (losses.group_advantages, "rewards"),
    (losses.centred_advantages, "rewards"),
    (losses.leave_one_out_advantages, "rewards"),
    (means.sequence_mean, "mask"),
    (means.token_mean, "mask"),
  ):
    with pytest.raises(UserError, match=rf"^{name} has the shape \(4,\); it"):
      function(jnp.zeros(4))
    with pytest.raises(UserError, match=f"^{name} must be an array .* a list"):
      function([[0.0, 1.0]])
  with pytest.raises(UserError, match="G in .N, G. must be at least 2"):
    losses.leave_one_out_advantages(jnp.zeros((3, 1)))
  with pytest.raises(UserError, match="^kind='is' is unknown"):
    corrections.importance_correction(jnp.zeros(1), jnp.zeros(1), "is", 0, 2)


def test_every_name_has_a_function():
  hints = typing.get_type_hints(Loss)
  for field, table in (
    ("objective", variants.OBJECTIVES),
    ("kl", variants.KL),
    ("mean", variants.MEANS),
    ("advantage", variants.ADVANTAGES),
  ):
    assert set(typing.get_args(hints[field])) == set(table)


def test_epsilon_and_beta_are_traced_and_the_rest_is_static():
  """Other values of these two need no other program; another name does."""
  traces = []

  @jax.jit
  def width(loss):
    traces.append(loss.objective)
    return loss.epsilon + loss.beta

  assert width(Loss(epsilon=0.25, beta=0.5)) == 0.75
  assert width(Loss(epsilon=10.0)) == 10.0
  assert traces == ["clip"]
  width(Loss(objective="gspo"))
  assert traces == ["clip", "gspo"]
  # A config may give a list where a tuple is meant.
  listed = Loss(correction="mask", correction_range=[0.7, 1.3])
  assert listed == Loss(correction="mask", correction_range=(0.7, 1.3))
  assert jax.tree.map(lambda x: 2 * x, Loss(beta=0.1)) == Loss(
    epsilon=0.4, beta=0.2
  )


def test_the_defaults_are_grpo():
  """Bit by bit what `losses.grpo_loss` says without any part replaced."""
  arrays, segments = random_batch(7)
  want = losses.grpo_loss(*arrays, 0.2, 0.1)
  got = variants.policy_loss(Loss(beta=0.1), *arrays, segments=segments)
  jax.tree.map(np.testing.assert_array_equal, got, want)
  higher = variants.policy_loss(Loss(beta=0.1, epsilon_high=0.5), *arrays)
  assert higher[0] != want[0]
