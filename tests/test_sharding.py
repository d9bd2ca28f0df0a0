"""A mesh of eight devices computes what one device does."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P
from test_model import random_params

from r1jax import learner, losses, optimizer, sharding
from r1jax.data import packing
from r1jax.errors import UserError
from r1jax.model import ModelConfig
from r1jax.optimizer import OptimizerConfig
from r1jax.phases import grpo
from r1jax.sampler import SamplerConfig, sample

MODEL = ModelConfig(
  vocab_size=32, d_model=16, n_layers=2, n_heads=4, n_kv_heads=2, head_dim=8,
  d_ff=32, max_length=64, tied=False, qkv_bias=True,
)  # fmt: skip
# A large epsilon: of a gradient near zero Adam's step is otherwise its sign.
OPTIMIZER = OptimizerConfig(eps=1e-3, weight_decay=0.1)
MESHES = [
  dict(data=8, fsdp=1, tensor=1),
  dict(data=1, fsdp=8, tensor=1),
  dict(data=2, fsdp=2, tensor=2),
]
NAMES = ["data8", "fsdp8", "all2"]


def one_device():
  return sharding.make_mesh(devices=jax.devices()[:1])


def make_batch():
  """Packed rows [2, 8, 12] with advantages and old log-probabilities."""
  rng = np.random.default_rng(0)
  sequences = []
  for n in rng.integers(3, 13, size=18):
    trained = np.arange(n) >= 2
    sequences.append(
      packing.Sequence(
        rng.integers(1, 32, n),
        trained / trained.sum() / 18,
        rng.normal(),
        trained * rng.normal(-3.4, 0.1, n),
      )
    )
  return packing.pack(sequences, row_length=12, rows=8, micro_batches=2)


def updated(mesh):
  """State and metrics after a GRPO step from the same random parameters."""
  params = random_params(MODEL)
  state = jax.device_put(
    optimizer.init_state(OPTIMIZER, params),
    learner.state_shardings(MODEL, OPTIMIZER, mesh),
  )
  reference = jax.tree.map(lambda x: 1.1 * x, params)
  reference = learner.place_params(reference, mesh)
  update = grpo.update_fn(MODEL, OPTIMIZER, mesh, losses.Variant())
  batch = learner.place(make_batch(), mesh)
  return update(state, batch, 1e-3, reference, 0.2, 0.1, 1.0)


@pytest.fixture(scope="module")
def alone():
  state, metrics = updated(one_device())
  assert metrics["grad_norm"] > 0.1 and metrics["kl"] > 1e-3
  return jax.tree.map(np.asarray, (state, metrics))


@pytest.mark.parametrize("sizes", MESHES, ids=NAMES)
def test_an_update_is_that_of_one_device(alone, sizes):
  mesh = sharding.make_mesh(**sizes)
  state, metrics = updated(mesh)
  jax.tree.map(
    lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5),
    (state, metrics),
    alone,
  )
  # And the state lives where the rules say, after the step too.
  where = learner.state_shardings(MODEL, OPTIMIZER, mesh)
  jax.tree.map(
    lambda x, s: s.is_equivalent_to(x.sharding, x.ndim) or pytest.fail(str(s)),
    state,
    where,
  )


SPECS = {
  "embed/embedding": P("tensor", "fsdp"),
  "layers/q/kernel": P(None, "fsdp", "tensor"),
  "layers/k/kernel": P(None, "fsdp", "tensor"),
  "layers/v/bias": P(None, "tensor"),
  "layers/o/kernel": P(None, "tensor", "fsdp"),
  "layers/gate/kernel": P(None, "fsdp", "tensor"),
  "layers/up/kernel": P(None, "fsdp", "tensor"),
  "layers/down/kernel": P(None, "tensor", "fsdp"),
  "layers/mlp_norm/scale": P(),
  "head/kernel": P("fsdp", "tensor"),
  "norm/scale": P(),
}


def test_moments_live_with_their_parameters():
  mesh = sharding.make_mesh(data=2, fsdp=2, tensor=2)
  state = learner.init_fn(MODEL, OPTIMIZER, mesh)(jax.random.key(0))
  leaves = jax.tree_util.tree_flatten_with_path(state)[0]
  leaves = {sharding.path_name(path): x for path, x in leaves}
  for name, spec in SPECS.items():
    same = [k for k in leaves if k.endswith(f"/{name}")]
    kinds = {k.removesuffix(f"/{name}").split("/")[-1] for k in same}
    assert kinds == {"params", "mu", "nu"}
    for k in same:
      x = leaves[k]
      want = jax.sharding.NamedSharding(mesh, spec)
      assert want.is_equivalent_to(x.sharding, x.ndim), k
      halves = [a for a in spec if a]
      assert x.addressable_shards[0].data.size * 2 ** len(halves) == x.size, k
  # No matrix was forgotten.
  for k, x in leaves.items():
    if x.ndim >= 2 and not k.endswith("scale"):
      assert not x.sharding.is_fully_replicated, k


def test_rules_take_the_first_match():
  mesh = sharding.make_mesh(data=2, fsdp=2, tensor=2)
  rules = ((r"a/b", P("fsdp")), (r"b", P("tensor")), (r".*", P()))
  assert sharding.spec_of("x/a/b", (4,), mesh, rules) == P("fsdp")
  assert sharding.spec_of("x/b", (4,), mesh, rules) == P("tensor")
  assert sharding.spec_of("x", (4,), mesh, rules) == P()


def test_axes_that_do_not_divide_are_left_out():
  mesh = sharding.make_mesh(data=2, fsdp=2, tensor=2)
  spec = P(("data", "fsdp"), "tensor")
  assert sharding.fit(spec, (8, 4), mesh) == spec
  assert sharding.fit(spec, (8, 3), mesh) == P(("data", "fsdp"), None)
  assert sharding.fit(spec, (6, 4), mesh) == P(None, "tensor")
  assert sharding.fit(spec, (8,), mesh) == P()


def test_meshes():
  assert dict(sharding.make_mesh(data=-1).shape) == dict(
    data=8, fsdp=1, tensor=1
  )
  assert dict(sharding.make_mesh(data=2, fsdp=-1, tensor=2).shape) == dict(
    data=2, fsdp=2, tensor=2
  )
  for sizes in (dict(data=3), dict(data=-1, tensor=3), dict(data=16, fsdp=-1),
                dict(data=-1, fsdp=-1), dict(data=-8, fsdp=-1),
                dict(data=0), dict(data=0, fsdp=-1)):  # fmt: skip
    with pytest.raises(UserError, match="does not cover 8 devices"):
      sharding.make_mesh(**sizes)


def test_a_batch_is_split_by_rows():
  mesh = sharding.make_mesh(data=2, fsdp=2, tensor=2)
  batch = make_batch()
  placed = learner.place(batch, mesh)
  assert placed.tokens.addressable_shards[0].data.shape == (2, 2, 12)
  assert placed.count.sharding.is_fully_replicated
  jax.tree.map(np.testing.assert_array_equal, placed, batch)


def test_sampling_is_that_of_one_device():
  tokens = np.random.default_rng(0).integers(2, 32, size=(4, 5))
  mask = np.arange(5)[None] < np.array([5, 1, 3, 4])[:, None]
  config = SamplerConfig(slots=8, max_new_tokens=8, eos_id=1, tail_slots=(3,))

  def draw(mesh):
    params = learner.place_params(random_params(MODEL), mesh)
    whole = sharding.replicated(mesh)
    return sample(
      MODEL, config, 4, mesh, params,
      *sharding.put((tokens.astype(np.int32), mask), whole), jnp.arange(16),
      jax.random.key(1), jnp.float32(1.0),
    )  # fmt: skip

  want, got = draw(one_device()), draw(sharding.make_mesh(**MESHES[2]))
  assert want.ended.any() and not want.ended.all()
  for name in ("tokens", "lengths", "ended"):
    np.testing.assert_array_equal(getattr(got, name), getattr(want, name))
  np.testing.assert_allclose(got.logprobs, want.logprobs, atol=1e-5)
