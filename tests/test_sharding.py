"""A mesh of eight devices computes what one device does."""

import dataclasses
import re

import flax.linen as nn
import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P
from test_model import random_params

from r1jax import meshes, sharding, variants
from r1jax import model as model_lib
from r1jax.errors import UserError
from r1jax.model import ModelConfig
from r1jax.model.facts import named
from r1jax.phases import grpo_update
from r1jax.sampling import pool
from r1jax.sampling.sampler import Sampler, SamplerConfig
from r1jax.training import learner, packing
from r1jax.training import state as state_lib
from r1jax.training.optimizer import OptimizerConfig
from r1jax.types import TrainState

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
  start = TrainState(None, params, None)
  state = state_lib.new_state(MODEL, OPTIMIZER, mesh, start, None)
  reference = jax.tree.map(lambda x: 1.1 * x, params)
  reference = model_lib.place(MODEL, reference, mesh)
  update = grpo_update.update_fn(MODEL, OPTIMIZER, mesh)
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
  where = state_lib.shardings(MODEL, OPTIMIZER, mesh)
  jax.tree.map(
    lambda x, s: s.is_equivalent_to(x.sharding, x.ndim) or pytest.fail(str(s)),
    state,
    where,
  )


# By hand, a row for every parameter of any model.
SPECS = {
  "embed/embedding": P("tensor", "fsdp"),
  "layers/attention_norm/scale": P(None, None),
  "layers/q/kernel": P(None, "fsdp", "tensor"),
  "layers/q/bias": P(None, "tensor"),
  "layers/q/lora_a": P(None, "fsdp", None),
  "layers/q/lora_b": P(None, None, "tensor"),
  "layers/k/kernel": P(None, "fsdp", "tensor"),
  "layers/k/bias": P(None, "tensor"),
  "layers/k/lora_a": P(None, "fsdp", None),
  "layers/k/lora_b": P(None, None, "tensor"),
  "layers/v/kernel": P(None, "fsdp", "tensor"),
  "layers/v/bias": P(None, "tensor"),
  "layers/v/lora_a": P(None, "fsdp", None),
  "layers/v/lora_b": P(None, None, "tensor"),
  "layers/q_norm/scale": P(None, None),
  "layers/k_norm/scale": P(None, None),
  "layers/o/kernel": P(None, "tensor", "fsdp"),
  "layers/o/lora_a": P(None, "tensor", None),
  "layers/o/lora_b": P(None, None, "fsdp"),
  "layers/mlp_norm/scale": P(None, None),
  "layers/gate/kernel": P(None, "fsdp", "tensor"),
  "layers/gate/lora_a": P(None, "fsdp", None),
  "layers/gate/lora_b": P(None, None, "tensor"),
  "layers/up/kernel": P(None, "fsdp", "tensor"),
  "layers/up/lora_a": P(None, "fsdp", None),
  "layers/up/lora_b": P(None, None, "tensor"),
  "layers/down/kernel": P(None, "tensor", "fsdp"),
  "layers/down/lora_a": P(None, "tensor", None),
  "layers/down/lora_b": P(None, None, "fsdp"),
  "norm/scale": P(None),
  "head/kernel": P("fsdp", "tensor"),
}


def by_name(tree):
  """Path of a leaf -> leaf."""
  leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
  return {sharding.path_name(path): x for path, x in leaves}


def test_where_each_parameter_lives():
  model = dataclasses.replace(MODEL, qk_norm=True, lora_rank=2)
  mesh = meshes.make_mesh(data=2, fsdp=2, tensor=2)
  found = by_name(model_lib.shardings(model, mesh))
  assert {k: s.spec for k, s in found.items()} == SPECS
  assert {s.mesh for s in found.values()} == {mesh.grid}


def test_moments_live_with_their_parameters():
  mesh = meshes.make_mesh(data=2, fsdp=2, tensor=2)
  state = state_lib.random_fn(MODEL, OPTIMIZER, mesh)(jax.random.key(0))
  leaves = by_name(state)
  for name in by_name(state.params):
    spec = SPECS[name]
    same = [k for k in leaves if k.endswith(f"/{name}")]
    kinds = {k.removesuffix(f"/{name}").split("/")[-1] for k in same}
    assert kinds == {"params", "mu", "nu"}
    for k in same:
      x = leaves[k]
      want = jax.sharding.NamedSharding(mesh.grid, spec)
      assert want.is_equivalent_to(x.sharding, x.ndim), k
      halves = [a for a in spec if a]
      assert x.addressable_shards[0].data.size * 2 ** len(halves) == x.size, k


def spec(names, shape, units=None, **fields):
  """Of a parameter on a mesh of eight devices."""
  mesh = meshes.make_mesh(**fields)
  return sharding.parameter("p", names, shape, mesh, units).spec


def test_a_config_changes_rows_of_the_axis_table():
  experts = ("layer", "expert", "embed", "mlp"), (3, 8, 4, 6)
  assert spec(*experts, fsdp=4, tensor=2) == P(None, None, "fsdp", "tensor")
  changed = dict(expert="tensor", mlp=None, embed=None)
  assert spec(*experts, fsdp=4, tensor=2, axes=changed) == P(
    None, "tensor", None, None
  )
  # Three heads of four dimensions are twelve columns, which stay whole.
  heads = ("embed", "kv_heads"), (8, 12), (1, 4)
  assert spec(*heads, tensor=2, axes=dict(kv_heads=None)) == P("fsdp", None)
  assert spec(*heads, tensor=-1, data=8) == P("fsdp", "tensor")
  # Of what has one entry, as the scale of a row's moments, nothing is split.
  assert spec(("embed", "mlp"), (8, 1), tensor=8) == P("fsdp", None)


@pytest.mark.parametrize(
  "axes, shape, units, fields, message",
  [
    (
      ("embed", "mlp"), (8, 20), None, dict(tensor=8),
      'tensor=8 does not divide 20, the size of the axis "mlp" of the parameter'
      " p; choose another tensor, or set mesh.axes.mlp=None to keep the axis",
    ),
    (
      ("embed", "kv_heads"), (8, 32), (1, 8), dict(tensor=8),
      'tensor=8 does not divide 4, the size of the axis "kv_heads" of the',
    ),
    (
      ("embd",), (8,), None, {},
      'the axis table has no row for "embd" of the parameter p; known: vocab,',
    ),
    (
      ("expert", "mlp"), (8, 8), None, dict(axes=dict(expert="tensor")),
      r"tensor would split two axes of the parameter p \(expert, mlp\)",
    ),
    (
      ("embed",), (8, 8), None, {},
      r"the parameter p has 2 dimensions and names 1 axes \(embed\)",
    ),
  ],
)  # fmt: skip
def test_what_a_mesh_does_not_fit_is_named(axes, shape, units, fields, message):
  with pytest.raises(UserError, match=message) as e:
    spec(axes, shape, units, **fields)
  assert "\n" not in str(e.value)


@pytest.mark.parametrize(
  "change, fields, message",
  [
    (
      dict(n_heads=6),
      dict(tensor=4, axes=dict(kv_heads=None)),
      '6, the size of the axis "heads" of the parameter layers/o/kernel',
    ),
    (dict(n_heads=8), dict(tensor=8), '2, .* "kv_heads" .* layers/k/bias'),
    (dict(vocab_size=31), dict(tensor=2), '31, .* "vocab" .* embed/embedding'),
    (dict(d_model=12), dict(fsdp=8), '12, .* "embed" .* embed/embedding'),
    (dict(d_ff=30, n_heads=8, n_kv_heads=4), dict(tensor=4), '30, .* "mlp"'),
  ],
)
def test_a_model_that_a_mesh_does_not_divide(change, fields, message):
  model = dataclasses.replace(MODEL, **change)
  with pytest.raises(UserError, match=message):
    model_lib.shardings(model, meshes.make_mesh(**fields))


class Toy(nn.Module):
  """A product whose weight names its axes only where it is told to."""

  named: bool

  @nn.compact
  def __call__(self, tokens):
    init = nn.initializers.ones
    if self.named:
      init = named(init, ("vocab", "embed"), "table")
    table = self.param("table", init, (32, 4))
    return table[tokens] @ self.param("w", nn.initializers.ones, (4, 4))


@pytest.mark.parametrize("name, leaf", [(False, "table"), (True, "w")])
def test_a_parameter_without_axes_is_named(name, leaf):
  with pytest.raises(UserError, match=f"the parameter {leaf} .* names no axes"):
    model_lib.facts_of(Toy(name))


def test_activations_are_whole_where_axes_do_not_divide():
  mesh = meshes.make_mesh(data=2, fsdp=2, tensor=2)
  spec = P(("data", "fsdp"), "tensor")
  assert sharding.fit(spec, (8, 4), mesh) == spec
  assert sharding.fit(spec, (8, 3), mesh) == P(("data", "fsdp"), None)
  assert sharding.fit(spec, (6, 4), mesh) == P(None, "tensor")
  assert sharding.fit(spec, (8,), mesh) == P()


def test_meshes():
  def sizes(**fields):
    return tuple(meshes.make_mesh(**fields).shape.values())

  assert sizes() == sizes(data=-1) == (8, 1, 1)
  assert sizes(data=2, fsdp=-1, tensor=2) == (2, 2, 2)
  assert sizes(tensor=2) == (4, 1, 2)
  assert sizes(fsdp=-1) == sizes(fsdp=8) == (1, 8, 1)
  for wrong in (dict(data=3), dict(data=-1, tensor=3), dict(data=16, fsdp=-1),
                dict(data=-1, fsdp=-1), dict(tensor=3)):  # fmt: skip
    with pytest.raises(UserError, match="does not cover 8 devices"):
      meshes.make_mesh(**wrong)


@pytest.mark.parametrize(
  "fields, message",
  [
    (dict(data=0), "data=0 must be a number of devices, 1 or more"),
    (dict(fsdp=-8), "fsdp=-8 must be a number of devices"),
    (dict(tensor="2"), 'tensor="2" must be a whole number'),
    (dict(tensor=True), "tensor=True must be a whole number"),
    (dict(fsdp=None), "fsdp=None must be a whole number"),
    (dict(axes="embed"), 'axes="embed" must be a dict'),
    (dict(axes=dict(embd=None)), "axes.embd: .* known: vocab, embed,"),
    (dict(axes=dict(embed="rows")), 'axes.embed="rows" is no axis of the mesh'),
  ],
)
def test_wrong_meshes_are_named(fields, message):
  with pytest.raises(UserError, match=message):
    meshes.MeshConfig(**fields)


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
    params = model_lib.place(MODEL, random_params(MODEL), mesh)
    sampler = Sampler(MODEL, config, group, mesh)
    return sampler.sample(sampler.load(params), texts, jax.random.key(1))

  want, got = draw(one_device()), draw(meshes.make_mesh(**sizes))
  assert want.ended.any() and not want.ended.all()
  for name in ("tokens", "lengths", "ended"):
    np.testing.assert_array_equal(getattr(got, name), getattr(want, name))
  np.testing.assert_allclose(got.logprobs, want.logprobs, atol=1e-5)


def test_shapes_say_where_the_weights_lie():
  """By the axis table, also where `load` has swapped a matrix's axes."""
  mesh = meshes.make_mesh(**MESHES[2])
  config = SamplerConfig(slots=8, max_new_tokens=8, eos_id=1)
  sampler = Sampler(MODEL, config, 2, mesh)
  params = model_lib.place(MODEL, random_params(MODEL), mesh)
  got = sampler.load(params).weights
  want = sampler.shapes(prompts=4, width=5).advance[0].weights

  def compare(x, shape):
    assert (x.shape, x.dtype) == (shape.shape, shape.dtype)
    assert x.sharding.is_equivalent_to(shape.sharding, x.ndim)

  jax.tree.map(compare, got, want)
  up = got.layers[0]["up"]["kernel"]
  assert up.sharding.spec == P("tensor", "fsdp") and up.shape == (32, 16)


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
  static, count = Sampler(MODEL, config, group, mesh).divided(prompts)
  assert (count, static.group) == (parts * prompts, group // parts)


def test_each_prompt_waits_where_it_lies():
  """100 prompts, done in some order: each in one queue, no shard far ahead."""
  mesh = meshes.make_mesh(**MESHES[0])
  config = SamplerConfig(slots=16, max_new_tokens=8, eos_id=1)
  params = model_lib.place(MODEL, random_params(MODEL), mesh)
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
