"""Accumulation is exact, and a step changes what it should and no more."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from test_model import random_params

from r1jax import losses, meshes, sharding
from r1jax.errors import UserError
from r1jax.model import Decoder, ModelConfig
from r1jax.model.facts import named
from r1jax.run import checkpoint
from r1jax.training import learner, optimizer, packing, policy
from r1jax.training import state as state_lib
from r1jax.training.optimizer import OptimizerConfig
from r1jax.types import Batch, TrainState

MODEL = ModelConfig(
  vocab_size=32, d_model=16, n_layers=2, n_heads=4, n_kv_heads=2, head_dim=8,
  d_ff=32, max_length=64,
)  # fmt: skip
OPTIMIZER = OptimizerConfig()
FACTS = state_lib.gradient_facts(MODEL)


def make_batch(micro_batches=4):
  """Rows of very different filling: means of means would differ."""
  rng = np.random.default_rng(0)
  lengths = (12, 2, 3, 11, 2, 10, 4)
  masks = [np.arange(n) >= 1 for n in lengths]
  total = sum(m.sum() for m in masks)
  sequences = [
    packing.Sequence(rng.integers(1, 32, n), m / total, rng.normal())
    for n, m in zip(lengths, masks)
  ]
  return packing.pack(
    sequences, row_length=12, rows=1, micro_batches=micro_batches
  )


def reshape(batch, m, rows):
  leaves = jax.tree.map(lambda x: x.reshape(m, rows, -1), batch[:-1])
  return Batch(*leaves, count=np.int32(m))


def decoder_loss(params, batch):
  lp, entropy = policy.logprobs(MODEL, params, rows_of(batch))
  loss = losses.cross_entropy(lp, batch.weights)
  return loss, {"entropy": (batch.weights * entropy).sum()}


def rows_of(b):
  """All positions of a micro-batch."""
  return policy.Rows(b.tokens, b.positions, b.segments, b.targets)


def cheap_loss(params, batch):
  """Nonlinear in the parameters, with the weights of a real loss."""
  x = params["a"][batch.tokens] * params["b"]
  return (batch.weights * jnp.sin(x)).sum(), {"x": (batch.weights * x).sum()}


CHEAP = {"a": jnp.linspace(-1, 2, 32), "b": jnp.array(0.7)}
accumulate = jax.jit(learner.accumulate, static_argnums=0)


def close(got, want, **kwargs):
  kwargs = {"rtol": 1e-5, "atol": 1e-6, **kwargs}
  jax.tree.map(
    lambda x, y: np.testing.assert_allclose(x, y, **kwargs), got, want
  )


@pytest.mark.parametrize("m, rows", [(1, 4), (2, 2), (4, 1)])
def test_accumulation_is_the_full_batch(m, rows):
  batch = make_batch()
  assert batch.count == 4
  whole = Batch(*jax.tree.map(lambda x: x[:, 0], batch[:-1]), count=batch.count)
  (loss, metrics), want = jax.value_and_grad(cheap_loss, has_aux=True)(
    CHEAP, whole
  )
  got, sums = accumulate(cheap_loss, CHEAP, reshape(batch, m, rows))
  close(got, want)
  close(sums, {"loss": loss, **metrics})


@pytest.mark.parametrize("m, rows", [(1, 4), (4, 1)])
@pytest.mark.parametrize("tied", [True, False])
def test_accumulation_through_the_decoder(tied, m, rows):
  """Of a loss that uses each table twice, which goes into its sum twice."""
  model = dataclasses.replace(MODEL, tied=tied)

  def loss(params, b):
    lp, entropy = zip(*(
      policy.logprobs(model, params, rows_of(b), t)
      for t in (1.0, 0.5)
    ))  # fmt: skip
    sums = {"entropy": (b.weights * entropy[0]).sum()}
    return losses.cross_entropy(lp[0] * lp[1], b.weights), sums

  batch, params = make_batch(), random_params(model)
  whole = jax.tree.map(lambda x: x[:, 0], batch[:-1])
  (value, metrics), want = jax.jit(jax.value_and_grad(loss, has_aux=True))(
    params, Batch(*whole, count=batch.count)
  )
  got, sums = accumulate(loss, params, reshape(batch, m, rows))
  close(got, want)
  close(sums, {"loss": value, **metrics})
  assert min(np.abs(x).max() for x in jax.tree.leaves(want)) > 0.001
  assert abs(sums["loss"]) > 1


@pytest.mark.parametrize("tied", [True, False])
def test_a_loss_may_use_its_parameters_as_it_likes(tied):
  """Tables themselves, all leaves, logits, other parameters made of them."""
  model = dataclasses.replace(MODEL, tied=tied)

  def score(params, b):
    return policy.logprobs(model, params, rows_of(b))[0]

  def loss(params, b):
    halved = jax.tree.map(lambda x: 0.5 * x, params)
    fixed = jax.lax.stop_gradient(params)
    logits = Decoder(model).apply(
      {"params": params}, b.tokens, b.positions, b.segments
    )
    value = (b.weights * score(params, b) * score(fixed, b)).sum()
    value += (b.weights * score(halved, b)).sum()
    value += b.weights.sum() * (params["embed"]["embedding"] ** 2).mean()
    value += b.weights.sum() * optax.global_norm(params)
    return value + (b.weights * jax.nn.logsumexp(logits, -1)).sum(), {}

  batch, params = make_batch(), random_params(model)
  whole = jax.tree.map(lambda x: x[:, 0], batch[:-1])
  (value, _), want = jax.jit(jax.value_and_grad(loss, has_aux=True))(
    params, Batch(*whole, count=batch.count)
  )
  got, sums = accumulate(loss, params, batch)
  close(got, want)
  close(sums["loss"], value)


@pytest.mark.parametrize("count", [0, 1, 2])
def test_only_the_first_micro_batches_are_visited(count):
  batch = make_batch()
  poisoned = batch.weights.copy()
  poisoned[count:] = np.nan
  got, sums = accumulate(
    cheap_loss,
    CHEAP,
    batch._replace(weights=poisoned, count=np.int32(count)),
  )
  want = jax.tree.map(jnp.zeros_like, CHEAP)
  loss = 0.0
  for i in range(count):
    leaves = jax.tree.map(lambda x: x[i], batch[:-1])
    micro = Batch(*leaves, count=batch.count)
    (value, _), g = jax.value_and_grad(cheap_loss, has_aux=True)(CHEAP, micro)
    want, loss = jax.tree.map(jnp.add, want, g), loss + value
  close(got, want)
  close(sums["loss"], loss)


def test_the_filling_is_no_new_program():
  runs = []

  def counting(params, batch):
    runs.append(1)
    return cheap_loss(params, batch)

  f = jax.jit(lambda p, b: learner.accumulate(counting, p, b))
  batch = make_batch()
  f(CHEAP, batch)
  traced = len(runs)
  for count in (0, 2, 3):
    f(CHEAP, batch._replace(count=np.int32(count)))
  assert len(runs) == traced


@pytest.mark.parametrize("m, rows", [(1, 4), (4, 1)])
def test_gradients_of_parameters_in_bfloat16_are_summed_in_float32(m, rows):
  params = jax.tree.map(lambda x: x.astype(jnp.bfloat16), random_params(MODEL))
  batch = reshape(make_batch(), m, rows)
  got, _ = accumulate(decoder_loss, params, batch)
  gradient = jax.jit(jax.grad(decoder_loss, has_aux=True))
  parts = [
    gradient(params, jax.tree.map(lambda x: x[i], batch._replace(count=None)))[
      0
    ]
    for i in range(m)
  ]
  want = jax.tree.map(lambda *g: sum(x.astype(jnp.float32) for x in g), *parts)
  assert {x.dtype for x in jax.tree.leaves(got)} == {jnp.dtype("float32")}
  scale = max(np.abs(x).max() for x in jax.tree.leaves(want))
  # A table's is not rounded before it is added.
  close(got, want, rtol=1e-2, atol=1e-3 * scale)


@pytest.fixture(scope="module")
def mesh():
  return meshes.make_mesh(devices=jax.devices()[:1])


@pytest.fixture(scope="module")
def fresh(mesh):
  """A random start, in numpy."""
  state = state_lib.new_state(MODEL, OPTIMIZER, mesh, None, jax.random.key(3))
  return jax.tree.map(np.asarray, state)


def test_a_random_start(fresh):
  """Deviations of 1/sqrt(fan-in) of each layer, not of the stack."""
  assert fresh.step == 0
  assert all((x == 0).all() for x in jax.tree.leaves(fresh.opt_state))
  for path, x in jax.tree_util.tree_flatten_with_path(fresh.params)[0]:
    match path[-1].key:
      case "kernel":
        assert np.std(x) == pytest.approx(x.shape[-2] ** -0.5, rel=0.15), path
        assert not np.array_equal(x[0], x[1])
      case "embedding":
        assert np.std(x) == pytest.approx(x.shape[-1] ** -0.5, rel=0.15)
      case "scale":
        assert (x == 1).all()


def test_a_start_from_another_state(mesh):
  """Its parameters, nothing else of it, and not the same buffers."""
  params = random_params(MODEL)
  old = optimizer.init_state(OPTIMIZER, FACTS, params)
  dirty = jax.tree.map(lambda x: x + 1, old.opt_state)
  old = TrainState(jnp.int32(7), params, dirty)
  state = state_lib.new_state(MODEL, OPTIMIZER, mesh, old, jax.random.key(0))
  assert state.step == 0
  assert all((x == 0).all() for x in jax.tree.leaves(state.opt_state))
  close(state.params, params, rtol=0, atol=0)
  jax.tree.map(lambda x: x.delete(), state)  # as a donation would
  assert all(not x.is_deleted() for x in jax.tree.leaves(params))


def test_a_step_of_the_compiled_update(mesh):
  """Against accumulate and apply_gradients, called by hand."""
  params = random_params(MODEL)
  batch = make_batch()

  def scaled(p, micro, factor):
    loss, metrics = decoder_loss(p, micro)
    return factor * loss, metrics

  update = learner.Update(scaled, MODEL, OPTIMIZER, mesh)
  start = state_lib.new_state(
    MODEL, OPTIMIZER, mesh, TrainState(0, params, None), None
  )
  placed = learner.place(batch, mesh)
  state, metrics = update(start, placed, 1e-2, 0.5)
  assert start.params["norm"]["scale"].is_deleted()

  grads, sums = accumulate(decoder_loss, params, batch)
  grads = jax.tree.map(lambda g: np.float32(0.5) * np.asarray(g), grads)
  want, norm = jax.jit(
    lambda p, g: optimizer.apply_gradients(
      OPTIMIZER, FACTS, optimizer.init_state(OPTIMIZER, FACTS, p), g, 1e-2
    )
  )(params, grads)
  close(state.opt_state, want.opt_state)
  close(state.params, want.params, atol=1e-5)
  assert state.step == 1
  assert set(metrics) == {"loss", "entropy", "grad_norm", "checks"}
  assert metrics["checks"]["applied"] and metrics["checks"]["params"]
  close(metrics["loss"], 0.5 * sums["loss"])
  close(metrics["grad_norm"], norm)
  # Repeated, it learns the batch by heart.
  for _ in range(30):
    state, metrics = update(state, placed, 1e-2, 0.5)
  assert metrics["loss"] < 0.5 * 0.5 * sums["loss"]


def test_the_largest_of_all_micro_batches():
  def loss(params, batch):
    value, metrics = cheap_loss(params, batch)
    return value, metrics | {"largest": {"w": batch.weights.max()}}

  batch = make_batch()
  _, sums = accumulate(loss, CHEAP, batch)
  assert sums["largest"]["w"] == batch.weights.max()
  assert sums["x"] != 0


@jax.custom_jvp
def steep(x, slope):
  """x, with a gradient of `slope`."""
  return x


@steep.defjvp
def _(primals, tangents):
  return primals[0], primals[1] * tangents[0]


CONFIGS = {
  "adamw": OPTIMIZER,
  "int8": OptimizerConfig(moments="int8"),
  "offload": OptimizerConfig(offload=True),
  "muon": OptimizerConfig(kind="muon"),
}


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_a_step_that_is_not_finite_is_not_applied(mesh, config):
  """Parameters, moments and counters stay as they are, to the bit."""

  def poisoned(p, micro, poison):
    """`poison` of the second micro-batch's loss: its value, its gradient."""
    loss, metrics = decoder_loss(p, micro)
    second = (micro.tokens == batch.tokens[1]).all()
    value, slope = (jnp.where(second, x, 1.0) for x in poison)
    return value * steep(loss, slope), metrics

  batch = make_batch()
  update = learner.Update(poisoned, MODEL, config, mesh)
  placed = learner.place(batch, mesh)

  def run(poisons):
    state = state_lib.new_state(MODEL, config, mesh, None, jax.random.key(0))
    seen = []
    for poison, lr in poisons:
      state, metrics = update(state, placed, lr, poison)
      seen.append(jax.device_get(metrics["checks"]))
    return jax.device_get(state), seen

  good, inf, nan = (1.0, 1.0), np.inf, np.nan
  bad = [((nan, 1.0), 1e-2), ((inf, 1.0), 1e-2), ((1.0, nan), 1e-2)]
  bad += [((1.0, inf), 1e-2), (good, nan), (good, inf)]
  want, _ = run([(good, 1e-2)] * 3)
  got, seen = run(
    [(good, 1e-2), *bad[:3], (good, 1e-2), *bad[3:], (good, 1e-2)]
  )
  jax.tree.map(np.testing.assert_array_equal, got, want)
  assert got.step == 3
  assert [bool(c["applied"]) for c in seen] == [
    True, False, False, False, True, False, False, False, True
  ]  # fmt: skip
  assert all(c["params"] for c in seen)
  # The loss says which micro-batch it was; a gradient does not.
  for i, c in enumerate(seen):
    assert c["losses"].tolist() == [True, i not in (1, 2), True, True]


def test_a_parameter_that_is_not_finite_is_reported(mesh):
  update = learner.Update(decoder_loss, MODEL, OPTIMIZER, mesh)
  placed = learner.place(make_batch(), mesh)
  state = state_lib.new_state(MODEL, OPTIMIZER, mesh, None, jax.random.key(0))
  broken = jax.tree.map(jnp.copy, state.params)
  broken["norm"]["scale"] = broken["norm"]["scale"].at[0].set(jnp.nan)
  state = state._replace(params=broken)
  _, metrics = update(state, placed, 1e-2)
  checks = jax.device_get(metrics["checks"])
  assert not checks["applied"] and not checks["params"]
  assert not checks["losses"].any()


@pytest.mark.usefixtures("fused")
def test_keeping_the_old_state_takes_no_memory(mesh):
  """A token more of the vocabulary costs a row of each of four arrays."""

  def memory(vocab_size):
    model = dataclasses.replace(MODEL, vocab_size=vocab_size, d_model=64)

    def loss(params, b):
      lp, _ = policy.logprobs(model, params, rows_of(b), chunk=4, tile=256)
      return losses.cross_entropy(lp, b.weights), {}

    update = learner.Update(loss, model, OPTIMIZER, mesh)
    x = update.lower(*update.shapes(make_batch()))["step"].compile()
    x = x.memory_analysis()
    return (
      x.argument_size_in_bytes + x.output_size_in_bytes
      + x.temp_size_in_bytes - x.alias_size_in_bytes
    )  # fmt: skip

  table = 4 * 64 * (1 << 14)
  growth = (memory(1 << 15) - memory(1 << 14)) / table
  assert growth == pytest.approx(4, rel=0.02)


def balance(bias, load):
  """Raises the bias of experts with less than the mean load, lowers others."""
  return bias + 0.5 * jnp.sign(load.mean() - load)


class Router(nn.Module):
  """A table of scores whose bias chooses and no gradient reaches."""

  @nn.compact
  def __call__(self, tokens):
    normal = named(nn.initializers.normal(1.0), ("vocab", "expert"), "table")
    bias = named(nn.initializers.zeros, ("expert",), "bias", rule=balance)
    scores = self.param("table", normal, (32, 4))[tokens]
    bias = self.param("bias", bias, (4,)).reshape((1, 1, 4))
    chosen = jnp.argmax(scores + bias, axis=-1)
    return scores, jax.nn.one_hot(chosen, 4)


def routed(params, batch, factor):
  """Weighted scores of the chosen experts, and how often each is chosen."""
  scores, chosen = Router().apply({"params": params}, batch.tokens)
  real = batch.weights > 0
  loss = factor * (batch.weights * (scores * chosen).sum(-1)).sum()
  load = (jnp.expand_dims(real, -1) * chosen).sum((0, 1))
  return loss, {"signals": {"bias": load}, "trained": real.sum()}


@pytest.mark.parametrize("offload", [False, True])
def test_a_rule_changes_what_no_gradient_does(mesh, offload):
  """Two steps by hand in numpy; a bias has no moments."""
  router, config = Router(), OptimizerConfig(offload=offload)
  state = state_lib.new_state(router, config, mesh, None, jax.random.key(0))
  assert set(state.opt_state[1].mu) == {"table"}
  assert state.opt_state[1].mu["table"].shape == (32, 4)
  table, bias = np.asarray(state.params["table"]), np.zeros(4)
  batch = make_batch()
  tokens, real = batch.tokens.reshape(-1), batch.weights.reshape(-1) > 0
  update = learner.Update(routed, router, config, mesh)
  placed = learner.place(batch, mesh)
  for step in range(2):
    # A learning rate of 0 in the second step: the rule goes on all the same.
    state, metrics = update(state, placed, 1e-2 * (step == 0), 3.0)
    chosen = (table[tokens] + bias).argmax(axis=1)[real]
    load = np.bincount(chosen, minlength=4)
    assert load.sum() == metrics["trained"] and len(set(load)) > 1
    bias = bias + 0.5 * np.sign(load.mean() - load)
    np.testing.assert_array_equal(state.params["bias"], bias)
    assert set(metrics) == {"loss", "trained", "grad_norm", "checks"}
    moved = np.abs(np.asarray(state.params["table"]) - table).max()
    assert (moved > 1e-3) == (step == 0)
    table = np.asarray(state.params["table"])
  (programs, constants) = update.shapes(batch), (3.0,)
  names = {"gradients", "apply"} if offload else {"step"}
  assert set(update.lower(*programs, *constants)) == names


@pytest.mark.usefixtures("fused")
@pytest.mark.parametrize("m, rows", [(1, 4), (4, 1)])
def test_one_set_of_gradients(m, rows):
  """A table's, and all of an update's: a larger vocabulary adds no more.

  A token more is a row of d_model numbers of the parameters, as of their
  gradients and of either moment.
  """
  batch = reshape(make_batch(), m, rows)
  mesh = meshes.make_mesh(devices=jax.devices()[:1])

  def memory(vocab_size):
    model = dataclasses.replace(MODEL, vocab_size=vocab_size, d_model=64)

    def loss(params, b):
      lp, _ = policy.logprobs(model, params, rows_of(b), chunk=4, tile=256)
      return losses.cross_entropy(lp, b.weights), {}

    state = state_lib.shapes(model, OPTIMIZER)
    params = state.params

    def update(state, batch):
      grads, metrics = learner.accumulate(loss, state.params, batch)
      facts = state_lib.gradient_facts(model)
      return optimizer.apply_gradients(OPTIMIZER, facts, state, grads, 1e-3)

    with meshes.on(mesh):
      found = [
        f.compile().memory_analysis()
        for f in (
          jax.jit(lambda p, b: learner.accumulate(loss, p, b)).lower(
            params, batch
          ),
          jax.jit(update, donate_argnums=0).lower(state, batch),
        )
      ]
    return np.array([
      x.argument_size_in_bytes + x.output_size_in_bytes
      + x.temp_size_in_bytes - x.alias_size_in_bytes for x in found
    ])  # fmt: skip

  table = 4 * 64 * (1 << 14)
  growth = (memory(1 << 15) - memory(1 << 14)) / table
  np.testing.assert_allclose(growth, (2, 4), rtol=0.01)


def test_nothing_to_learn_from():
  empty = reshape(make_batch(), 1, 4)._replace(count=jnp.int32(0))
  grads, sums = accumulate(cheap_loss, CHEAP, empty)
  assert not grads["a"].any() and sums["loss"] == 0


def test_an_accumulator_in_bfloat16():
  """Half the bytes; off by the rounding of one sum, no more."""
  batch = make_batch()
  f = jax.jit(learner.accumulate, static_argnums=(0, 3))
  exact, _ = f(cheap_loss, CHEAP, batch, "float32")
  rounded, _ = f(cheap_loss, CHEAP, batch, "bfloat16")
  leaves = zip(jax.tree.leaves(exact), jax.tree.leaves(rounded))
  for a, b in leaves:
    assert b.dtype == jnp.float32
    scale = np.abs(np.asarray(a)).max()
    np.testing.assert_allclose(a, b, rtol=0.02, atol=0.02 * scale)
    assert (np.asarray(a) != np.asarray(b)).any()


@pytest.mark.usefixtures("fused")
def test_offloaded_moments_change_nothing_else(mesh, tmp_path):
  """The same bits as without, also after a restart from a checkpoint."""
  away = dataclasses.replace(OPTIMIZER, offload=True)
  batch = learner.place(make_batch(), mesh)
  ends = []
  for config in (OPTIMIZER, away):
    update = learner.Update(decoder_loss, MODEL, config, mesh)
    state = state_lib.new_state(MODEL, config, mesh, None, jax.random.key(0))
    for _ in range(3):
      state, metrics = update(state, batch, 1e-2)
    checkpoint.save(tmp_path / str(config.offload), state)
    blank = state_lib.new_state(MODEL, config, mesh, None, jax.random.key(1))
    state = checkpoint.restore(tmp_path / str(config.offload), blank)
    state, metrics = update(state, batch, 1e-2)
    ends.append((jax.device_get(state), jax.device_get(metrics)))
  kinds = [
    {x.sharding.memory_kind for x in jax.tree.leaves(tree) if x.ndim}
    for tree in (state.opt_state, state.params)
  ]
  assert kinds == [{sharding.HOST}, {"device"}]
  jax.tree.map(np.testing.assert_array_equal, *ends)


def test_memory_that_a_platform_lacks_is_named(mesh, monkeypatch):
  monkeypatch.setattr(sharding, "HOST", "attic")
  with pytest.raises(UserError, match="offload: cpu has no attic memory"):
    state_lib.shardings(
      MODEL, dataclasses.replace(OPTIMIZER, offload=True), mesh
    )
