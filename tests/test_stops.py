"""Stop strings: where a completion ends, whatever its tokens are."""

import dataclasses

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_sampler import INDICES, MODEL, G, N, T, V, params, prompts, sampled

from r1jax.errors import UserError
from r1jax.sampling.sampler import Callbacks, Sampler, SamplerConfig
from r1jax.text.stops import Stops

__all__ = ["params"]  # a fixture

# Tokens of one, two and no characters; "<unk>" is dropped, like padding.
PIECES = ["", "", *"abcd", "ab", "bc", "a b", " ", "\n", "cd", "User", ":", "U"]
PIECES += [chr(0x4E00 + i) for i in range(V - len(PIECES))]


def decode(ids):
  return "".join(PIECES[i] for i in ids)


def first(tokens, strings, text_of=decode):
  """The definition: prefix by prefix."""
  for n in range(1, len(tokens) + 1):
    if any(s in text_of(list(tokens[:n])) for s in strings):
      return n
  return None


IDS = st.lists(st.integers(0, 14), max_size=60)
STRINGS = st.lists(st.text("abcdU: ", min_size=1, max_size=5), min_size=1)


@settings(max_examples=300, deadline=None)
@given(IDS, STRINGS, st.integers(1, 9))
def test_the_end_is_the_first_prefix_that_has_the_string(ids, strings, stride):
  """Found in one look, and looking every few tokens."""
  stops = Stops(strings, decode)
  want = first(ids, strings)
  assert stops.end(ids) == want
  found = None
  for n in range(0, len(ids) + stride, stride):
    found = stops.end(ids[: n + stride], min(n, len(ids)))
    if found is not None:
      break
  assert found == want
  text = decode(ids[:want])
  trimmed = stops.trim(text)
  assert text.startswith(trimmed) and not any(s in trimmed for s in strings)
  assert (trimmed == text) == (want is None)


def test_a_tokenizer_that_drops_the_first_space():
  """As SentencePiece does; a look in the middle must not lose one."""

  def text_of(ids):
    return "".join(f" {i}" for i in ids).lstrip(" ")

  ids = [*range(10, 99), 7, 8]
  stops = Stops([" 7 8"], text_of)
  for seen in range(89):
    assert stops.end(ids, seen) == 91


def test_characters_of_several_tokens():
  """Bytes that arrive one by one; what is incomplete is replaced."""

  def text_of(ids):
    return bytes(ids).decode(errors="replace")

  ids = list("等等 User: 对".encode())
  for strings in (["等等"], ["User:"], ["对"], ["r", "对"]):
    for seen in range(5):
      assert Stops(strings, text_of).end(ids, seen) == first(
        ids, strings, text_of
      )


def stopped(params, strings, **config):
  options = {"slots": 4, "max_new_tokens": T, "eos_id": 1, **config}
  end_of = Stops(strings, decode).end
  calls = {}

  def collect(ids, rows):
    for i, n, tokens in zip(ids, rows.lengths, rows.tokens):
      assert i not in calls
      calls[int(i)] = tokens[:n].tolist()

  r = sampled(
    params, prompts(), G, options | {"stop": tuple(strings)},
    callbacks=Callbacks(collect, end_of=end_of),
  )  # fmt: skip
  assert calls == {i: r.tokens[i, :n].tolist() for i, n in enumerate(r.lengths)}
  return r


STOP = ("ca", "b\n", PIECES[20] + "a", *PIECES[22:29:2])


@pytest.mark.parametrize(
  "config",
  [
    dict(stride=1),
    dict(stride=5, slots=7),
    dict(stride=64, tail_slots=(2, 1), chunk=4),
    dict(stride=3, slots=64, kv_dtype="compute"),
  ],
)
def test_a_completion_is_the_free_one_up_to_its_stop(params, config):
  """To the token, in any batch, with any stride and cache."""
  free = sampled(
    params, prompts(), G, {"slots": 4, "max_new_tokens": T, "eos_id": 1}
  )
  r = stopped(params, STOP, **config)
  cut = 0
  for i in range(N * G):
    n, ended = free.lengths[i], free.ended[i]
    end = first(free.tokens[i, :n], STOP)
    if end is not None:
      cut += end < n
      n, ended = end, True
    assert (r.lengths[i], r.ended[i]) == (n, ended)
    np.testing.assert_array_equal(r.tokens[i, :n], free.tokens[i, :n])
    np.testing.assert_allclose(
      r.logprobs[i, :n], free.logprobs[i, :n], atol=1e-5
    )
    assert not r.tokens[i, n:].any() and not r.logprobs[i, n:].any()
  assert 5 < cut < N * G - 5


def test_prompts_that_wait_take_the_freed_slots(params):
  """60 prompts in few places: what is cut frees its place as what ends."""
  rng = np.random.default_rng(1)
  texts = [rng.integers(2, V, n) for n in rng.integers(1, 30, 60)]
  config = {"slots": 6, "max_new_tokens": T, "eos_id": 1}
  free = sampled(params, texts, 2, config)
  r = sampled(
    params, texts, 2, config | dict(stop=STOP, stride=4),
    callbacks=Callbacks(end_of=Stops(STOP, decode).end),
  )  # fmt: skip
  for i, n in enumerate(free.lengths):
    want = first(free.tokens[i, :n], STOP) or n
    assert r.lengths[i] == want
    np.testing.assert_array_equal(r.tokens[i, :want], free.tokens[i, :want])


def test_text_that_nobody_reads_is_an_error(params):
  config = SamplerConfig(slots=4, max_new_tokens=T, stop=("a",))
  sampler = Sampler(MODEL, config, G)
  with pytest.raises(UserError, match=r"stop=\('a',\) needs the text of"):
    sampler.sample(None, prompts(), jax.random.key(0), indices=INDICES)
  assert dataclasses.replace(config, stop=["a"]) == config
  for wrong in ("a", ("",), (1,), ["a", None]):
    with pytest.raises(UserError, match="sampler: stop=.* must be strings"):
      SamplerConfig(slots=4, max_new_tokens=T, stop=wrong)
