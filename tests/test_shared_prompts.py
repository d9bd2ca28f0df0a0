"""A prompt that stands once means what a prompt for each completion means."""

import math

import jax
import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st
from test_model import random_params

from r1jax import losses
from r1jax.model import ModelConfig
from r1jax.training import learner, packing, policy

V, ROW = 32, 24
MODEL = ModelConfig(
  vocab_size=V, d_model=16, n_layers=2, n_heads=4, n_kv_heads=2, head_dim=8,
  d_ff=32, max_length=64,
)  # fmt: skip


def groups(seed, shapes):
  """For each (prompt, completions) of lengths its sequences."""
  rng = np.random.default_rng(seed)
  out = []
  for prompt, completions in shapes:
    question = rng.integers(1, V, prompt)
    for n in completions:
      blank = np.zeros(prompt)
      out.append(
        packing.Sequence(
          np.concatenate((question, rng.integers(1, V, n))),
          np.concatenate((blank, rng.uniform(0.5, 1.5, n))),
          rng.normal(),
          np.concatenate((blank, rng.normal(-3, 0.5, n))),
          prompt,
        )
      )
  total = sum(s.weights.sum() for s in out)
  out = [s._replace(weights=s.weights / total) for s in out]
  rng.shuffle(out)
  return out


@jax.jit
def loss_and_gradient(params, batch):
  def loss(p, micro):
    rows = policy.rows_of(micro)._replace(trained=None)
    lp, entropy = policy.logprobs(MODEL, p, rows)
    value, metrics = losses.grpo_loss(
      lp, micro.old_logprobs, micro.old_logprobs, micro.advantages,
      micro.weights, 0.2, 0.1,
    )  # fmt: skip
    return value, {**metrics, "entropy": (micro.weights * entropy).sum()}

  grads, metrics = learner.accumulate(loss, params, batch)
  return metrics, grads


def pack(sequences):
  # One shape for all, so that one compiled program serves them.
  return packing.pack(
    sequences, row_length=ROW, rows=2, micro_batches=8, shared=True
  )


shapes = st.lists(
  st.tuples(
    st.integers(1, 8), st.lists(st.integers(1, 9), min_size=1, max_size=5)
  ),
  min_size=1,
  max_size=3,
)


@settings(max_examples=25, deadline=None)
@given(shapes, st.integers(0, 99))
@example([(1, [1]), (2, [1])], 0)
def test_the_gradient_is_the_plain_one(shapes, seed):
  sequences = groups(seed, shapes)
  plain = pack([s._replace(prompt=0) for s in sequences])
  params = random_params(MODEL)
  jax.tree.map(
    lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-5),
    loss_and_gradient(params, pack(sequences)),
    loss_and_gradient(params, plain),
  )


def test_the_layout_of_a_group():
  """By hand: prompt 5 6 7, completions 8 9 and 4."""
  sequences = [
    packing.Sequence(
      np.array([5, 6, 7, *c]), np.array([0, 0, 0] + [0.25] * len(c)),
      a, np.array([0, 0, 0] + [-1.0] * len(c)), 3,
    )
    for c, a in (((8, 9), 2.0), ((4,), -1.0))
  ]  # fmt: skip
  row = packing.pack(
    sequences, row_length=6, rows=1, micro_batches=1, shared=True
  )
  got = {k: getattr(row, k)[0, 0].tolist() for k in row._fields[:8]}
  assert got == {
    "tokens": [5, 6, 7, 8, 7, 0],
    "positions": [0, 1, 2, 3, 2, 0],
    "segments": [1, 1, 2, 2, 3, 0],
    "prefixes": [0, 0, 1, 1, 1, 0],
    "targets": [0, 0, 8, 9, 4, 0],
    "weights": [0, 0, 0.25, 0.25, 0.25, 0],
    "advantages": [0, 0, 2.0, 2.0, -1.0, 0],
    "old_logprobs": [0, 0, -1.0, -1.0, -1.0, 0],
  }


def test_the_last_of_a_row_may_share_nothing():
  """A prompt of one token has nothing to share, wherever it stands."""
  for shapes in ([(1, [1]), (3, [1, 2])], [(3, [1, 2]), (1, [1])]):
    batch = pack(groups(0, shapes))
    # Of three tokens two are shared, before one and two others.
    assert (batch.prefixes > 0).sum() == 3


def test_equal_prompts_alone_are_shared():
  rng = np.random.default_rng(0)
  a, b = rng.integers(1, V, (2, 6))
  sequences = [
    packing.Sequence(np.append(p, 3), np.eye(7)[6], prompt=6)
    for p in (a, b, a, b, a)
  ]
  assert packing.bundles(sequences, ROW) == [[0, 2, 4], [1, 3]]
  # A row of 7 has room for 5 shared tokens and two completions.
  assert sorted(map(len, packing.bundles(sequences, 7))) == [1, 2, 2]


def test_a_sibling_changes_nothing():
  """Nor does another group; the prompt changes all of its completions."""
  sequences = groups(3, [(6, (4, 5)), (3, (3,))])
  batch = packing.pack(
    sequences, row_length=ROW, rows=1, micro_batches=1, shared=True
  )
  params = random_params(MODEL)

  @jax.jit
  def logprobs(batch):
    rows = policy.rows_of(
      jax.tree.map(lambda x: x[0], batch._replace(count=None))
    )
    return policy.logprobs(MODEL, params, rows._replace(trained=None))[0][0]

  want = np.asarray(logprobs(batch))
  segments, prefixes = batch.segments[0, 0], batch.prefixes[0, 0]
  for changed in range(1, segments.max() + 1):
    tokens = batch.tokens.copy()
    tokens[0, 0, segments == changed] = 1 + (
      tokens[0, 0, segments == changed] % (V - 1)
    )
    got = np.asarray(logprobs(batch._replace(tokens=tokens)))
    touched = (segments == changed) | (prefixes == changed)
    same = got == want
    assert same[(segments > 0) & ~touched].all()
    assert not same[touched].any()


@settings(max_examples=100, deadline=None)
@given(shapes, st.integers(1, 3))
def test_capacity_suffices(shapes, rows):
  sequences = groups(0, shapes)
  longest = max(len(s.tokens) for s in sequences)
  micro = packing.capacity(len(sequences), longest, ROW, rows, shared=True)
  batch = packing.pack(
    sequences, row_length=ROW, rows=rows, micro_batches=micro, shared=True
  )
  assert 1 <= batch.count <= micro
  trained = sum(int((s.weights > 0).sum()) for s in sequences)
  assert (batch.weights > 0).sum() == trained
  assert math.isclose(batch.weights.sum(), 1, rel_tol=1e-5)
