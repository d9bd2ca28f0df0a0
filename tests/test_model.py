"""The decoder against counts, invariances and an independent numpy model."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from r1jax.errors import UserError
from r1jax.model import (
  Decoder,
  ModelConfig,
  axes,
  init,
  layers_of,
  param_count,
  shapes,
  unembedding,
)
from r1jax.model.attention import (
  attend,
  causal_mask,
  finish,
  join,
  partial,
)
from r1jax.model.config import Stack
from r1jax.model.linear import matmul, thin_matmul
from r1jax.model.rope import rope_table, rotate
from r1jax.sampling import weights

V, T = 32, 9
TINY = ModelConfig(
  vocab_size=V, d_model=16, n_layers=2, n_heads=4, n_kv_heads=2, head_dim=6,
  d_ff=20, max_length=64, rope_theta=100.0, tied=False, qkv_bias=True,
  qk_norm=True,
)  # fmt: skip
PLAIN = dataclasses.replace(TINY, tied=True, qkv_bias=False, qk_norm=False)


@functools.partial(jax.jit, static_argnums=0)
def forward(config, params, tokens, positions, segments):
  return Decoder(config).apply({"params": params}, tokens, positions, segments)


def inputs(seed=0):
  """Tokens [2, T], positions and segments: one whole row, one of two parts."""
  tokens = np.random.default_rng(seed).integers(V, size=(2, T))
  positions = np.stack([np.arange(T), np.r_[:4, :3, 0, 0]])
  segments = np.stack([np.ones(T), np.r_[[1] * 4, [2] * 3, 0, 0]])
  return [np.asarray(x, np.int32) for x in (tokens, positions, segments)]


def random_params(config):
  """Random parameters, gains and biases too, without compiling `init`."""
  rng = np.random.default_rng(1)

  def leaf(path, x):
    noise = rng.normal(size=x.shape).astype(np.float32)
    match path[-1].key:
      case "kernel" | "lora_a" | "lora_b":
        return noise / np.sqrt(x.shape[-2])
      case "embedding":
        return noise / np.sqrt(x.shape[-1])
      case "scale":
        return 1 + 0.2 * noise
      case "bias":
        return 0.2 * noise

  shapes = jax.eval_shape(lambda k: init(config, k), jax.random.key(0))
  params = jax.tree_util.tree_map_with_path(leaf, shapes)
  return jax.tree.map(jnp.array, params)


@pytest.mark.parametrize(
  "shape, count",
  [
    # SmolLM2-135M
    (dict(d_model=576, n_layers=30, n_heads=9, n_kv_heads=3, head_dim=64,
          d_ff=1536, vocab_size=49_152), 134_515_008),
    # Qwen2.5-0.5B
    (dict(d_model=896, n_layers=24, n_heads=14, n_kv_heads=2, head_dim=64,
          d_ff=4864, vocab_size=151_936, qkv_bias=True), 494_032_768),
    # Qwen3-0.6B
    (dict(d_model=1024, n_layers=28, n_heads=16, n_kv_heads=8, head_dim=128,
          d_ff=3072, vocab_size=151_936, qk_norm=True), 596_049_920),
    # Qwen2.5-7B, with a head of its own
    (dict(d_model=3584, n_layers=28, n_heads=28, n_kv_heads=4, head_dim=128,
          d_ff=18_944, vocab_size=152_064, qkv_bias=True, tied=False),
     7_615_616_512),
  ],
  ids=["smollm2-135m", "qwen2.5-0.5b", "qwen3-0.6b", "qwen2.5-7b"],
)  # fmt: skip
def test_published_parameter_counts(shape, count):
  config = ModelConfig(max_length=32_768, **shape)
  params = jax.eval_shape(lambda k: init(config, k), jax.random.key(0))
  assert param_count(params) == count


# --- an independent decoder, in float64 and with loops -----------------------


def np_norm(x, scale, eps):
  return x / np.sqrt((x**2).mean(axis=-1, keepdims=True) + eps) * scale


def np_rotate(x, positions, theta):
  """x [T, D] as complex numbers of its two halves, turned by e^(i m theta)."""
  half = x.shape[-1] // 2
  z = x[:, :half] + 1j * x[:, half:]
  frequency = theta ** (-np.arange(half) / half)
  z = z * np.exp(1j * positions[:, None] * frequency)
  return np.concatenate([z.real, z.imag], axis=-1)


def np_attention(q, k, v, allowed):
  """One head: [T, D] each, allowed [T, T]."""
  out = np.zeros_like(q)
  for t in range(len(q)):
    at = np.flatnonzero(allowed[t])
    if len(at):
      s = k[at] @ q[t] / np.sqrt(q.shape[-1])
      p = np.exp(s - s.max())
      out[t] = (p / p.sum()) @ v[at]
  return out


def np_decoder(c, params, tokens, positions, segments):
  """Logits [T, V] of one row."""
  p = jax.tree.map(lambda x: np.asarray(x, np.float64), params)
  t = len(tokens)
  allowed = np.array(
    [[j <= i and segments[i] == segments[j] > 0 for j in range(t)]
     for i in range(t)]
  )  # fmt: skip
  x = p["embed"]["embedding"][tokens]
  for layer in range(c.n_layers):
    w = jax.tree.map(lambda y: y[layer], p["layers"])

    def dense(name, y):
      return y @ w[name]["kernel"] + w[name].get("bias", 0.0)

    y = np_norm(x, w["attention_norm"]["scale"], c.rms_eps)
    heads = {
      n: dense(n, y).reshape(t, -1, c.head_dim).swapaxes(0, 1) for n in "qkv"
    }
    for n in "qk":
      if c.qk_norm:
        heads[n] = np_norm(heads[n], w[f"{n}_norm"]["scale"], c.rms_eps)
      heads[n] = [np_rotate(h, positions, c.rope_theta) for h in heads[n]]
    share = c.n_heads // c.n_kv_heads
    out = [
      np_attention(q, heads["k"][i // share], heads["v"][i // share], allowed)
      for i, q in enumerate(heads["q"])
    ]
    x = x + dense("o", np.concatenate(out, axis=-1))
    y = np_norm(x, w["mlp_norm"]["scale"], c.rms_eps)
    gate = dense("gate", y)
    x = x + dense("down", gate / (1 + np.exp(-gate)) * dense("up", y))
  x = np_norm(x, p["norm"]["scale"], c.rms_eps)
  head = p["embed"]["embedding"].T if c.tied else p["head"]["kernel"]
  return x @ head


@pytest.mark.parametrize("config", [TINY, PLAIN], ids=["qwen", "llama"])
def test_equals_an_independent_decoder(config):
  params = random_params(config)
  batch = inputs()
  got = forward(config, params, *batch)
  for row in range(2):
    want = np_decoder(config, params, *(x[row] for x in batch))
    real = batch[2][row] > 0
    np.testing.assert_allclose(got[row][real], want[real], atol=2e-4)
  assert np.abs(got).max() > 1


@pytest.mark.parametrize("heads, kv", [(2, 2), (6, 2), (8, 1)])
def test_attention_of_grouped_heads(heads, kv):
  """1:1, 3:1 and 8:1; keys in one part or cut in two."""
  rng = np.random.default_rng(heads)
  t, d = 5, 4
  q, k, v = (
    rng.normal(size=(2, n, t, d)).astype(np.float32) for n in (heads, kv, kv)
  )
  segments = jnp.array([[1, 1, 1, 1, 1], [1, 1, 2, 2, 2]])
  mask = causal_mask(segments)
  keys = jnp.swapaxes(k, 2, 3)
  whole = jax.jit(attend)(q, keys, v, mask)

  @jax.jit
  def in_parts(q):
    first = partial(q, keys[..., :2], v[:, :, :2], mask[..., :2])
    second = partial(q, keys[..., 2:], v[:, :, 2:], mask[..., 2:])
    return finish(join(first, second), q)

  cut = in_parts(q)
  np.testing.assert_allclose(whole, cut, atol=1e-5)
  for b, h in np.ndindex(2, heads):
    i = h // (heads // kv)
    want = np_attention(q[b, h], k[b, i], v[b, i], np.asarray(mask[b]))
    np.testing.assert_allclose(whole[b, h], want, atol=1e-5)


def test_mask_by_hand():
  got = causal_mask(jnp.array([[1, 1, 2, 0]]))[0]
  want = [[1, 0, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]]
  np.testing.assert_array_equal(got, np.array(want, bool))


def test_the_future_leaves_the_past_alone():
  params = random_params(TINY)
  tokens, positions, segments = inputs()
  before = np.asarray(forward(TINY, params, tokens, positions, segments))
  for t in range(1, T):
    changed = tokens.copy()
    changed[0, t] = (changed[0, t] + 1) % V
    after = np.asarray(forward(TINY, params, changed, positions, segments))
    np.testing.assert_array_equal(after[0, :t], before[0, :t])
    assert np.abs(after[0, t] - before[0, t]).max() > 1e-3


def test_only_relative_positions_matter():
  params = random_params(TINY)
  tokens, positions, segments = inputs()
  near = forward(TINY, params, tokens, positions, segments)
  far = forward(TINY, params, tokens, positions + 41, segments)
  real = segments > 0
  np.testing.assert_allclose(near[real], far[real], atol=2e-4)
  stretched = forward(TINY, params, tokens, positions * 2, segments)
  assert np.abs(near - stretched)[real].max() > 1e-2


def test_rotations_by_hand_and_relatively():
  # D = 2: the only pair turns by the position itself.
  cos, sin = rope_table(jnp.array([[0, 1, 2]]), 2, 10_000.0)
  x = jnp.broadcast_to(jnp.array([1.0, 0.0]), (1, 1, 3, 2))
  want = [[np.cos(m), np.sin(m)] for m in range(3)]
  np.testing.assert_allclose(rotate(x, cos, sin)[0, 0], want, atol=1e-6)

  rng = np.random.default_rng(0)
  q, k = rng.normal(size=(2, 1, 1, 1, 8)).astype(np.float32)

  def score(m, n):
    a = rotate(q, *rope_table(jnp.array([[m]]), 8, 100.0))
    b = rotate(k, *rope_table(jnp.array([[n]]), 8, 100.0))
    return float((a * b).sum())

  assert score(7, 3) == pytest.approx(score(104, 100), abs=1e-4)
  assert score(7, 3) != pytest.approx(score(7, 4), abs=1e-2)
  np.testing.assert_allclose(score(5, 5), (q * k).sum(), rtol=1e-5)


def test_rows_do_not_touch():
  """One row of a batch alone gives the same, whatever stands beside it."""
  params = random_params(TINY)
  batch = inputs()
  both = forward(TINY, params, *batch)
  twice = [np.stack([x[1], x[1]]) for x in batch]
  np.testing.assert_allclose(
    forward(TINY, params, *twice)[0], both[1], atol=1e-5
  )


@pytest.mark.parametrize("remat", ["products", "layer"])
def test_remat_changes_no_gradient(remat):
  params, batch = random_params(PLAIN), inputs()
  coefficients = np.random.default_rng(2).normal(size=(2, T, V))

  def gradient(config):
    def loss(p):
      logits = Decoder(config).apply({"params": p}, *batch)
      return (logits * coefficients.astype(np.float32)).mean()

    return jax.jit(jax.grad(loss))(params)

  kept = gradient(PLAIN)
  recomputed = gradient(dataclasses.replace(PLAIN, remat=remat))
  jax.tree.map(
    lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-6),
    kept,
    recomputed,
  )
  for leaf in jax.tree.leaves(kept):
    assert np.isfinite(leaf).all() and np.abs(leaf).max() > 1e-6


def test_remat_keeps_what_its_name_says():
  """Numbers that a layer keeps, a token: by hand, and of blocks' attention."""
  d, ff, h, kv, dim, t = 16, 48, 4, 2, 8, 160
  model = dataclasses.replace(
    PLAIN, d_model=d, d_ff=ff, n_heads=h, n_kv_heads=kv, head_dim=dim,
    n_layers=7, max_length=t,
  )  # fmt: skip
  tokens = jnp.zeros((1, t), jnp.int32)

  def kept(remat):
    config = dataclasses.replace(model, remat=remat)
    params = jax.eval_shape(lambda k: init(config, k), jax.random.key(0))
    pull = jax.eval_shape(
      lambda p: jax.vjp(
        lambda q: Decoder(config).apply(
          {"params": q}, tokens, method="hidden"
        ), p
      )[1], params,
    )  # fmt: skip
    stacked = [x for x in jax.tree.leaves(pull) if x.shape[:1] == (7,)]
    weights = sum(x.size for x in jax.tree.leaves(params["layers"])) // 7
    return sum(x.size for x in stacked) // 7 - weights

  layer, products, none = map(kept, ("layer", "products", "none"))
  assert layer == t * d
  # The input, q, k, v, the attention's output and normaliser, o, gate, up.
  blocks_t = 192  # in whole blocks
  assert products == t * (d + h * dim + 2 * kv * dim + d + 2 * ff) + (
    blocks_t * (h * dim + h)
  )
  assert none > 1.5 * products


def test_dtypes_are_honoured():
  batch = inputs()
  low = dataclasses.replace(
    TINY, compute_dtype="bfloat16", logit_dtype="float32"
  )
  params = random_params(TINY)
  want = forward(TINY, params, *batch)
  got = forward(low, params, *batch)
  assert want.dtype == got.dtype == jnp.float32
  real = batch[2] > 0
  error = np.abs(np.asarray(got - want)[real])
  assert 0 < error.mean() < 0.1 * np.abs(want).mean()

  rounded = dataclasses.replace(low, logit_dtype="bfloat16")
  shape = jax.eval_shape(
    lambda p: Decoder(rounded).apply({"params": p}, *batch), params
  )
  assert shape.dtype == jnp.bfloat16
  hidden = jax.eval_shape(
    lambda p: Decoder(rounded).apply({"params": p}, *batch, method="hidden"),
    params,
  )
  assert hidden.dtype == jnp.bfloat16

  stored = dataclasses.replace(TINY, param_dtype="bfloat16")
  leaves = jax.tree.leaves(
    jax.eval_shape(lambda k: init(stored, k), jax.random.key(0))
  )
  assert {x.dtype for x in leaves} == {jnp.dtype("bfloat16")}


class TwoStacks(ModelConfig):
  """The layers in two stacks, as of models whose first layers differ."""

  @property
  def stacks(self):
    return Stack("dense", 1), Stack("moe", self.n_layers - 1)


def test_two_stacks_of_layers_are_one_after_the_other():
  one = dataclasses.replace(TINY, n_layers=3)
  two = TwoStacks(**dataclasses.asdict(one))
  params, batch = random_params(one), inputs()
  parts = {k: x for k, x in params.items() if k != "layers"}
  parts["dense"] = jax.tree.map(lambda x: x[:1], params["layers"])
  parts["moe"] = jax.tree.map(lambda x: x[1:], params["layers"])
  same = jax.tree.map(lambda x, y: x.shape == y.shape, parts, shapes(two))
  assert all(jax.tree.leaves(same))
  assert axes(two)["moe"] == axes(one)["layers"]
  np.testing.assert_allclose(
    forward(two, parts, *batch), forward(one, params, *batch), atol=1e-5
  )

  @functools.partial(jax.jit, static_argnums=0)
  def prefill(config, params):
    return Decoder(config).apply({"params": params}, *batch, method="prefill")

  jax.tree.map(
    lambda x, y: np.testing.assert_allclose(x, y, atol=1e-5),
    prefill(two, parts), prefill(one, params),
  )  # fmt: skip
  jax.tree.map(
    np.testing.assert_array_equal,
    weights.lay_out(two, parts), weights.lay_out(one, params),
  )  # fmt: skip
  found = list(layers_of(two, parts))
  assert [(name, i) for name, i, _ in found] == [
    ("dense", 0), ("moe", 0), ("moe", 1),
  ]  # fmt: skip
  for n, (_, _, layer) in enumerate(found):
    want = jax.tree.map(lambda x: x[n], params["layers"])
    jax.tree.map(np.testing.assert_array_equal, layer, want)


def test_defaults_are_one_segment_from_position_zero():
  params = random_params(TINY)
  tokens = inputs()[0]
  positions = np.broadcast_to(np.arange(T), (2, T))
  want = forward(TINY, params, tokens, positions, np.ones((2, T), np.int32))
  got = forward(TINY, params, tokens, None, None)
  np.testing.assert_allclose(got, want, atol=1e-5)


@pytest.mark.parametrize("config", [TINY, PLAIN], ids=["untied", "tied"])
def test_unembedding_is_the_head(config):
  params, batch = random_params(config), inputs()
  hidden = jax.jit(
    lambda p: Decoder(config).apply({"params": p}, *batch, method="hidden")
  )(params)
  np.testing.assert_allclose(
    hidden @ unembedding(params, config).T,
    forward(config, params, *batch),
    atol=1e-4,
  )


@pytest.mark.parametrize("shape", [(5, 3), (3, 5), (4, 4)])
@pytest.mark.parametrize("rows", [(7,), (2, 3)])
def test_matmul_has_the_gradient_of_matmul(rows, shape):
  rng = np.random.default_rng(0)
  x = rng.normal(size=(*rows, shape[0])).astype(np.float32)
  w = rng.normal(size=shape).astype(np.float32)
  dy = rng.normal(size=(*rows, shape[1])).astype(np.float32)
  y, pull = jax.vjp(matmul, x, w)
  dx, dw = pull(jnp.asarray(dy))
  np.testing.assert_allclose(y, x @ w, atol=1e-5)
  np.testing.assert_allclose(dx, dy @ w.T, atol=1e-5)
  want = x.reshape(-1, shape[0]).T @ dy.reshape(-1, shape[1])
  np.testing.assert_allclose(dw, want, atol=1e-5)
  assert dw.shape == w.shape


@pytest.mark.parametrize("dtype, atol", [("float32", 1e-5), ("bfloat16", 0.1)])
@pytest.mark.parametrize("rows", [(1,), (3, 1), (64,)])  # fewer, and more
def test_thin_matmul_is_matmul(rows, dtype, atol):
  rng = np.random.default_rng(0)
  x = jnp.asarray(rng.normal(size=(*rows, 24)), dtype)
  stored = jnp.asarray(rng.normal(size=(16, 24)), dtype)
  got = jax.jit(lambda x, w: thin_matmul(x, w.T))(x, stored)
  assert got.dtype == x.dtype and got.shape == (*rows, 16)
  want = np.asarray(x, np.float64) @ np.asarray(stored, np.float64).T
  np.testing.assert_allclose(np.asarray(got, np.float64), want, atol=atol)


@pytest.mark.parametrize(
  "field, value, words",
  [
    ("n_kv_heads", 3, "n_kv_heads=3 must divide n_heads=4"),
    ("head_dim", 5, "head_dim=5 must be even"),
    ("remat", "some", "none, products, layer"),
    ("compute_dtype", "float33", 'compute_dtype="float33" is unknown'),
    ("logit_dtype", None, "logit_dtype=None is unknown; known: float32,"),
    ("param_dtype", "int32", 'param_dtype="int32" is unknown'),
    ("n_heads", 0, "n_heads=0 must be at least 1"),
    ("n_layers", -2, "n_layers=-2 must be at least 1"),
    ("d_ff", "20", 'd_ff="20" must be a whole number'),
    ("d_model", 16.0, "d_model=16.0 must be a whole number"),
    ("vocab_size", True, "vocab_size=True must be a whole number"),
    ("max_length", None, "max_length=None must be a whole number"),
    ("rope_theta", 0.0, "rope_theta=0.0 must be above 0"),
    ("rms_eps", float("nan"), "rms_eps=nan must be a finite number"),
    ("rms_eps", "1e-6", 'rms_eps="1e-6" must be a finite number'),
    ("tied", "no", 'tied="no" must be True or False'),
    ("qk_norm", 1, "qk_norm=1 must be True or False"),
    ("rope_scaling", "yarn", 'rope_scaling="yarn" must be a group of keys'),
    ("rope_scaling", dict(kind="linear"), "rope_scaling.factor is missing"),
    (
      "rope_scaling", dict(kind="linear", factor=0.0),
      "rope_scaling.factor=0.0 must be above 0",
    ),
  ],
)  # fmt: skip
def test_bad_shapes_are_named(field, value, words):
  with pytest.raises(UserError, match=words):
    dataclasses.replace(TINY, **{field: value})
