"""Draws from a part of the vocabulary, and a learner that knows that part."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_draws import reference_set
from test_model import random_params
from test_shared_prompts import groups

from r1jax import kept, losses
from r1jax.model import Decoder, ModelConfig
from r1jax.phases import grpo_batch
from r1jax.sampling.draws import truncate
from r1jax.sampling.sampler import Sampler, SamplerConfig
from r1jax.training import head, learner, packing, policy

V, G, T, EOS = 45, 8, 10, 1
MODEL = ModelConfig(
  vocab_size=V, d_model=16, n_layers=2, n_heads=4, n_kv_heads=2, head_dim=8,
  d_ff=32, max_length=64, tied=False,
)  # fmt: skip
W = kept.words(V)
TEMPERATURE = 0.8
TRUNCATIONS = pytest.mark.parametrize(
  "cut", [dict(top_p=0.9), dict(top_k=5), dict(top_k=12, top_p=0.7)]
)


@pytest.fixture(scope="module")
def params():
  p = dict(random_params(MODEL))
  p["head"] = {"kernel": 2 * p["head"]["kernel"]}
  return p


def unpacked(sets):
  """[., W] words to [., V] bool, by numpy."""
  octets = np.ascontiguousarray(sets).view(np.uint8)
  bits = np.unpackbits(octets, axis=-1, bitorder="little")
  return bits[..., :V].astype(bool)


@functools.lru_cache
def sampler(keep=True, **options):
  config = dict(slots=6, max_new_tokens=T, eos_id=EOS) | options
  return Sampler(MODEL, SamplerConfig(**config), G, keep=keep)


def sampled(params, prompts, keep=True, **options):
  s = sampler(keep, **options)
  r = s.sample(s.load(params), prompts, jax.random.key(3), TEMPERATURE)
  return jax.tree.map(np.asarray, r)


PROMPTS = [[3, 9, 4], [7], [2, 30, 44, 12]]


def test_words_against_numpy():
  mask = np.random.default_rng(0).random((7, V)) < 0.3
  sets = np.asarray(kept.pack(jnp.asarray(mask)))
  assert sets.shape == (7, W) == (7, 2) and sets.dtype == np.uint32
  np.testing.assert_array_equal(unpacked(sets), mask)
  tokens = np.array([0, 31, 32, 44, 5])
  got = kept.holds(jnp.asarray(sets), jnp.asarray(tokens))
  np.testing.assert_array_equal(got, mask.T[tokens])
  # By hand: tokens 0 and 33 of 45.
  one = np.zeros((1, V), bool)
  one[0, [0, 33]] = True
  assert np.asarray(kept.pack(jnp.asarray(one))).tolist() == [[1, 2]]


@TRUNCATIONS
def test_draws_follow_the_renormalised_set(params, cut):
  """Chi-square of 20,000 first tokens, and what is said of each."""
  n = 20_000
  config = SamplerConfig(slots=n, max_new_tokens=1, eos_id=EOS, **cut)
  s = Sampler(MODEL, config, n, keep=True)
  r = s.sample(s.load(params), [[3, 9, 4]], jax.random.key(3), TEMPERATURE)
  logits = Decoder(MODEL).apply({"params": params}, jnp.array([[3, 9, 4]]))
  z = np.asarray(logits[0, -1], np.float64) / TEMPERATURE
  probs = np.exp(z - z.max())
  probs /= probs.sum()
  allowed = sorted(reference_set(probs, cut.get("top_k"), cut.get("top_p", 1)))
  assert 2 < len(allowed) < V - 5
  want = np.zeros(V)
  want[allowed] = probs[allowed] / probs[allowed].sum()
  for mask in unpacked(np.asarray(r.kept[:50, 0])):
    np.testing.assert_array_equal(np.flatnonzero(mask), allowed)
  drawn = np.asarray(r.tokens)[:, 0]
  got = np.bincount(drawn, minlength=V)
  assert not got[want == 0].any()
  chi2 = ((got - n * want)[allowed] ** 2 / (n * want[allowed])).sum()
  k = len(allowed) - 1
  assert n * want[allowed].min() > 5
  # The 99.99 % point of chi-square with k degrees, Wilson and Hilferty.
  assert chi2 < k * (1 - 2 / (9 * k) + 3.72 * np.sqrt(2 / (9 * k))) ** 3
  np.testing.assert_allclose(r.logprobs[:, 0], np.log(want[drawn]), atol=1e-5)


def packed(r, prompts, **changes):
  """A `Batch` of all completions, and the number of trained tokens."""
  rng = np.random.default_rng(1)
  total = r.lengths.sum()
  sequences = [
    grpo_batch.sequence(
      np.asarray(prompts[i // G]), r.tokens[i, :n],
      np.full(n, 1 / total, np.float32), rng.normal(), r.logprobs[i, :n],
      r.kept[i, :n],
    )
    for i, n in enumerate(r.lengths)
  ]  # fmt: skip
  options = dict(row_length=40, rows=4, micro_batches=4, words=W) | changes
  return packing.pack(sequences, **options)


@functools.partial(jax.jit, static_argnums=3)
def scored(params, batch, temperature, model=MODEL):
  def one(b):
    return policy.logprobs(model, params, policy.rows_of(b), temperature)

  parts = [one(learner.micro_batch(batch, i)) for i in range(len(batch.tokens))]
  return jax.tree.map(lambda *x: jnp.stack(x), *parts)


@TRUNCATIONS
def test_the_learner_agrees_with_the_sampler(params, cut):
  r = sampled(params, PROMPTS, **cut)
  assert r.kept.shape == (3 * G, T, W) and r.ended.any()
  batch = packed(r, PROMPTS)
  trained = batch.weights > 0
  assert trained.sum() == r.lengths.sum()
  lp, entropy = scored(params, batch, TEMPERATURE)
  gap = np.abs(np.asarray(lp) - batch.old_logprobs)[trained]
  assert gap.max() < 1e-5
  # Without the sets it would be off by far more, and too certain.
  whole, other = scored(params, batch._replace(kept=None), TEMPERATURE)
  off = (batch.old_logprobs - np.asarray(whole))[trained]
  assert off.max() > 0.05 and off.min() > -1e-4
  assert (entropy < other + 1e-5)[trained].all()
  sizes = unpacked(r.kept).sum(axis=2)[np.arange(T) < r.lengths[:, None]]
  assert sizes.min() >= 1 and sizes.max() < V


def test_nothing_is_kept_unless_asked(params):
  """The same tokens; and no sets where all tokens are drawn from."""
  asked = sampled(params, PROMPTS, top_p=0.9)
  other = sampled(params, PROMPTS, keep=False, top_p=0.9)
  assert other.kept is None
  np.testing.assert_array_equal(asked.tokens, other.tokens)
  np.testing.assert_array_equal(asked.logprobs, other.logprobs)
  for options in (dict(), dict(greedy=True, top_k=3)):
    assert sampled(params, PROMPTS, **options).kept is None


def masked(logits, sets):
  return jnp.where(jnp.asarray(unpacked(sets)), logits, -jnp.inf)


@pytest.mark.parametrize("chunk, tile", [(1, V), (3, 4), (7, 16), (9, V - 1)])
def test_the_head_against_a_masked_softmax(chunk, tile):
  """Values and gradients of log-probabilities and of entropies."""
  rng = np.random.default_rng(5)
  b, t = 2, 7
  h = jnp.asarray(rng.normal(size=(b, t, 8)), jnp.float32)
  table = jnp.asarray(rng.normal(size=(V, 8)), jnp.float32)
  mask = rng.random((b, t, V)) < 0.2
  # One token; a whole word; the last tile alone; everything.
  mask[0, 0], mask[0, 1] = False, False
  mask[0, 1, 32:], mask[0, 2], mask[0, 3] = True, np.arange(V) > 40, True
  target = rng.integers(V, size=(b, t))
  target[0, 2] = 41
  np.put_along_axis(mask, target[..., None], True, axis=2)
  sets = np.asarray(kept.pack(jnp.asarray(mask.reshape(-1, V))))
  sets = sets.reshape(b, t, W)
  trained = rng.random((b, t)) < 0.8
  weights = jnp.asarray(rng.normal(size=(2, b, t)) * trained, jnp.float32)

  def total(args, f):
    lp, entropy = f(*args)
    return (weights[0] * lp + weights[1] * entropy).sum()

  def plain(h, table):
    logp = jax.nn.log_softmax(masked(h @ table.T, sets))
    p = jnp.exp(logp)
    lp = jnp.take_along_axis(logp, target[..., None], axis=2)[..., 0]
    return lp, -(p * jnp.where(p > 0, logp, 0)).sum(2)

  def ours(h, table):
    return head.head_logprobs(
      h, table, target, chunk, tile, trained=jnp.asarray(trained),
      kept=jnp.asarray(sets),
    )  # fmt: skip

  def safe(h, table):
    logits = jnp.where(jnp.asarray(mask), h @ table.T, -1e9)
    logp = jax.nn.log_softmax(logits)
    lp = jnp.take_along_axis(logp, target[..., None], axis=2)[..., 0]
    return lp, -(jnp.exp(logp) * logp).sum(2)

  for got, want in zip(ours(h, table), plain(h, table)):
    np.testing.assert_allclose(got, np.where(trained, want, 0), atol=1e-5)
  got, want = (jax.grad(total)((h, table), f) for f in (ours, safe))
  for x, y in zip(got, want):
    np.testing.assert_allclose(x, y, rtol=1e-4, atol=2e-5)
    assert np.abs(y).max() > 0.1


def loss_of(params, b, chunk=5):
  """GRPO's loss with a KL term, entropies in it, within the sets."""
  rows = policy.rows_of(b)
  lp, entropy = policy.logprobs(MODEL, params, rows, TEMPERATURE, chunk, 8)
  reference = jax.tree.map(lambda x: 0.9 * x, params)
  ref, _ = jax.lax.stop_gradient(policy.logprobs(MODEL, reference, rows))
  value, metrics = losses.grpo_loss(
    lp, b.old_logprobs, ref, b.advantages, b.weights, 0.2, 0.1
  )
  return value + 0.1 * (b.weights * entropy).sum(), metrics


def test_the_gradient_against_finite_differences(params):
  """Along random directions, of the whole loss through the whole model."""
  batch = packed(
    sampled(params, PROMPTS, top_p=0.9), PROMPTS, rows=16, micro_batches=1
  )
  micro = learner.micro_batch(jax.tree.map(jnp.asarray, batch), 0)
  ref = jax.tree.map(lambda x: 0.9 * x, params)

  @jax.jit
  def value(p):
    rows = policy.rows_of(micro)
    lp, entropy = policy.logprobs(MODEL, p, rows, TEMPERATURE)
    other, _ = policy.logprobs(MODEL, ref, rows, TEMPERATURE)
    loss, _ = losses.grpo_loss(
      lp, micro.old_logprobs, other, micro.advantages, micro.weights, 0.2, 0.1
    )
    return loss + 0.1 * (micro.weights * entropy).sum()

  gradient = jax.jit(jax.grad(value))(params)
  leaves, tree = jax.tree.flatten(params)
  norm = np.sqrt(sum((x**2).sum() for x in jax.tree.leaves(gradient)))
  for seed in range(4):
    rng = np.random.default_rng(seed)
    v = [rng.normal(size=x.shape) for x in leaves]
    length = np.sqrt(sum((x**2).sum() for x in v))
    # Of length 1, and the half of it along the gradient.
    v = tree.unflatten(
      [
        jnp.asarray(x / length + g / norm, jnp.float32)
        for x, g in zip(v, jax.tree.leaves(gradient))
      ]
    )
    h = 3e-3
    up, down = (
      float(value(jax.tree.map(lambda p, d: p + s * h * d, params, v)))
      for s in (1, -1)
    )
    got = sum(
      float((a * b).sum())
      for a, b in zip(jax.tree.leaves(gradient), jax.tree.leaves(v))
    )
    assert got > 0.1
    assert got == pytest.approx((up - down) / (2 * h), rel=0.01)


def with_sets(sequences):
  """The same sequences with a random set for each token."""
  rng = np.random.default_rng(4)
  found = []
  for s in sequences:
    mask = rng.random((len(s.tokens), V)) < 0.3
    mask[np.arange(len(s.tokens)), s.tokens] = True
    sets = np.asarray(kept.pack(jnp.asarray(mask)))
    found.append(s._replace(kept=sets))
  return found


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("rows, micro, chunk", [(1, 16, 5), (4, 4, 64)])
def test_packing_and_accumulation_are_exact(params, shared, rows, micro, chunk):
  """Prompts shared or not, however many rows: the plain layout's gradient."""
  sequences = with_sets(groups(0, [(5, [3, 8, 1]), (9, [2, 2]), (1, [12])]))
  layouts = [
    packing.pack(
      [s._replace(prompt=0) for s in sequences], row_length=32,
      rows=len(sequences), micro_batches=1, words=W,
    ),
    packing.pack(
      sequences, row_length=32, rows=rows, micro_batches=micro, shared=shared,
      words=W,
    ),
  ]  # fmt: skip

  @functools.partial(jax.jit, static_argnums=1)
  def gradient(batch, chunk):
    loss = functools.partial(loss_of, chunk=chunk)
    return learner.accumulate(loss, params, batch)

  (want, sums), (got, others) = (gradient(b, chunk) for b in layouts)
  jax.tree.map(
    lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5),
    got, want,
  )  # fmt: skip
  assert max(np.abs(x).max() for x in jax.tree.leaves(want)) > 1e-2
  np.testing.assert_allclose(others["kl"], sums["kl"], rtol=1e-4)


def test_a_set_that_keeps_all_changes_nothing(params):
  """Of the loss and its gradient, against no set at all."""
  sequences = groups(1, [(4, [6, 3]), (7, [5])])
  full = np.asarray(kept.pack(jnp.ones((1, V), bool)))
  sequences = [
    s._replace(kept=np.repeat(full, len(s.tokens), axis=0)) for s in sequences
  ]
  batch = packing.pack(
    sequences, row_length=32, rows=2, micro_batches=2, words=W
  )
  f = jax.jit(lambda b: learner.accumulate(loss_of, params, b))
  got, want = f(batch), f(batch._replace(kept=None))
  jax.tree.map(
    lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5),
    got, want,
  )  # fmt: skip


def test_truncation_keeps_what_it_draws_from():
  """A weight that underflows to 0 is in no set."""
  weights = jnp.array([[1.0, 0.5, 1e-45, 0.0]])
  assert (np.asarray(truncate(weights, 0, 0.6)) > 0).tolist() == [
    [True, False, False, False]
  ]
