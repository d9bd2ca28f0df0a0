"""The sampler keeps whatever an attention declares, in any widths and layout.

By a toy attention that keeps two arrays, as MLA does: "c", which is key and
value at once, and a narrower key "r". The model's own projections are cut and
joined anew for it, so it has no parameters of its own.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from test_model import random_params

from r1jax.model import Decoder, ModelConfig, attention, layer
from r1jax.model.attention import Kept
from r1jax.sampling import cache
from r1jax.sampling.sampler import Sampler, SamplerConfig

MODEL = ModelConfig(
  vocab_size=29, d_model=16, n_layers=2, n_heads=4, n_kv_heads=2, head_dim=8,
  d_ff=24, max_length=64,
)  # fmt: skip
KEPT = (
  Kept("c", 2, 12, key=True, value=True, tokens_last=False),
  Kept("r", 2, 4, key=True, value=False, tokens_last=True),
)
T, GROUP = 10, 2
PROMPTS = [[3, 9, 4, 17, 5], [2], [8, 8, 1]]


@pytest.fixture
def toy(monkeypatch):
  """The model's attention in terms of "c" and "r"."""
  heads = layer.Layer._heads

  def toy_heads(self, x, context):
    q, arrays = heads(self, x, context)
    k, v = arrays["k"].swapaxes(2, 3), arrays["v"]
    c = jnp.concatenate((k, v[..., :4]), axis=-1)
    arrays = {"c": c, "r": v[..., 4:].swapaxes(2, 3)}
    return jnp.concatenate((q, q[..., ::-1]), axis=-1), arrays

  monkeypatch.setattr(layer.Layer, "_heads", toy_heads)
  monkeypatch.setattr(attention, "kept", lambda config: KEPT)


@pytest.mark.parametrize("kv_dtype, most", [("compute", 2e-5), ("int8", 0.1)])
def test_a_latent_attention_is_sampled_as_the_whole_forward_says(
  toy, kv_dtype, most
):
  """Prompts in a pool, completions in a ring of three chunks."""
  params = random_params(MODEL)
  config = SamplerConfig(
    slots=4, max_new_tokens=T, eos_id=-1, chunk=4, kv_dtype=kv_dtype
  )
  sampler = Sampler(MODEL, config, GROUP)
  _, pool, state, _ = sampler.shapes(prompts=3, width=5).advance
  for chunk in (*pool.layers, *state.rings[0].chunks):
    leaf = {k: jax.tree.leaves(x)[0].shape[2:] for k, x in chunk.arrays.items()}
    u = chunk.shape[3]
    assert leaf == {"c": (2, u, 12), "r": (2, 4, u)} and u in (4, 16)
  r = sampler.sample(sampler.load(params), PROMPTS, jax.random.key(0))
  r = jax.tree.map(np.asarray, r)
  rows = np.zeros((len(r.tokens), 16), np.int32)
  for row, tokens, n in zip(rows, r.tokens, range(len(rows))):
    prompt = PROMPTS[n // GROUP]
    row[: len(prompt) + T] = [*prompt, *tokens]
  logits = jax.jit(Decoder(MODEL).apply)({"params": params}, rows)
  logp = np.asarray(jax.nn.log_softmax(logits))
  for n, (row, said) in enumerate(zip(rows, r.logprobs)):
    at = len(PROMPTS[n // GROUP]) - 1 + np.arange(T)
    want = logp[n, at, row[at + 1]]
    np.testing.assert_allclose(said, want, atol=most)


def test_columns_come_back_as_they_were_written():
  """Into a pool of prompts and into each chunk of a ring, by hand."""
  rng = np.random.default_rng(0)
  new = {
    k.name: jnp.asarray(rng.normal(size=(1, *k.shape(3))), jnp.float32)
    for k in KEPT
  }
  zeros = {k.name: jnp.zeros((2, 4, *k.shape(8))) for k in KEPT}
  columns = cache.Columns(zeros, KEPT).written(new, (1, 2), column=5)
  assert columns.shape == (2, 4, 2, 8)
  c, r = (np.asarray(columns.arrays[name]) for name in "cr")
  np.testing.assert_array_equal(c[1, 2, :, 5:], new["c"][0])
  np.testing.assert_array_equal(r[1, 2, :, :, 5:], new["r"][0])
  assert np.count_nonzero(c) == 2 * 12 * 3 and np.count_nonzero(r) == 2 * 4 * 3
  ring = cache.Ring(columns.arrays, KEPT)
  assert ring.extent == (2, 8)
  for chunk in range(2):
    taken = ring.take(8 * chunk + 3)
    for name, x in ring.arrays.items():
      np.testing.assert_array_equal(taken.arrays[name][0], x[chunk])
    ones = cache.Columns(jax.tree.map(jnp.ones_like, taken.arrays), KEPT)
    back = ring.give_back(ones, 8 * chunk)
    for name, x in ring.arrays.items():
      np.testing.assert_array_equal(back.arrays[name][chunk], 1)
      np.testing.assert_array_equal(back.arrays[name][1 - chunk], x[1 - chunk])


def test_eight_bits_have_a_scale_for_each_token_and_head():
  """The width is the dimension that is rounded together, in either layout."""
  rng = np.random.default_rng(0)
  arrays = {
    k.name: jnp.asarray(rng.normal(size=(1, *k.shape(3))), jnp.float32)
    for k in KEPT
  }
  stored = cache.stored(arrays, KEPT, int8=True)
  for k in KEPT:
    values, scale = stored[k.name]
    assert values.shape == (1, *k.shape(3)) and scale.shape == (1, 2, 3)
    back = np.asarray(values) * np.expand_dims(scale, k.width_axis)
    np.testing.assert_allclose(back, arrays[k.name], atol=scale.max() * 0.51)


@given(
  hnp.arrays(
    np.float32, (2, 3, 4, 5),
    elements=st.floats(-1e3, 1e3, width=32, allow_subnormal=False),
  ),
  st.sampled_from([-1, -2]),
)  # fmt: skip
@settings(deadline=None)
def test_eight_bits_err_by_half_a_step(x, axis):
  values, scale = attention.quantize(jnp.asarray(x), axis)
  assert values.dtype == jnp.int8
  step = np.abs(x).max(axis=axis, keepdims=True) / 127
  back = np.asarray(values, np.float32) * np.expand_dims(scale, axis)
  assert (np.abs(back - x) <= 0.501 * step + 1e-30).all()
