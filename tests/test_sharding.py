"""A mesh of eight devices computes what one device does."""

import dataclasses
import re

import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P
from test_model import random_params

from r1jax import meshes, sharding, variants
from r1jax.errors import UserError
from r1jax.model import ModelConfig
from r1jax.phases import grpo
from r1jax.sampling import pool
from r1jax.sampling.sampler import Sampler, SamplerConfig
from r1jax.training import learner, optimizer, packing
from r1jax.training.optimizer import OptimizerConfig

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
  return meshes.make_mesh(devices=jax.devices()[:1])


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
  update = grpo.update_fn(MODEL, OPTIMIZER, mesh)
  batch = learner.place(make_batch(), mesh)
  return update(state, batch, 1e-3, reference, variants.Loss(beta=0.1), 1.0)


@pytest.fixture(scope="module")
def alone():
  state, metrics = updated(one_device())
  assert metrics["grad_norm"] > 0.1 and metrics["kl"] > 1e-3
  return jax.tree.map(np.asarray, (state, metrics))


@pytest.mark.parametrize("sizes", MESHES, ids=NAMES)
def test_an_update_is_that_of_one_device(alone, sizes):
  mesh = meshes.make_mesh(**sizes)
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
  mesh = meshes.make_mesh(data=2, fsdp=2, tensor=2)
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
  mesh = meshes.make_mesh(data=2, fsdp=2, tensor=2)
  rules = ((r"a/b", P("fsdp")), (r"b", P("tensor")), (r".*", P()))
  assert sharding.spec_of("x/a/b", (4,), mesh, rules) == P("fsdp")
  assert sharding.spec_of("x/b", (4,), mesh, rules) == P("tensor")
  assert sharding.spec_of("x", (4,), mesh, rules) == P()


def test_axes_that_do_not_divide_are_left_out():
  mesh = meshes.make_mesh(data=2, fsdp=2, tensor=2)
  spec = P(("data", "fsdp"), "tensor")
  assert sharding.fit(spec, (8, 4), mesh) == spec
  assert sharding.fit(spec, (8, 3), mesh) == P(("data", "fsdp"), None)
  assert sharding.fit(spec, (6, 4), mesh) == P(None, "tensor")
  assert sharding.fit(spec, (8,), mesh) == P()


def test_meshes():
  assert dict(meshes.make_mesh(data=-1).shape) == dict(data=8, fsdp=1, tensor=1)
  assert dict(meshes.make_mesh(data=2, fsdp=-1, tensor=2).shape) == dict(
    data=2, fsdp=2, tensor=2
  )
  for sizes in (dict(data=3), dict(data=-1, tensor=3), dict(data=16, fsdp=-1),
                dict(data=-1, fsdp=-1), dict(data=-8, fsdp=-1),
                dict(data=0), dict(data=0, fsdp=-1)):  # fmt: skip
    with pytest.raises(UserError, match="does not cover 8 devices"):
      meshes.make_mesh(**sizes)


def test_a_batch_is_split_by_rows():
  mesh = meshes.make_mesh(data=2, fsdp=2, tensor=2)
  batch = make_batch()
  placed = learner.place(batch, mesh)
  assert placed.tokens.addressable_shards[0].data.shape == (2, 2, 12)
  assert placed.count.sharding.is_fully_replicated
  jax.tree.map(np.testing.assert_array_equal, placed, batch)


@pytest.mark.parametrize(
  "sizes, prompts, group, slots",
  [
    (MESHES[2], 4, 4, 8),
    # Fewer prompts than shards: their groups are split.
    (MESHES[0], 3, 8, 8),
    # More than the pool holds, in slots that are rounded up to 16.
    (MESHES[0], 60, 2, 10),
  ],
)
def test_sampling_is_that_of_one_device(sizes, prompts, group, slots):
  rng = np.random.default_rng(0)
  tokens = rng.integers(2, 32, size=(prompts, 5))
  texts = [x[:n] for x, n in zip(tokens, rng.integers(1, 6, size=prompts))]
  config = SamplerConfig(
    slots=slots, max_new_tokens=8, eos_id=1, tail_slots=(3,)
  )

  def draw(mesh):
    params = learner.place_params(random_params(MODEL), mesh)
    sampler = Sampler(MODEL, config, group, mesh)
    return sampler.sample(sampler.load(params), texts, jax.random.key(1))

  want, got = draw(one_device()), draw(meshes.make_mesh(**sizes))
  assert want.ended.any() and not want.ended.all()
  for name in ("tokens", "lengths", "ended"):
    np.testing.assert_array_equal(getattr(got, name), getattr(want, name))
  np.testing.assert_allclose(got.logprobs, want.logprobs, atol=1e-5)


def test_a_slot_reads_what_lies_on_its_own_device():
  """A step has no more exchanges between devices for four layers than for one.

  Where the parameters are whole on every device: what a shard's slots read,
  prompts and their own tokens, is the shard's.
  """

  def exchanges(layers):
    model = dataclasses.replace(MODEL, n_layers=layers)
    mesh = meshes.make_mesh(**MESHES[0])
    config = SamplerConfig(slots=16, max_new_tokens=8, eos_id=1, chunk=4)
    lowered = Sampler(model, config, 2, mesh).lower(prompts=24, width=4)
    program = lowered.advance.compile()
    kinds = "all-gather|all-reduce|all-to-all|collective-permute"
    return len(re.findall(rf" (?:{kinds})(?:-start)?\(", program.as_text()))

  assert exchanges(4) == exchanges(1) > 0


@pytest.mark.parametrize(
  "prompts, group, shards, parts",
  [(5, 16, 1, 1), (16, 8, 8, 1), (12, 8, 8, 2), (1, 64, 8, 8), (3, 8, 8, 8),
   (3, 5, 4, 5), (33, 8, 8, 1), (1, 1, 8, 1)],
)  # fmt: skip
def test_groups_are_split_for_few_prompts(prompts, group, shards, parts):
  config = SamplerConfig(slots=1, max_new_tokens=1, eos_id=1)
  mesh = meshes.make_mesh(data=shards, devices=jax.devices()[:shards])
  assert Sampler(MODEL, config, group, mesh).split(prompts) == parts


def test_each_prompt_waits_where_it_lies():
  """100 prompts, done in some order: each in one queue, no shard far ahead."""
  mesh = meshes.make_mesh(**MESHES[0])
  config = SamplerConfig(slots=16, max_new_tokens=8, eos_id=1)
  params = learner.place_params(random_params(MODEL), mesh)
  texts = [np.arange(1, 5)] * 100
  places = pool.Places(Sampler(MODEL, config, 2, mesh), params, texts)
  finished = np.zeros(200, bool)
  rng, before = np.random.default_rng(0), [0] * 8
  while not finished.all():
    places.fill()
    book = places.book
    queues = [
      queue[: n // 2].tolist() for queue, n in zip(book.queues, book.filled)
    ]
    loaded = sum(queues, [])
    assert sorted(loaded) == list(range(len(loaded)))
    for shard, queue in enumerate(queues):
      assert (places.shards(queue) == shard).all()
    left = [sum(not finished[2 * n] for n in queue) for queue in queues]
    got = [r for r, queue in enumerate(queues) if len(queue) > before[r]]
    room = [r for r in range(8) if left[r] < 5]  # of 40 places in all
    assert all(left[a] <= left[b] + 1 for a in got for b in room)
    before = [len(queue) for queue in queues]
    busy = [n for n in loaded if not finished[2 * n]]
    assert len(set(book.places[busy])) == len(busy)
    for n in rng.choice(busy, min(len(busy), 9), replace=False):
      finished[2 * n : 2 * n + 2] = True
    places.release(finished)
