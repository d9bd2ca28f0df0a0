"""Packed rows mean what one sequence a row means."""

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_model import random_params

from r1jax import losses
from r1jax.errors import UserError
from r1jax.model import ModelConfig
from r1jax.training import learner, packing, policy

V = 32
MODEL = ModelConfig(
  vocab_size=V, d_model=16, n_layers=2, n_heads=4, n_kv_heads=2, head_dim=8,
  d_ff=32, max_length=64,
)  # fmt: skip
LENGTHS = (7, 3, 12, 2, 9, 5, 4, 6)


def make_sequences(seed=0, lengths=LENGTHS):
  """Random sequences with a prompt of a third; their weights sum to one."""
  rng = np.random.default_rng(seed)
  out = []
  for n in lengths:
    trained = np.arange(n) >= max(1, n // 3)
    weights = trained * rng.uniform(0.5, 1.5, n)
    out.append(
      packing.Sequence(
        tokens=rng.integers(1, V, n),
        weights=weights,
        advantage=rng.normal(),
        old_logprobs=trained * rng.normal(-3, 0.5, n),
      )
    )
  total = sum(s.weights.sum() for s in out)
  return [s._replace(weights=s.weights / total) for s in out]


@pytest.fixture(scope="module")
def params():
  return random_params(MODEL)


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


def close(got, want, atol=1e-6):
  jax.tree.map(
    lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=atol),
    got,
    want,
  )


def spread(sequences, *, row_length, pad_id=0):
  """Packs to [4, 2, 16], so that one compiled program serves all tests."""
  batch = packing.pack(
    sequences, row_length=row_length, rows=2, micro_batches=4, pad_id=pad_id
  )
  widths = ((0, 0), (0, 0), (0, 16 - row_length))
  leaves = jax.tree.map(lambda x: np.pad(x, widths), batch[:-1])
  return type(batch)(*leaves, batch.count)


def alone(sequences):
  """The same shape with one sequence in each of the 8 rows."""
  rows = [
    packing.pack([s], row_length=16, rows=1, micro_batches=1) for s in sequences
  ]
  leaves = jax.tree.map(
    lambda *x: np.concatenate(x).reshape(4, 2, 16), *(r[:-1] for r in rows)
  )
  return type(rows[0])(*leaves, np.int32(4))


def test_packed_rows_equal_one_sequence_a_row(params):
  sequences = make_sequences()
  want = loss_and_gradient(params, alone(sequences))
  assert np.abs(jax.tree.leaves(want[1])[0]).max() > 1e-3
  # 40 tokens in three rows of 16, hence in two micro-batches of two.
  batch = spread(sequences, row_length=16)
  assert batch.segments.max() > 1 and batch.count == 2
  close(loss_and_gradient(params, batch), want)
  # The same in other company, between more padding, with another pad token.
  other = spread(sequences[::-1], row_length=13, pad_id=5)
  assert not np.array_equal(other.segments, batch.segments)
  close(loss_and_gradient(params, other), want)


def test_what_padding_holds_does_not_matter(params):
  batch = spread(make_sequences(), row_length=16)
  want = loss_and_gradient(params, batch)
  rng = np.random.default_rng(1)
  empty = batch.segments == 0
  assert empty.any()
  noise = {
    "tokens": rng.integers(V, size=empty.shape),
    "targets": rng.integers(V, size=empty.shape),
    "positions": rng.integers(16, size=empty.shape),
  }
  changed = batch._replace(
    **{k: np.where(empty, v, getattr(batch, k)) for k, v in noise.items()}
  )
  close(loss_and_gradient(params, changed), want)


@jax.jit
def row_logprobs(params, batch):
  rows = policy.Rows(
    batch.tokens[0], batch.positions[0], batch.segments[0], batch.targets[0]
  )
  return policy.logprobs(MODEL, params, rows)


def test_a_neighbour_changes_nothing(params):
  batch = packing.pack(make_sequences(), row_length=40, rows=1, micro_batches=1)
  segments = batch.segments[0, 0]
  before = row_logprobs(params, batch)
  assert segments.max() >= 4
  rng = np.random.default_rng(2)
  for neighbour in range(1, segments.max() + 1):
    inside = batch.segments == neighbour
    noise = rng.integers(V, size=inside.shape)
    after = row_logprobs(
      params,
      batch._replace(
        tokens=np.where(inside, noise, batch.tokens),
        targets=np.where(inside, noise, batch.targets),
      ),
    )
    for x, y in zip(after, before):
      x, y = np.asarray(x)[0], np.asarray(y)[0]
      others = (segments != neighbour) & (segments > 0)
      np.testing.assert_allclose(x[others], y[others], atol=1e-6)
      if inside.sum() > 2:
        assert np.abs(x - y)[segments == neighbour].max() > 1e-3


def test_a_batch_by_hand():
  sequences = [
    packing.Sequence(
      np.array([4, 5, 6]),
      np.array([0, 0.25, 0.5]),
      2.0,
      np.array([0.0, -1.0, -2.0]),
    ),
    packing.Sequence(np.array([7, 8]), np.array([0, 0.25]), -1.0),
  ]
  b = packing.pack(sequences, row_length=4, rows=2, micro_batches=2, pad_id=9)
  assert b.tokens.shape == (2, 2, 4) and b.count == 1
  np.testing.assert_array_equal(b.tokens[0], [[4, 5, 7, 9], [9] * 4])
  np.testing.assert_array_equal(b.targets[0, 0], [5, 6, 8, 9])
  np.testing.assert_array_equal(b.positions[0, 0], [0, 1, 0, 0])
  np.testing.assert_array_equal(b.segments[0, 0], [1, 1, 2, 0])
  np.testing.assert_array_equal(b.weights[0, 0], [0.25, 0.5, 0.25, 0])
  np.testing.assert_array_equal(b.advantages[0, 0], [2, 2, -1, 0])
  np.testing.assert_array_equal(b.old_logprobs[0, 0], [-1, -2, 0, 0])
  assert not b.segments[1].any() and not b.segments[0, 1].any()


ROW = 20
SIZES = st.lists(st.integers(1, ROW), max_size=40)


@settings(max_examples=200, deadline=None)
@given(SIZES)
def test_best_fit_places_each_once_and_never_overfills(lengths):
  rows = packing.best_fit(lengths, ROW)
  assert sorted(i for row in rows for i in row) == list(range(len(lengths)))
  for row in rows:
    assert row and sum(lengths[i] for i in row) <= ROW
  # No two rows could be one: an open row that fits is always taken.
  fills = sorted(sum(lengths[i] for i in row) for row in rows)
  assert len(fills) < 2 or fills[0] + fills[1] > ROW


def test_best_fit_prefers_the_tightest_row():
  # Rows with 8 and 4 free: the 4 goes where it leaves nothing.
  rows = packing.best_fit([16, 12, 4, 8], ROW)
  assert sorted(map(sorted, rows)) == [[0, 2], [1, 3]]


@settings(max_examples=100, deadline=None)
@given(
  st.integers(1, 40), st.integers(2, ROW + 1), st.integers(1, 5), st.data()
)
def test_capacity_suffices(count, longest, rows, data):
  lengths = data.draw(
    st.one_of(
      st.just([longest] * count),  # the worst case of all
      st.lists(st.integers(2, longest), min_size=count, max_size=count),
    )
  )
  micro = packing.capacity(count, longest, ROW, rows)
  sequences = [packing.Sequence(np.full(n, 3), np.ones(n)) for n in lengths]
  batch = packing.pack(
    sequences, row_length=ROW, rows=rows, micro_batches=micro
  )
  assert 1 <= batch.count <= micro
  assert micro & (micro - 1) == 0
  assert (batch.segments > 0).sum() == sum(lengths) - count
  assert not batch.segments[int(batch.count) :].any()
  # Every micro-batch in use holds something.
  assert batch.segments[: int(batch.count)].any(axis=(1, 2)).all()


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(2, ROW + 1), min_size=1, max_size=20))
def test_sequences_can_be_read_back(lengths):
  rng = np.random.default_rng(len(lengths))
  sequences = [
    packing.Sequence(rng.integers(1, 1000, n), rng.random(n), float(i))
    for i, n in enumerate(lengths)
  ]
  batch = packing.pack(
    sequences, row_length=ROW, rows=3, micro_batches=len(lengths)
  )
  found = {}
  for row in np.ndindex(batch.tokens.shape[:2]):
    for segment in range(1, batch.segments[row].max() + 1):
      at = batch.segments[row] == segment
      (i,) = set(batch.advantages[row][at])
      s = sequences[int(i)]
      found[i] = True
      np.testing.assert_array_equal(batch.tokens[row][at], s.tokens[:-1])
      np.testing.assert_array_equal(batch.targets[row][at], s.tokens[1:])
      np.testing.assert_allclose(batch.weights[row][at], s.weights[1:])
      np.testing.assert_array_equal(
        batch.positions[row][at], np.arange(len(s.tokens) - 1)
      )
  assert len(found) == len(lengths)


def test_too_long_a_sequence_is_named():
  sequence = packing.Sequence(np.zeros(6, int), np.zeros(6))
  with pytest.raises(UserError, match="6 tokens.*row_length=4"):
    packing.pack([sequence], row_length=4, rows=1, micro_batches=1)


def test_weights_survive_packing():
  batch = spread(make_sequences(), row_length=16)
  np.testing.assert_allclose(batch.weights.sum(), 1, rtol=1e-6)
  assert (batch.weights[batch.segments == 0] == 0).all()
