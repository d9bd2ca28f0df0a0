"""The sampler against the learner, the softmax and itself."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from r1jax import policy
from r1jax.errors import UserError
from r1jax.model import Decoder, ModelConfig, init
from r1jax.sampler import SamplerConfig, inverse_cdf, sample, truncate

EOS, V, N, G, T = 1, 32, 4, 4, 12
MODEL = ModelConfig(
  vocab_size=V, d_model=16, n_layers=2, n_heads=4, n_kv_heads=2, head_dim=8,
  d_ff=32, max_length=64, tied=False,
)  # fmt: skip
KEY = jax.random.key(7)


@pytest.fixture(scope="module")
def params():
  p = init(MODEL, jax.random.key(0))
  # Sharper than at random, and with ends about one in twelve tokens.
  p["head"]["kernel"] = 3 * p["head"]["kernel"]
  return p


def prompts(side):
  """Prompts of 1 to 5 tokens, padded on one side."""
  rng = np.random.default_rng(0)
  tokens, mask = np.zeros((N, 5), np.int32), np.zeros((N, 5), bool)
  for i, n in enumerate((5, 1, 3, 2)):
    at = slice(5 - n, 5) if side == "left" else slice(0, n)
    tokens[i, at], mask[i, at] = rng.integers(2, V, 5)[:n], True
  return tokens, mask


def draw(params, side="right", temperature=1.0, order=None, **config):
  tokens, mask = prompts(side)
  indices = np.arange(N * G).reshape(N, G)
  if order is not None:
    tokens, mask, indices = tokens[order], mask[order], indices[order]
  config = dict({"slots": 6, "max_new_tokens": T, "eos_id": EOS}, **config)
  rollout = sample(
    MODEL, SamplerConfig(**config), G, None, params, tokens, mask,
    indices.reshape(-1), KEY, jnp.float32(temperature),
  )  # fmt: skip
  return tokens, mask, jax.tree.map(np.asarray, rollout)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("temperature", [0.7, 1.0, 1.3])
def test_logprobs_equal_the_learners(params, side, temperature):
  tokens, mask, r = draw(params, side, temperature)
  assert r.ended.any() and not r.ended.all()
  for i in range(N * G):
    prompt, n = tokens[i // G][mask[i // G]], r.lengths[i]
    row = np.concatenate((prompt, r.tokens[i, :n]))
    row = np.pad(row, (0, 20 - len(row)))[None]
    segments = (np.arange(19) < len(prompt) + n - 1)[None].astype(np.int32)
    lp, _ = policy.logprobs(
      MODEL, params, row[:, :-1], np.arange(19)[None], segments, row[:, 1:],
      temperature=temperature,
    )  # fmt: skip
    at = slice(len(prompt) - 1, len(prompt) - 1 + n)
    np.testing.assert_allclose(lp[0, at], r.logprobs[i, :n], atol=1e-4)


def test_a_completion_ends_with_its_end(params):
  _, _, r = draw(params)
  for tokens, n, ended in zip(r.tokens, r.lengths, r.ended):
    assert (tokens[n - 1] == EOS) == ended
    assert EOS not in tokens[: n - 1]
    assert ended or n == T
    assert not tokens[n:].any()


def test_draws_depend_on_nothing_but_the_sample(params):
  _, _, one = draw(params, slots=1)
  for slots in (4, 16, 64):
    _, _, other = draw(params, slots=slots)
    np.testing.assert_array_equal(one.tokens, other.tokens)
  order = [2, 0, 3, 1]
  _, _, other = draw(params, order=order)
  tokens = one.tokens.reshape(N, G, T)[order].reshape(-1, T)
  np.testing.assert_array_equal(tokens, other.tokens)
  _, _, left = draw(params, side="left")
  np.testing.assert_array_equal(one.tokens, left.tokens)
  assert len({tuple(t) for t in one.tokens}) > N  # a group differs in itself


def test_first_tokens_follow_the_softmax(params):
  tokens, mask = np.array([[3, 9, 4]], np.int32), np.ones((1, 3), bool)
  count = 20_000
  config = SamplerConfig(slots=count, max_new_tokens=1, eos_id=EOS)
  r = sample(
    MODEL, config, count, None, params, tokens, mask, jnp.arange(count), KEY,
    jnp.float32(1.0),
  )  # fmt: skip
  logits = Decoder(MODEL).apply({"params": params}, tokens)[0, -1]
  expected = np.asarray(jax.nn.softmax(logits)) * count
  observed = np.bincount(np.asarray(r.tokens)[:, 0], minlength=V)
  common = expected >= 5
  chi2 = ((observed - expected) ** 2 / expected)[common].sum()
  # The 99.99 % point of chi-square with k - 1 degrees, Wilson-Hilferty.
  k = common.sum() - 1
  assert chi2 < k * (1 - 2 / (9 * k) + 3.72 * np.sqrt(2 / (9 * k))) ** 3


def test_greedy_is_argmax_of_full_passes(params):
  tokens, mask, r = draw(params, greedy=True)
  for i in range(0, N * G, G):
    row = list(tokens[i // G][mask[i // G]])
    for t in range(r.lengths[i]):
      padded = np.pad(row, (0, 20 - len(row)))[None]
      logits = Decoder(MODEL).apply({"params": params}, padded)
      assert int(logits[0, len(row) - 1].argmax()) == r.tokens[i, t]
      row.append(r.tokens[i, t])


@settings(max_examples=60, deadline=None)
@given(
  st.lists(st.sampled_from([0.0, 1e-6, 0.1, 0.5, 1.0]), min_size=11, max_size=11)
  .filter(any),
  st.sampled_from([0.0, 0.25, 0.5, 1 - 2**-24]),
)
def test_no_token_of_probability_zero(weights, uniform):
  probs = jnp.array([weights], jnp.float32)
  token = int(inverse_cdf(probs, jnp.array([uniform]))[0])
  assert weights[token] > 0


def test_truncation_against_a_plain_reading():
  rng = np.random.default_rng(0)
  probs = rng.dirichlet(np.ones(12), 20).astype(np.float32)
  for top_k, top_p in ((3, 1.0), (0, 0.7), (5, 0.6)):
    kept = np.asarray(truncate(jnp.asarray(probs), top_k, top_p)) > 0
    for row, keep in zip(probs, kept):
      order = np.argsort(-row)[: top_k or None]
      share = np.cumsum(row[order]) / row[order].sum()
      n = int(np.searchsorted(share, top_p)) + 1 if top_p < 1 else len(order)
      assert set(np.flatnonzero(keep)) == set(order[:n])


def test_bad_settings_are_named():
  with pytest.raises(UserError, match="top_p=0"):
    SamplerConfig(slots=1, max_new_tokens=1, eos_id=1, top_p=0)
