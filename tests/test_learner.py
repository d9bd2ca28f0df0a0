"""One optimiser step: the same however it is cut, packed or spread."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from r1jax import learner, losses, sharding
from r1jax import optimizer as optim
from r1jax.data import packing
from r1jax.errors import UserError
from r1jax.model import ModelConfig
from r1jax.phases import grpo, sft
from r1jax.sampler import SamplerConfig, sample
from r1jax.types import Batch

MODEL = ModelConfig(
  vocab_size=32, d_model=16, n_layers=2, n_heads=4, n_kv_heads=2, head_dim=8,
  d_ff=32, max_length=64,
)  # fmt: skip
ADAM = optim.OptimizerConfig()
MESHES = {
  "data": dict(data=8),
  "fsdp": dict(fsdp=8),
  "all": dict(data=2, fsdp=2, tensor=2),
}


def one_device():
  return sharding.make_mesh(devices=jax.devices()[:1])


def sequences(count=16, seed=0):
  rng = np.random.default_rng(seed)
  lengths = rng.integers(3, 12, count)
  mask = np.arange(12)[None] < lengths[:, None] - 2
  weights = np.asarray(losses.sequence_mean(mask))
  made = []
  for n, w in zip(lengths, weights):
    w = np.concatenate((np.zeros(2, np.float32), w[: n - 2]))
    made.append(
      packing.Sequence(
        rng.integers(2, 32, n), w, rng.normal(), -3 + 0.3 * rng.normal(size=n)
      )
    )
  return made


def pack(made, row_length=24, rows=8, micro_batches=2):
  return packing.pack(
    made, row_length=row_length, rows=rows, micro_batches=micro_batches
  )


def state_of(mesh):
  return learner.new_state(MODEL, ADAM, mesh, None, jax.random.key(0))


def rl_step(mesh, batch):
  state = state_of(mesh)
  reference = grpo.copy(state.params)
  reference = jax.tree.map(lambda x: x * 1.01, reference)
  update = grpo.update_fn(MODEL, ADAM, mesh)
  state, metrics = update(
    state, learner.place(batch, mesh), 1e-2, reference, 0.2, 0.1, 1.0
  )
  return jax.device_get((state, metrics))


@pytest.fixture(scope="module")
def plain():
  """One sequence a row, one micro-batch, one device."""
  made = sequences()
  batch = pack(made, row_length=12, rows=16, micro_batches=1)
  # One row each: packing into rows of 12 could still share one.
  rows = [pack([s], row_length=12, rows=1, micro_batches=1) for s in made]
  leaves = [np.concatenate(x, axis=1) for x in zip(*(r[:-1] for r in rows))]
  return rl_step(one_device(), Batch(*leaves, count=batch.count))


def gradients_of(result):
  """Adam's first moment after one step: 0.1 of the clipped gradient."""
  return jax.tree.leaves(result[0].opt_state[1].mu)


def assert_same(result, plain):
  for name in ("loss", "kl", "clip_fraction", "entropy", "grad_norm"):
    np.testing.assert_allclose(
      result[1][name], plain[1][name], rtol=1e-5, atol=1e-6
    )
  for a, b in zip(gradients_of(result), gradients_of(plain)):
    np.testing.assert_allclose(a, b, atol=1e-6)


@pytest.mark.parametrize(
  ("row_length", "rows", "micro_batches"),
  [(24, 8, 2), (24, 2, 4), (36, 1, 8), (60, 8, 1)],
)
def test_packing_and_accumulation_change_nothing(
  plain, row_length, rows, micro_batches
):
  batch = pack(sequences(), row_length, rows, micro_batches)
  assert_same(rl_step(one_device(), batch), plain)


@pytest.mark.parametrize("axes", MESHES)
def test_devices_change_nothing(plain, axes):
  mesh = sharding.make_mesh(**MESHES[axes])
  assert_same(rl_step(mesh, pack(sequences())), plain)


def test_a_neighbour_changes_nothing():
  made = sequences(6)
  silent = made[0]._replace(weights=made[0].weights * 0)
  other = silent._replace(tokens=(silent.tokens * 7 + 3) % 30 + 2)
  results = [
    rl_step(one_device(), pack([x, *made[1:]], 64, 1, 1))
    for x in (silent, other)
  ]
  for a, b in zip(gradients_of(results[0]), gradients_of(results[1])):
    np.testing.assert_array_equal(a, b)


def test_only_filled_micro_batches_are_visited():
  batch = pack(sequences(), 24, 2, 8)
  assert batch.count < 8
  poisoned = batch._replace(
    weights=np.where(
      np.arange(8)[:, None, None] < batch.count, batch.weights, np.nan
    )
  )
  result = rl_step(one_device(), poisoned)
  assert np.isfinite(result[1]["loss"])


def test_the_whole_state_is_placed_by_the_rules():
  mesh = sharding.make_mesh(data=2, fsdp=2, tensor=2)
  state = state_of(mesh)
  adam = state.opt_state[1]
  for tree in (state.params, adam.mu, adam.nu):
    q = tree["layers"]["q"]["kernel"].sharding.spec
    assert q == jax.sharding.PartitionSpec(None, "fsdp", "tensor")
    o = tree["layers"]["o"]["kernel"].sharding.spec
    assert o == jax.sharding.PartitionSpec(None, "tensor", "fsdp")
    e = tree["embed"]["embedding"].sharding.spec
    assert e == jax.sharding.PartitionSpec("tensor", "fsdp")
  assert adam.count.sharding.is_fully_replicated


def test_the_sampler_draws_the_same_on_eight_devices():
  rng = np.random.default_rng(0)
  prompts = rng.integers(2, 32, (8, 4)).astype(np.int32)
  config = SamplerConfig(slots=16, max_new_tokens=10, eos_id=1)

  def draw(mesh):
    return jax.device_get(
      sample(
        MODEL, config, 4, mesh, state_of(mesh).params, prompts,
        np.ones((8, 4), bool), jnp.arange(32), jax.random.key(1),
        jnp.float32(1.0),
      )
    )  # fmt: skip

  one, many = draw(one_device()), draw(sharding.make_mesh(**MESHES["all"]))
  np.testing.assert_array_equal(one.tokens, many.tokens)
  np.testing.assert_allclose(one.logprobs, many.logprobs, atol=1e-5)


def test_sft_loss_is_the_mean_over_tokens():
  mesh = one_device()
  state = state_of(mesh)
  made = [s._replace(weights=s.weights * 0 + 1 / 50) for s in sequences(4)]
  update = sft.update_fn(MODEL, ADAM, mesh)
  _, metrics = update(state, learner.place(pack(made), mesh), 1e-3)
  count = sum(len(s.tokens) - 1 for s in made)
  # At random initialisation every token costs about log V nats.
  expected = count / 50 * np.log(32)
  assert abs(float(metrics["loss"]) - expected) < 0.25 * expected


def test_a_mesh_that_does_not_cover_the_devices():
  with pytest.raises(UserError, match="does not cover 8 devices"):
    sharding.make_mesh(data=3)


def test_best_fit_and_capacity():
  rng = np.random.default_rng(0)
  for _ in range(50):
    lengths = rng.integers(1, 20, 40)
    rows = packing.best_fit(list(lengths), 24)
    assert sorted(i for row in rows for i in row) == list(range(40))
    assert all(sum(lengths[i] for i in row) <= 24 for row in rows)
    assert len(rows) <= 4 * packing.capacity(40, 20, 24, 4)


def test_a_sequence_longer_than_a_row():
  long = packing.Sequence(np.arange(30), np.ones(30))
  with pytest.raises(UserError, match="30 tokens does not fit"):
    pack([long])
