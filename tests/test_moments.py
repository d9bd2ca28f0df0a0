"""Moments in fewer bits: right on average, and no worse to train with."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_model import random_params

from r1jax import meshes, sharding
from r1jax import model as model_lib
from r1jax.errors import UserError
from r1jax.model import Facts, ModelConfig
from r1jax.run import checkpoint
from r1jax.training import moments, optimizer
from r1jax.training import state as state_lib
from r1jax.training.optimizer import OptimizerConfig
from r1jax.types import TrainState

MODEL = ModelConfig(
  vocab_size=64, d_model=16, n_layers=2, n_heads=4, n_kv_heads=2, head_dim=4,
  d_ff=32, max_length=32,
)  # fmt: skip
FACTS = {
  "kernel": Facts(("embed", "mlp"), "matrix", (1, 1)),
  "scale": Facts(("norm",), "gain", (1,)),
}
KERNEL = {"kernel": FACTS["kernel"]}
BYTES = {"float32": 8, "bfloat16": 4, "int8": 2}


@pytest.mark.parametrize("kind", ["bfloat16", "int8"])
@pytest.mark.parametrize("signed", [True, False])
def test_rounding_is_right_on_average(kind, signed):
  """The mean of 4,000 roundings, within five standard errors of the value."""
  x = np.array([0, 1e-5, 3e-4, 0.01, 0.0123, 0.3, 0.77, 0.999, 1.0], np.float32)
  x = 2.5 * (np.stack([x, -x]) if signed else np.stack([x, x]))
  keys = jax.random.split(jax.random.key(0), 4000)
  draw = jax.vmap(
    lambda key: moments.read(
      moments.write(jnp.asarray(x), key, kind, signed=signed)
    )
  )
  drawn = np.asarray(draw(keys), np.float64)
  # Below the least code a second moment reads as that code, by intent.
  raised = kind == "int8" and not signed
  want = np.maximum(x, 2.5 * 2 ** (-254 / 8)) if raised else x
  error = np.abs(drawn.mean(axis=0) - want)
  assert (error <= 5 * drawn.std(axis=0) / np.sqrt(4000) + 1e-12).all()
  # Always one of the two neighbours: 1 in 128 apart, or an eighth octave.
  gap = 2**-7 if kind == "bfloat16" else 2 ** (1 / 8) - 1
  inside = np.abs(x) > 1e-3
  assert (np.abs(drawn - x) <= gap * np.abs(x) * 1.01)[:, inside].all()


@pytest.mark.parametrize("kind", ["bfloat16", "int8"])
def test_small_increments_are_not_lost(kind):
  """A slow decay is below what rounding to the nearest would notice."""
  adam = moments.scale_by_adam(0.9, 0.999, 1e-8, kind)
  params = {"kernel": jnp.ones((4, 256))}

  def step(i, state):
    size = jnp.where(i < 1000, 1.0, 0.1)
    return adam.update({"kernel": jnp.full((4, 256), size)}, state)[1]

  state = jax.jit(lambda state: jax.lax.fori_loop(0, 3000, step, state))(
    adam.init(params)
  )
  nu = np.asarray(moments.read(state.nu["kernel"]), np.float64)
  want = 0.0
  for i in range(3000):
    want = 0.999 * want + 0.001 * (1.0 if i < 1000 else 0.01)
  assert nu.mean() == pytest.approx(want, rel=0.03)


@pytest.mark.parametrize("kind", ["bfloat16", "int8"])
def test_as_good_as_float32_on_a_noisy_quadratic(kind):
  """Curvatures over four orders of magnitude, in the same row, too."""
  rng = np.random.default_rng(0)
  curvature = jnp.asarray(10.0 ** rng.uniform(-2, 2, (8, 64)), jnp.float32)
  start = jnp.asarray(rng.normal(size=(8, 64)), jnp.float32)

  def loss_after(kind, steps=1500):
    config = OptimizerConfig(b2=0.99, clip_norm=1e9, moments=kind)

    def step(i, state):
      key = jax.random.fold_in(jax.random.key(1), i)
      noise = jax.random.normal(key, (8, 64))
      x = state.params["kernel"]
      slope = curvature * x + jnp.sqrt(curvature) * noise
      rate = 0.02 * 0.5 ** (i / 300)
      return optimizer.apply_gradients(
        config, KERNEL, state, {"kernel": slope}, rate
      )[0]

    state = jax.jit(lambda s: jax.lax.fori_loop(0, steps, step, s))(
      optimizer.init_state(config, KERNEL, {"kernel": start})
    )
    return float((curvature * state.params["kernel"] ** 2).mean())

  before = float((curvature * start**2).mean())
  exact, rounded = loss_after("float32"), loss_after(kind)
  assert exact < 0.05 * before
  assert rounded < 1.15 * exact


@pytest.mark.parametrize("kind", moments.KINDS)
def test_bytes(kind):
  config = OptimizerConfig(moments=kind)
  params = {"kernel": jnp.zeros((4, 512, 512)), "scale": jnp.zeros(512)}
  state = optimizer.init_state(config, FACTS, params)
  size = sum(x.nbytes for x in jax.tree.leaves(state.opt_state))
  count = sum(x.size for x in jax.tree.leaves(params))
  assert size == pytest.approx(BYTES[kind] * count, rel=0.02)


@pytest.mark.parametrize("kind", ["bfloat16", "int8"])
def test_sharded_saved_and_resumed_to_the_bit(kind, tmp_path):
  """Eight devices as one, and what is read back goes on the same."""
  config = OptimizerConfig(moments=kind)
  params = random_params(MODEL)
  params = {
    "embed": params["embed"], "layers": {"up": params["layers"]["up"]}
  }  # fmt: skip
  grads = jax.tree.map(lambda x: 0.1 * x + 0.01, params)
  facts = model_lib.part(model_lib.facts_of(MODEL), params)
  start = optimizer.init_state(config, facts, params)

  def stepper(mesh):
    where = model_lib.part(model_lib.shardings(MODEL, mesh), params)
    shardings = TrainState(
      sharding.replicated(mesh), where,
      state_lib.along(facts, start.opt_state, mesh),
    )  # fmt: skip
    step = jax.jit(
      lambda s: optimizer.apply_gradients(config, facts, s, grads, 1e-2)[0],
      out_shardings=shardings,
    )

    def run(state, steps):
      state = jax.device_put(state, shardings)
      for _ in range(steps):
        state = step(state)
      return state

    return run

  one = stepper(meshes.make_mesh(devices=jax.devices()[:1]))(start, 4)
  run = stepper(meshes.make_mesh(data=2, fsdp=2, tensor=2))
  half = run(start, 2)
  kernel = half.opt_state[1].mu["layers"]["up"]["kernel"]
  assert not jax.tree.leaves(kernel)[0].sharding.is_fully_replicated
  checkpoint.save(tmp_path / "half", half)
  shapes = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), half
  )
  resumed = run(checkpoint.restore(tmp_path / "half", shapes), 2)
  jax.tree.map(np.testing.assert_array_equal, run(start, 4), resumed)
  # The gradient's norm is added up in another order: where that tips a coin
  # an entry moves by a part of the learning rate.
  gaps = np.concatenate(
    jax.tree.leaves(
      jax.tree.map(
        lambda a, b: np.abs(np.asarray(a) - np.asarray(b)).ravel(),
        one.params,
        resumed.params,
      )
    )
  )
  assert gaps.max() < 1e-3 and (gaps > 1e-6).mean() < 0.01


@pytest.mark.parametrize(
  ("fields", "message"),
  [
    (dict(moments="int4"), 'moments="int4".*known: float32, bfloat16, int8'),
    (dict(accumulator="int8"), 'accumulator="int8".*known'),
    (dict(kind="muon", moments="int8"), 'needs kind="adamw", not "muon"'),
  ],
)
def test_bad_options(fields, message):
  with pytest.raises(UserError, match=message):
    OptimizerConfig(**fields)
