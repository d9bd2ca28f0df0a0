"""The sampler against the learner, the softmax and itself."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_draws import reference_set
from test_model import random_params

from r1jax.errors import UserError
from r1jax.model import Decoder, ModelConfig
from r1jax.sampling import pool, step
from r1jax.sampling.sampler import Callbacks, Sampler, SamplerConfig
from r1jax.training import policy

EOS, V, N, G, T, P = 1, 32, 4, 16, 12, 5
MODEL = ModelConfig(
  vocab_size=V, d_model=16, n_layers=2, n_heads=4, n_kv_heads=2, head_dim=8,
  d_ff=32, max_length=64, tied=False, qkv_bias=True, qk_norm=True,
)  # fmt: skip
KEY = jax.random.key(7)
INDICES = np.arange(N * G)


@pytest.fixture(scope="module")
def params():
  p = dict(random_params(MODEL))
  # Sharper than at random.
  p["head"] = {"kernel": 2 * p["head"]["kernel"]}
  return p


def prompts():
  """Four prompts of 1 to 5 tokens."""
  rng = np.random.default_rng(0)
  return [rng.integers(2, V, P)[:n] for n in (5, 1, 3, 2)]


def sampled(params, texts, group, config, model=MODEL, mesh=None, **options):
  """A `Rollout` of numpy arrays."""
  sampler = Sampler(model, SamplerConfig(**config), group, mesh)
  options = {"key": KEY, **options}
  rollout = sampler.sample(sampler.load(params), texts, **options)
  return jax.tree.map(np.asarray, rollout)


def draw(params, temperature=1.0, indices=INDICES, key=KEY, order=None,
         model=MODEL, **config):  # fmt: skip
  """Prompts and a `Rollout` of 16 completions each."""
  texts = prompts()
  if order is not None:
    texts = [texts[n] for n in order]
    indices = indices.reshape(N, G)[order].reshape(-1)
  config = {"slots": 4, "max_new_tokens": T, "eos_id": EOS, **config}
  rollout = sampled(
    params, texts, G, config, model, key=key, temperature=temperature,
    indices=indices,
  )  # fmt: skip
  return texts, rollout


def first_tokens(params, count, temperature=1.0, **config):
  """Many first tokens after one prompt, and the softmax they come from."""
  config = {"slots": count, "max_new_tokens": 1, "eos_id": EOS, **config}
  rollout = sampled(params, [[3, 9, 4]], count, config, temperature=temperature)
  logits = full_logits(params, np.array([[3, 9, 4]], np.int32))[0, -1]
  return rollout, np.asarray(jax.nn.softmax(logits / temperature), np.float64)


@jax.jit
def full_logits(params, tokens):
  return Decoder(MODEL).apply({"params": params}, tokens)


@jax.jit
def learner_logprobs(params, rows, segments, temperature):
  positions = jnp.broadcast_to(jnp.arange(P + T - 1), segments.shape)
  rows = policy.Rows(rows[:, :-1], positions, segments, rows[:, 1:])
  return policy.logprobs(MODEL, params, rows, temperature)[0]


def learned(params, texts, r, temperature=1.0):
  """What the learner says of the drawn tokens of all completions, in a row."""
  rows = np.zeros((N * G, P + T), np.int32)
  segments = np.zeros((N * G, P + T - 1), np.int32)
  trained = np.zeros((N * G, P + T - 1), bool)
  for i, n in enumerate(r.lengths):
    prompt = texts[i // G]
    end = len(prompt) + n
    rows[i, :end] = np.concatenate((prompt, r.tokens[i, :n]))
    segments[i, : end - 1] = 1
    trained[i, len(prompt) - 1 : end - 1] = True
  lp = learner_logprobs(params, rows, segments, jnp.float32(temperature))
  return np.asarray(lp)[trained]


def said(r):
  """What the sampler says of them; of other places nothing."""
  drawn = np.arange(T) < r.lengths[:, None]
  assert (r.logprobs[~drawn] == 0).all()
  return r.logprobs[drawn]


@pytest.mark.parametrize("temperature", [0.7, 1.0, 1.3])
def test_logprobs_equal_the_learners(params, temperature):
  """The gate: 64 completions in 4 slots, some ended and some cut."""
  texts, r = draw(params, temperature)
  assert r.ended.any() and not r.ended.all()
  want = learned(params, texts, r, temperature)
  np.testing.assert_allclose(said(r), want, atol=1e-4)


@pytest.mark.parametrize("chunk", [4, 64])
def test_logprobs_in_bfloat16(params, chunk):
  """Near the learner's in float32, with an error of either sign."""
  model = dataclasses.replace(MODEL, compute_dtype="bfloat16")
  texts, r = draw(params, model=model, chunk=chunk)
  gap = said(r) - learned(params, texts, r)
  assert 1e-4 < np.abs(gap).mean() < 0.03
  assert abs(np.exp(gap).mean() - 1) < 0.01


def test_several_tokens_end_a_completion(params):
  """Against completions that nothing ends, cut by hand."""
  _, whole = draw(params, eos_id=-1)
  ends = (EOS, 7, 30)
  _, r = draw(params, eos_id=list(ends))
  for tokens, cut, n, ended in zip(whole.tokens, r.tokens, r.lengths, r.ended):
    (at,) = np.nonzero(np.isin(tokens, ends))
    want = at[0] + 1 if len(at) else T
    assert (n, ended) == (want, len(at) > 0)
    np.testing.assert_array_equal(cut[:n], tokens[:n])
  assert {t[n - 1] for t, n in zip(r.tokens, r.lengths)} > set(ends)


def test_a_token_that_the_model_does_not_have(params):
  for token in (V, -1):
    with pytest.raises(UserError, match=f"prompt 1 has the token {token}"):
      sampled(params, [[1], [2, token]], 1, {"slots": 1, "max_new_tokens": 1})


def test_a_completion_ends_with_its_end(params):
  _, r = draw(params)
  for tokens, n, ended in zip(r.tokens, r.lengths, r.ended):
    assert 1 <= n <= T
    assert (tokens[n - 1] == EOS) == ended
    assert EOS not in tokens[: n - 1]
    assert ended or n == T
    assert not tokens[n:].any()


def test_draws_depend_on_nothing_but_the_sample(params):
  _, one = draw(params)
  others = [draw(params, slots=s)[1] for s in (16, 64)]
  others.append(draw(params, slots=16, tail_slots=(5, 3, 1))[1])
  for other in others:
    np.testing.assert_array_equal(one.tokens, other.tokens)
    np.testing.assert_array_equal(one.lengths, other.lengths)
    np.testing.assert_array_equal(one.ended, other.ended)
    np.testing.assert_allclose(one.logprobs, other.logprobs, atol=1e-5)


def test_the_order_of_prompts_does_not_matter(params):
  _, one = draw(params)
  order = [2, 0, 3, 1]
  _, other = draw(params, order=order)
  tokens = one.tokens.reshape(N, G, T)[order].reshape(-1, T)
  np.testing.assert_array_equal(tokens, other.tokens)


def test_prompts_that_take_turns_in_the_pool(params):
  """90 prompts in 35 places: each still gets what it gets alone."""
  rng = np.random.default_rng(1)
  lengths = rng.integers(1, 40, 90)
  tokens = rng.integers(2, V, (90, 40))
  texts = [row[:n] for row, n in zip(tokens, lengths)]
  looks, calls = [], []

  def draw(which, slots, **callbacks):
    return sampled(
      params, [texts[n] for n in which], 2,
      {"slots": slots, "max_new_tokens": T, "eos_id": EOS},
      indices=(2 * which[:, None] + np.arange(2)).ravel(),
      callbacks=Callbacks(**callbacks),
    )  # fmt: skip

  r = draw(
    np.arange(90), 6, on_look=looks.append,
    on_finished=lambda ids, rows: calls.append((ids, rows)),
  )  # fmt: skip
  for n in (0, 7, 44, 89):
    alone = draw(np.array([n]), 2)
    at = slice(2 * n, 2 * n + 2)
    np.testing.assert_array_equal(r.tokens[at], alone.tokens)
    np.testing.assert_array_equal(r.lengths[at], alone.lengths)
    np.testing.assert_allclose(r.logprobs[at], alone.logprobs, atol=1e-5)
  ids = np.concatenate([ids for ids, _ in calls])
  assert sorted(ids) == list(range(180))
  for ids, rows in calls:
    np.testing.assert_array_equal(rows.tokens, r.tokens[ids])
  # No slot waited for the others to give up their prompts.
  assert looks[-1].busy == 6 * looks[-1].waited > 0


@pytest.mark.parametrize("length", [1, 16, 17, 100, 128, 300, 1000, 5000])
def test_a_bucket_is_hardly_wider_than_its_prompt(length):
  width = pool.bucket(length)
  assert length <= width <= max(16, length + 15, 9 / 8 * length)
  assert pool.bucket(width) == width


def test_everything_is_handed_out_once(params):
  """In looks of three steps, whole, and the same as what is returned."""
  config = {"slots": 4, "max_new_tokens": T, "eos_id": EOS, "stride": 3}
  seen = {}

  def collect(ids, rows):
    for i, *row in zip(ids, rows.tokens, rows.logprobs, rows.lengths):
      assert i not in seen
      seen[int(i)] = row

  r = sampled(params, prompts(), G, config, callbacks=Callbacks(collect))
  assert sorted(seen) == INDICES.tolist()
  assert list(seen) != sorted(seen)  # not all at the end
  for i, row in seen.items():
    for got, want in zip(row, (r.tokens[i], r.logprobs[i], r.lengths[i])):
      np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("chunk", [1, 5, 64])
def test_the_chunks_of_the_cache_do_not_matter(params, chunk):
  """Rings of 12, 3 and 1 chunks, some of them larger than the longest."""
  _, one = draw(params, chunk=T)
  _, other = draw(params, chunk=chunk)
  np.testing.assert_array_equal(one.tokens, other.tokens)
  np.testing.assert_allclose(one.logprobs, other.logprobs, atol=1e-5)


def test_a_cache_of_eight_bits(params):
  """What it says of its tokens is nearly what the learner says of them."""
  texts, r = draw(params, kv_dtype="int8")
  gap = np.abs(learned(params, texts, r) - said(r))
  assert 1e-6 < gap.mean() < 0.02


def test_limits_cut_each_its_own(params):
  _, free = draw(params)
  limits = 1 + INDICES % T
  config = {"slots": 4, "max_new_tokens": T, "eos_id": EOS}
  r = sampled(params, prompts(), G, config, limits=limits)
  want = np.minimum(free.lengths, limits)
  np.testing.assert_array_equal(r.lengths, want)
  np.testing.assert_array_equal(r.ended, free.ended & (free.lengths <= limits))
  for i, n in enumerate(want):
    np.testing.assert_array_equal(r.tokens[i, :n], free.tokens[i, :n])


def test_noise_is_that_of_key_and_index(params):
  _, one = draw(params)
  _, again = draw(params)
  np.testing.assert_array_equal(one.tokens, again.tokens)
  _, other = draw(params, key=jax.random.key(8))
  assert (one.tokens != other.tokens).any(axis=1).mean() > 0.9
  _, other = draw(params, indices=INDICES + 1000)
  assert (one.tokens != other.tokens).any(axis=1).mean() > 0.9
  # A group differs in itself, unless its members share an index.
  for group in one.tokens.reshape(N, G, T):
    assert len({tuple(t) for t in group}) > G // 2
  _, same = draw(params, indices=INDICES // G)
  for group in same.tokens.reshape(N, G, T):
    assert len({tuple(t) for t in group}) == 1


@pytest.mark.parametrize("temperature", [0.7, 1.0, 2.0])
def test_first_tokens_follow_the_softmax(params, temperature):
  count = 20_000
  rollout, probs = first_tokens(params, count, temperature)
  seen = np.bincount(np.asarray(rollout.tokens)[:, 0], minlength=V)
  expected = probs * count
  # What is too rare for chi-square joins the rarest of the others.
  order = np.argsort(expected)
  start = order[: np.searchsorted(np.cumsum(expected[order]), 5) + 1]
  common = np.delete(np.arange(V), start)
  seen = np.append(seen[common], seen[start].sum())
  expected = np.append(expected[common], expected[start].sum())
  k = len(seen) - 1
  assert k > 5 and expected.min() > 1
  chi2 = ((seen - expected) ** 2 / expected).sum()
  # The 99.99 % point of chi-square with k degrees, Wilson and Hilferty.
  assert chi2 < k * (1 - 2 / (9 * k) + 3.72 * np.sqrt(2 / (9 * k))) ** 3


@pytest.mark.parametrize("top_k, top_p", [(6, 0.9)])
def test_truncated_draws_stay_in_the_set(params, top_k, top_p):
  rollout, probs = first_tokens(params, 8192, top_k=top_k, top_p=top_p)
  allowed = reference_set(probs, top_k, top_p)
  assert 1 < len(allowed) < V
  drawn = np.asarray(rollout.tokens)[:, 0]
  assert set(drawn) == allowed
  # Log-probabilities are those of the distribution that is drawn from.
  total = probs[sorted(allowed)].sum()
  np.testing.assert_allclose(
    rollout.logprobs[:, 0], np.log(probs / total)[drawn], atol=1e-4
  )


def test_greedy_is_argmax_of_full_passes(params):
  texts, r = draw(params, greedy=True)
  for i in range(0, N * G, G):
    np.testing.assert_array_equal(
      r.tokens[i : i + G], np.tile(r.tokens[i], (G, 1))
    )
    row = list(texts[i // G])
    for t in range(r.lengths[i]):
      padded = np.pad(row, (0, P + T - len(row)))[None]
      logits = full_logits(params, padded)[0, len(row) - 1]
      assert int(logits.argmax()) == r.tokens[i, t]
      row.append(r.tokens[i, t])


@pytest.mark.parametrize(
  "field, value",
  [("slots", 0), ("slots", "4"), ("slots", 4.0), ("slots", True),
   ("max_new_tokens", 0), ("max_new_tokens", None), ("eos_id", -2),
   ("eos_id", (1, -1)), ("eos_id", (1, "x")), ("eos_id", (True,)),
   ("eos_id", "</s>"), ("top_k", -1), ("top_k", 2.5), ("top_p", 0),
   ("top_p", 1.5), ("top_p", float("nan")), ("top_p", "0.9"), ("greedy", 1),
   ("greedy", "yes"), ("chunk", 0), ("chunk", "64"), ("stride", 0),
   ("stride", float("inf")), ("tail_slots", 4), ("tail_slots", (4, 0)),
   ("tail_slots", ("4",)), ("kv_dtype", "int4"), ("kv_dtype", 8)],
)  # fmt: skip
def test_bad_settings_are_named(field, value):
  settings = {"slots": 1, "max_new_tokens": 1, "eos_id": 1, field: value}
  with pytest.raises(UserError, match=re.escape(f"{field}={value}")):
    SamplerConfig(**settings)


def test_tail_slots_may_be_a_list():
  config = SamplerConfig(
    slots=8, max_new_tokens=1, eos_id=-1, tail_slots=[4, 1]
  )
  assert config.tail_slots == (4, 1)
  hash(config)


def test_an_empty_prompt_is_named(params):
  config = {"slots": 1, "max_new_tokens": 1, "eos_id": 1}
  with pytest.raises(UserError, match="prompt 1 is empty"):
    sampled(params, [[3], []], 1, config)


def test_the_abstract_inputs_are_those_of_a_rollout(params, monkeypatch):
  """So that a program that is lowered without arrays is the one that runs."""
  seen = []

  def plain(tree):
    # The only number that is no array is `Book.wanted`.
    return jax.tree.map(
      lambda x: (jnp.shape(x), getattr(x, "dtype", jnp.int32)), tree
    )

  def advance(static, *inputs):
    seen.append(plain(inputs))
    return run(static, *inputs)

  run = step.advance
  monkeypatch.setattr(step, "advance", advance)
  draw(params)
  config = SamplerConfig(slots=4, max_new_tokens=T, eos_id=EOS)
  want = Sampler(MODEL, config, G).shapes(prompts=N, width=P).advance
  assert seen and all(inputs == plain(want) for inputs in seen)
