"""One token from its weights: truncation and the Gumbel draw."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from r1jax.sampling.draws import categorical, numbers, truncate

KEY = jax.random.key(7)


def reference_set(probs, top_k, top_p):
  """What top-k and then top-p keep, token by token from the likeliest."""
  order = list(np.argsort(-probs))[: top_k or None]
  total, held, kept = probs[order].sum(), 0.0, set()
  for token in order:
    kept.add(int(token))
    held += probs[token]
    if held >= top_p * total:
      break
  return kept if top_p < 1 else set(map(int, order))


def test_truncation_against_a_plain_reading():
  probs = np.random.default_rng(0).dirichlet(np.ones(12), 20)
  probs = probs.astype(np.float32)
  for top_k, top_p in ((3, 1.0), (0, 0.7), (5, 0.6), (99, 1.0), (1, 0.5)):
    got = np.asarray(truncate(jnp.asarray(probs), top_k, top_p))
    for row, out in zip(probs, got):
      kept = sorted(reference_set(row, top_k, top_p))
      np.testing.assert_array_equal(np.flatnonzero(out), kept)
      np.testing.assert_array_equal(out[kept], row[kept])


WIDTH = 11
jitted_categorical = jax.jit(categorical)
UNIFORMS = st.one_of(
  st.sampled_from([0.0, 0.25, 0.5, 1 - 2**-23]),
  st.integers(0, 2**23 - 1).map(lambda n: n * 2**-23),
)
WEIGHTS = st.one_of(
  st.sampled_from([0.0, 1e-30, 1e-6, 0.1, 1.0]),
  st.floats(0, 1, width=32, allow_subnormal=False),
)


@settings(max_examples=300, deadline=None)
@given(
  hnp.arrays(np.float32, WIDTH, elements=WEIGHTS).filter(np.any),
  hnp.arrays(np.float32, numbers(WIDTH), elements=UNIFORMS),
)
def test_no_token_of_probability_zero(weights, uniforms):
  token = int(jitted_categorical(weights[None], uniforms[None])[0])
  assert 0 <= token < WIDTH and weights[token] > 0


@pytest.mark.parametrize("v", [1, 2, 7, 64, 1000])
def test_draws_follow_the_weights(v):
  """Chi-square of 100,000 draws, unlikely tokens taken together."""
  rng = np.random.default_rng(v)
  weights = rng.dirichlet(np.full(v, 0.5)).astype(np.float32)
  weights[rng.random(v) < 0.3] = 0
  weights[-1] += 0.1
  n = 100_000
  uniforms = jax.random.uniform(jax.random.key(v), (n, numbers(v)))
  drawn = jitted_categorical(np.tile(5 * weights, (n, 1)), uniforms)
  want = n * weights.astype(np.float64) / weights.sum(dtype=np.float64)
  got = np.bincount(drawn, minlength=v)
  rare = want < 10
  assert (got[weights == 0] == 0).all()
  got = np.append(got[~rare], got[rare].sum())
  want = np.append(want[~rare], want[rare].sum())
  got, want = got[want > 0], want[want > 0]
  freedom = len(want) - 1
  chi2 = ((got - want) ** 2 / want).sum()
  assert chi2 < freedom + 5 * np.sqrt(2 * freedom) + 1e-6


def test_rounding_of_the_weights_hardly_ever_changes_a_draw():
  """By as much as two products of other shapes differ; an inverse CDF fails."""
  rng = np.random.default_rng(0)
  n, v = 1000, 20_000
  weights = rng.exponential(size=(n, v)).astype(np.float32)
  noise = rng.normal(scale=3e-5, size=(n, 2, 1)).repeat(v // 2, axis=1)
  near = weights * (1 + noise[..., 0]).astype(np.float32)
  uniforms = jax.random.uniform(KEY, (n, numbers(v)))
  drawn = [np.asarray(jitted_categorical(w, uniforms)) for w in (weights, near)]
  assert (drawn[0] != drawn[1]).sum() <= 2
  inverse = [
    (np.cumsum(w, axis=1) <= uniforms[:, :1] * w.sum(axis=1, keepdims=True))
    for w in (weights, near)
  ]
  assert (inverse[0].sum(1) != inverse[1].sum(1)).sum() > 30
