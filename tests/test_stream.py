"""The stream of a chat draws what the sampler draws."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from r1jax import model as model_lib
from r1jax.errors import UserError
from r1jax.model import ModelConfig
from r1jax.sampling.sampler import Sampler, SamplerConfig
from r1jax.sampling.stream import stream

MODEL = ModelConfig(
  vocab_size=23, d_model=16, n_layers=2, n_heads=4, n_kv_heads=2, head_dim=4,
  d_ff=24, max_length=64,
)  # fmt: skip
PROMPT = [3, 7, 1, 20, 4]


@pytest.fixture(scope="module")
def params():
  params = model_lib.init(MODEL, jax.random.key(0))
  return jax.tree.map(lambda x: 2 * x, params)


@pytest.mark.parametrize(
  "temperature, top_p", [(1.0, 1.0), (0.7, 0.9), (0.0, 1.0)]
)
def test_the_same_tokens_as_the_sampler(params, temperature, top_p):
  key = jax.random.key(5)
  got = list(
    stream(
      MODEL, params, PROMPT, key, max_new_tokens=20, temperature=temperature,
      top_p=top_p,
    )
  )  # fmt: skip
  config = SamplerConfig(
    slots=1, max_new_tokens=20, eos_id=-1, top_p=top_p, greedy=temperature == 0
  )
  sampler = Sampler(MODEL, config, group=1)
  want = sampler.sample(sampler.load(params), [PROMPT], key, temperature or 1.0)
  np.testing.assert_array_equal(got, want.tokens[0])


def test_greedy_tokens_are_the_likeliest_of_the_whole_forward(params):
  got = list(
    stream(
      MODEL, params, PROMPT, jax.random.key(0), max_new_tokens=12,
      temperature=0.0,
    )
  )  # fmt: skip
  # What stands behind a token it does not see.
  forward = jax.jit(model_lib.Decoder(MODEL).apply)
  ids = np.zeros((1, len(PROMPT) + 12), np.int32)
  ids[0, : len(PROMPT)] = PROMPT
  for at in range(len(PROMPT), ids.shape[1]):
    ids[0, at] = forward({"params": params}, ids)[0, at - 1].argmax()
  assert got == ids[0, len(PROMPT) :].tolist()


def test_a_token_that_is_put_in_place_is_gone_on_from(params):
  tokens = stream(
    MODEL, params, PROMPT, jax.random.key(0), max_new_tokens=4, temperature=0.0
  )
  first = next(tokens)
  other = (first + 1) % MODEL.vocab_size
  assert tokens.send(other) == other
  logits = model_lib.Decoder(MODEL).apply(
    {"params": params}, jnp.array([[*PROMPT, other]])
  )
  assert next(tokens) == int(logits[0, -1].argmax())


def test_the_stream_ends_at_the_models_length(params):
  prompt = [1] * 60
  assert (
    len(
      list(stream(MODEL, params, prompt, jax.random.key(0), max_new_tokens=50))
    )
    == 4
  )
  with pytest.raises(UserError, match="64 tokens"):
    next(stream(MODEL, params, [1] * 64, jax.random.key(0), max_new_tokens=1))
