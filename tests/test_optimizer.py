"""Optimisers against their papers' updates in numpy, schedules by hand."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from r1jax.errors import UserError
from r1jax.model import Facts
from r1jax.training import optimizer
from r1jax.training.optimizer import OptimizerConfig, learning_rate


def make_params():
  """Two layers' stacked kernel, an embedding, a gain and a bias."""
  rng = np.random.default_rng(0)
  return {
    "embed": {"embedding": jnp.asarray(rng.normal(size=(6, 4)), jnp.float32)},
    "layers": {
      "q": {
        "kernel": jnp.asarray(rng.normal(size=(2, 4, 6)), jnp.float32),
        "bias": jnp.asarray(rng.normal(size=(2, 6)), jnp.float32),
      },
    },
    "norm": {"scale": jnp.asarray(rng.normal(size=4), jnp.float32)},
  }


def facts(axes, kind):
  return Facts(axes, kind, (1,) * len(axes))


FACTS = {
  "embed": {"embedding": facts(("vocab", "embed"), "table")},
  "layers": {
    "q": {
      "kernel": facts(("layer", "embed", "heads"), "matrix"),
      "bias": facts(("layer", "heads"), "bias"),
    },
  },
  "norm": {"scale": facts(("norm",), "gain")},
}


def make_gradients(steps, size=1.0):
  rng = np.random.default_rng(1)
  return [
    jax.tree.map(
      lambda x: size * rng.normal(size=x.shape).astype(np.float32),
      make_params(),
    )
    for _ in range(steps)
  ]


def run(config, grads, rates):
  state = optimizer.init_state(config, FACTS, make_params())
  step = jax.jit(functools.partial(optimizer.apply_gradients, config, FACTS))
  norms = []
  for g, lr in zip(grads, rates):
    state, norm = step(state, g, lr)
    norms.append(float(norm))
  return state, norms


def flat(tree):
  """Name of a leaf -> float64 array."""
  leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
  return {path[-1].key: np.asarray(x, np.float64) for path, x in leaves}


def test_adamw_by_its_paper():
  """Three steps, clipped on the way, decay on matrices only."""
  config = OptimizerConfig(b1=0.8, b2=0.9, eps=1e-6, weight_decay=0.3,
                           clip_norm=5.0)  # fmt: skip
  grads = [*make_gradients(2, 0.1), *make_gradients(1, 3.0)]
  rates = [0.1, 0.02, 0.05]
  state, norms = run(config, grads, rates)

  p = flat(make_params())
  m = {k: np.zeros_like(x) for k, x in p.items()}
  v = {k: np.zeros_like(x) for k, x in p.items()}
  for t, (g, lr) in enumerate(zip(grads, rates), start=1):
    g = flat(g)
    norm = np.sqrt(sum((x**2).sum() for x in g.values()))
    assert norms[t - 1] == pytest.approx(norm, rel=1e-5)
    for k in p:
      clipped = g[k] * min(1, 5.0 / norm)
      m[k] = 0.8 * m[k] + 0.2 * clipped
      v[k] = 0.9 * v[k] + 0.1 * clipped**2
      step = (m[k] / (1 - 0.8**t)) / (np.sqrt(v[k] / (1 - 0.9**t)) + 1e-6)
      decay = 0.3 * p[k] if k in ("kernel", "embedding") else 0.0
      p[k] = p[k] - lr * (step + decay)
  assert min(norms) < 5 < max(norms)
  for k, x in flat(state.params).items():
    np.testing.assert_allclose(x, p[k], rtol=1e-4, atol=1e-5, err_msg=k)
  assert int(state.step) == 3


def test_muon_turns_matrices_and_leaves_the_rest_to_adam():
  config = OptimizerConfig(kind="muon", clip_norm=1e9)
  (grads,) = make_gradients(1)
  state, _ = run(config, [grads], [0.1])
  before, after, g = map(flat, (make_params(), state.params, grads))
  # The first step of each layer's matrix: about the nearest orthogonal one.
  for layer in range(2):
    step = (before["kernel"] - after["kernel"])[layer] / 0.1
    left, _, right = np.linalg.svd(g["kernel"][layer], full_matrices=False)
    singular = np.linalg.svd(step, compute_uv=False)
    ratio = singular / singular.mean()
    assert (ratio > 0.6).all() and (ratio < 1.4).all()
    cosine = (step * (left @ right)).sum()
    cosine /= np.linalg.norm(step) * np.linalg.norm(left @ right)
    assert cosine > 0.95
  # Adam's first step, with Nesterov's look ahead, is so many times the sign
  # of the gradient, at 0.3 of the rate.
  times = 1 + config.b1 / (1 + config.b1)
  for k in ("embedding", "bias", "scale"):
    np.testing.assert_allclose(
      after[k],
      before[k] - 0.1 * 0.3 * times * np.sign(g[k]),
      atol=1e-4,
      err_msg=k,
    )


def test_muon_takes_each_expert_for_a_matrix():
  """[L, E, in, out]: the step of a stack is that of its matrices alone."""
  config = OptimizerConfig(kind="muon", clip_norm=1e9)
  rng = np.random.default_rng(3)
  p, g = (rng.normal(size=(2, 3, 4, 6)).astype(np.float32) for _ in range(2))
  experts = facts(("layer", "expert", "embed", "mlp"), "matrix")
  layers = facts(("layer", "embed", "mlp"), "matrix")
  # A matrix that is of no layer, and a bias of three axes, are Adam's.
  other = facts(("norm", "embed", "mlp"), "matrix")
  bias = facts(("layer", "expert", "mlp"), "bias")

  def step(params, known, grads):
    state = optimizer.init_state(config, known, params)
    update = functools.partial(optimizer.apply_gradients, config, known)
    return jax.jit(update)(state, grads, 0.1)[0].params

  whole = step(
    {"e": p, "m": p[0], "b": p[0]}, {"e": experts, "m": other, "b": bias},
    {"e": g, "m": g[0], "b": g[0]},
  )  # fmt: skip
  flat = step(
    {"w": p.reshape(6, 4, 6)}, {"w": layers}, {"w": g.reshape(6, 4, 6)}
  )
  np.testing.assert_allclose(
    whole["e"], flat["w"].reshape(2, 3, 4, 6), rtol=1e-5, atol=1e-6
  )
  assert np.abs(whole["e"] - p).max() > 0.01
  times = 1 + config.b1 / (1 + config.b1)
  for k in ("m", "b"):
    np.testing.assert_allclose(
      whole[k], p[0] - 0.1 * 0.3 * times * np.sign(g[0]), atol=1e-4
    )


@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_it_descends_and_keeps_dtypes(kind):
  config = OptimizerConfig(kind=kind)
  params = jax.tree.map(lambda x: x.astype(jnp.bfloat16), make_params())
  state = optimizer.init_state(config, FACTS, params)
  assert int(state.step) == 0

  def loss(p):
    leaves = jax.tree.leaves(p)
    return sum((x.astype(jnp.float32) ** 2).sum() for x in leaves)

  @jax.jit
  def step(state):
    grads = jax.grad(loss)(state.params)
    return optimizer.apply_gradients(config, FACTS, state, grads, 0.05)[0]

  first = loss(params)
  for _ in range(10):
    state = step(state)
  assert loss(state.params) < 0.7 * first
  assert all(x.dtype == jnp.bfloat16 for x in jax.tree.leaves(state.params))


def test_schedules_by_hand():
  def at(step, **kwargs):
    return learning_rate(step, **{**dict(lr=2.0, steps=100), **kwargs})

  assert [at(s) for s in (0, 50, 99)] == [2.0] * 3
  # Warm-up: equal steps up to the peak, from the first step on.
  assert [at(s, warmup=4) for s in range(6)] == [0.5, 1, 1.5, 2, 2, 2]
  cosine = dict(schedule="cosine", end=0.1)
  assert at(0, **cosine) == pytest.approx(2.0)
  assert at(50, **cosine) == pytest.approx(1.1)  # (1 + 0.1) / 2 of the peak
  assert at(100, **cosine) == pytest.approx(0.2)
  both = dict(cosine, warmup=20)
  assert at(19, **both) == at(20, **both) == pytest.approx(2.0)
  assert at(60, **both) == pytest.approx(1.1)
  falling = [at(s, **cosine) for s in range(101)]
  assert falling == sorted(falling, reverse=True)


def test_bad_settings_are_named():
  with pytest.raises(UserError, match='"sgd" is unknown; known: adamw, muon'):
    OptimizerConfig(kind="sgd")
  with pytest.raises(UserError, match='"linear" is unknown'):
    learning_rate(0, lr=1.0, steps=1, schedule="linear")
