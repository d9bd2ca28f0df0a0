"""Layers with a window: masks, kernels, and the sampler against the learner."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import test_sampler
from test_model import random_params

from r1jax.errors import UserError
from r1jax.model import Decoder, attention, kernels, tiles
from r1jax.sampling.stream import stream

# As Gemma 3, with a window that prompts and completions outgrow.
MODEL = dataclasses.replace(
  test_sampler.MODEL, n_layers=3, qkv_bias=False, tied=True, window=4,
  window_period=3, window_theta=100.0, activation="gelu_tanh",
  gain_from_one=True, post_norms=True, scaled_embedding=True, score_scale=5.0,
)  # fmt: skip


@pytest.fixture(scope="module")
def params():
  p = dict(random_params(MODEL))
  # Half the logits, so that rounding does not hide what is compared.
  p["norm"] = {"scale": (p["norm"]["scale"] - 1) / 2}
  return p


def test_which_layers_have_one():
  def windows(**changes):
    return dataclasses.replace(MODEL, **changes).windows

  assert windows() == (4, 4, None)
  assert windows(n_layers=5) == (4, 4, None, 4, 4)
  assert windows(window=None) == (None, None, None)
  assert windows(window_period=1) == (None, None, None)
  for field in ("window", "window_period", "window_theta", "score_scale"):
    with pytest.raises(UserError, match=field):
      dataclasses.replace(MODEL, **{field: 0})


def packed(t, seed=0):
  """Marks of rows of two prompts, each with two completions after it."""
  rng = np.random.default_rng(seed)
  segments = np.zeros((2, t), np.int32)
  prefixes, positions = segments.copy(), segments.copy()
  for row in range(2):
    at, number = 0, 0
    while at < t - 10:
      number += 1
      prompt, n = number, int(rng.integers(3, t // 6))
      segments[row, at : at + n] = number
      positions[row, at : at + n] = np.arange(n)
      at += n
      for _ in range(2):
        number += 1
        m = min(int(rng.integers(3, t // 6)), t - at)
        segments[row, at : at + m] = number
        prefixes[row, at : at + m] = prompt
        positions[row, at : at + m] = n + np.arange(m)
        at += m
  return segments, prefixes, positions


@pytest.mark.parametrize("window", [1, 3, 17, 1000])
def test_the_mask_token_by_token(window):
  segments, prefixes, positions = packed(60)
  span = attention.Span(positions, positions - window + 1)
  mask = np.asarray(attention.causal_mask(segments, prefixes, span))
  for b, i, j in np.ndindex(mask.shape):
    same = segments[b, j] in (segments[b, i], prefixes[b, i])
    near = positions[b, i] - positions[b, j] < window
    want = same and segments[b, j] > 0 and j <= i and near
    assert mask[b, i, j] == want


@pytest.mark.parametrize("window", [5, 100])
def test_tiles_and_their_gradients(window):
  """Against attention with the whole mask, in rows of several tiles."""
  t = 400
  segments, prefixes, positions = packed(t)
  span = attention.Span(positions, positions - window + 1)
  keys = jax.random.split(jax.random.key(0), 4)
  shapes = (2, 4, t, 8), (2, 2, 8, t), (2, 2, t, 8), (2, 4, t, 8)
  q, k, v, g = (jax.random.normal(*x) for x in zip(keys, shapes))
  g *= (segments > 0)[:, None, :, None]
  mask = attention.causal_mask(segments, prefixes, span)

  def whole(q, k, v):
    return (attention.attend(q, k, v, mask) * g).sum()

  def tiled(q, k, v):
    return (tiles.attend(q, k, v, segments, prefixes, *span) * g).sum()

  for want, got in zip(
    jax.value_and_grad(whole, (0, 1, 2))(q, k, v),
    jax.value_and_grad(tiled, (0, 1, 2))(q, k, v),
  ):
    jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, atol=2e-4), want, got
    )
  got = kernels.cudnn_attend(q, k, v, segments, prefixes, span, "xla")
  there = (segments > 0)[:, None, :, None]
  want = attention.attend(q, k, v, mask)
  np.testing.assert_allclose(got * there, want * there, atol=1e-5)


def test_fewer_tiles_are_visited():
  t, size = 640, 64
  segments = np.ones((1, t), np.int32)
  positions = np.arange(t, dtype=np.int32)[None]

  def count(window):
    marks = segments, 0 * segments, positions, positions - window + 1
    cut = [jnp.asarray(x).reshape(-1, 1, size) for x in marks]
    return int(tiles.tile_pairs(*cut).count)

  # 10 tiles: themselves; and the ones before them that a window reaches.
  assert [count(w) for w in (1, 2, 65, 66, 10**6)] == [10, 19, 19, 27, 55]


def test_what_is_too_far_away_is_not_seen(params):
  """Three layers of a window of 4 see 9 tokens back and no further."""
  model = dataclasses.replace(MODEL, window_period=4)
  forward = jax.jit(Decoder(model).apply)
  tokens = np.random.default_rng(0).integers(2, 32, (1, 40))
  before = forward({"params": params}, tokens)
  for changed in (0, 7):
    other = tokens.copy()
    other[0, changed] = 1
    after = forward({"params": params}, other)
    moved = np.abs(np.asarray(after - before)).max(axis=(0, 2)) > 0
    assert moved.tolist() == [changed <= i <= changed + 9 for i in range(40)]
  # The last layer sees all.
  whole = jax.jit(Decoder(MODEL).apply)
  other = tokens.copy()
  other[0, 0] = 1
  a, b = (whole({"params": params}, x)[0, -1] for x in (tokens, other))
  assert float(jnp.abs(a - b).max()) > 0


@pytest.mark.parametrize("remat", ["none", "layer"])
def test_packed_as_alone(params, remat):
  model = Decoder(dataclasses.replace(MODEL, remat=remat))

  @jax.jit
  def forward(*row):
    return model.apply({"params": params}, *row, method="hidden")

  segments, prefixes, positions = packed(90)
  tokens = np.random.default_rng(1).integers(2, 32, segments.shape)
  hidden = forward(tokens, positions, segments, prefixes)
  for row in range(2):
    for number in range(1, segments[row].max() + 1):
      own = segments[row] == number
      before = prefixes[row][own][0]
      at = np.flatnonzero(own | ((segments[row] == before) & (before > 0)))
      # What comes after is not seen.
      alone = np.pad(tokens[row, at], (0, 30 - len(at)))[None]
      alone = forward(alone)[0, : len(at)]
      np.testing.assert_allclose(
        hidden[row, own], alone[-own.sum() :], atol=2e-5
      )


@pytest.mark.parametrize("chunk, slots", [(4, 4), (64, 64), (3, 5)])
def test_the_sampler_says_what_the_learner_says(
  params, chunk, slots, monkeypatch
):
  """To 1e-5, with prompts and completions longer than the window."""
  monkeypatch.setattr(test_sampler, "MODEL", MODEL)
  monkeypatch.setattr(
    test_sampler, "learner_logprobs",
    jax.jit(test_sampler.learner_logprobs.__wrapped__),
  )  # fmt: skip
  texts, r = test_sampler.draw(params, model=MODEL, chunk=chunk, slots=slots)
  assert r.lengths.max() == test_sampler.T > MODEL.window
  want = test_sampler.learned(params, texts, r)
  np.testing.assert_allclose(test_sampler.said(r), want, atol=1e-5)


def test_a_prompt_out_of_sight_and_a_chat(params):
  """A completion of 40 tokens: all layers but the last forget its prompt."""
  prompt = [3, 9, 4, 8, 2, 7]
  got = list(
    stream(
      MODEL, params, prompt, jax.random.key(0), max_new_tokens=40,
      temperature=0.0,
    )
  )  # fmt: skip
  forward = jax.jit(Decoder(MODEL).apply)
  ids = np.zeros((1, 46), np.int32)
  ids[0, :6] = prompt
  for at in range(6, 46):
    ids[0, at] = forward({"params": params}, ids)[0, at - 1].argmax()
  assert got == ids[0, 6:].tolist()


def test_on_a_mesh(params):
  from r1jax import meshes
  from r1jax import model as model_lib

  mesh = meshes.make_mesh(data=2, tensor=2, devices=jax.devices()[:4])
  config = dict(slots=8, max_new_tokens=12, eos_id=1, chunk=4)
  texts = test_sampler.prompts()
  want = test_sampler.sampled(params, texts, 4, config, MODEL)
  placed = model_lib.place(MODEL, params, mesh)
  got = test_sampler.sampled(placed, texts, 4, config, MODEL, mesh)
  np.testing.assert_array_equal(got.tokens, want.tokens)
  np.testing.assert_allclose(got.logprobs, want.logprobs, atol=1e-5)


def test_a_step_against_the_equations():
  """One layer in float64, written out: Gemma 3's, at its last position."""
  c = dataclasses.replace(MODEL, n_layers=1, vocab_size=11)
  p = random_params(c)
  tokens = np.array([3, 1, 4, 1, 5, 9, 2])
  got = Decoder(c).apply({"params": p}, tokens[None])[0]
  w = jax.tree.map(lambda x: np.asarray(x, np.float64), p)
  layer = jax.tree.map(lambda x: x[0], w["layers"])

  def norm(x, name, at=layer):
    scale = x / np.sqrt((x * x).mean(-1, keepdims=True) + c.rms_eps)
    return scale * (1 + at[name]["scale"])

  def turned(x):
    angle = np.arange(7)[:, None] * 100.0 ** (-np.arange(0, 8, 2) / 8)
    a, b = x[..., :4], x[..., 4:]
    cos, sin = np.cos(angle)[:, None], np.sin(angle)[:, None]
    return np.concatenate((a * cos - b * sin, b * cos + a * sin), -1)

  x = w["embed"]["embedding"][tokens] * 4.0
  y = norm(x, "attention_norm")
  q, k, v = (
    (y @ layer[n]["kernel"]).reshape(7, -1, 8) for n in ("q", "k", "v")
  )
  q, k = turned(norm(q, "q_norm")), turned(norm(k, "k_norm"))
  out = np.zeros((7, 4, 8))
  for t in range(7):
    seen = range(max(0, t - 3), t + 1)
    for h in range(4):
      s = np.array([q[t, h] @ k[u, h // 2] for u in seen]) / np.sqrt(5.0)
      s = np.exp(s - s.max())
      out[t, h] = (s / s.sum()) @ v[list(seen), h // 2]
  y = out.reshape(7, -1) @ layer["o"]["kernel"]
  x = x + norm(y, "attention_post_norm")
  y = norm(x, "mlp_norm")
  z = y @ layer["gate"]["kernel"]
  z = z / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (z + 0.044715 * z**3)))
  y = (z * (y @ layer["up"]["kernel"])) @ layer["down"]["kernel"]
  x = x + norm(y, "mlp_post_norm")
  want = norm(x, "norm", w) @ w["embed"]["embedding"].T
  np.testing.assert_allclose(got, want, atol=2e-5)
