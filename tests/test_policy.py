"""The chunked head against a plain log-softmax over whole logits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_model import random_params

from r1jax.model import Decoder, ModelConfig, init
from r1jax.training import policy

B, T, V = 2, 7, 37


def config(tied=True, **kwargs):
  return ModelConfig(
    **{
      **dict(
        vocab_size=V, d_model=16, n_layers=2, n_heads=4, n_kv_heads=2,
        head_dim=6, d_ff=24, max_length=32, tied=tied,
      ),
      **kwargs,
    }
  )  # fmt: skip


@pytest.fixture(scope="module")
def batch():
  rng = np.random.default_rng(0)
  tokens = rng.integers(V, size=(B, T))
  # Two segments and padding: nothing here is special to one row a sequence.
  positions = np.array([[0, 1, 2, 3, 4, 5, 6], [0, 1, 2, 0, 1, 0, 0]])
  segments = np.array([[1, 1, 1, 1, 1, 1, 1], [1, 1, 1, 2, 2, 0, 0]])
  targets = rng.integers(V, size=(B, T))
  return [jnp.asarray(x, jnp.int32) for x in (tokens, positions, segments,
                                              targets)]  # fmt: skip


def plain(model, params, tokens, positions, segments, targets, temperature):
  """The definition: whole logits, log-softmax, entropy."""
  logits = Decoder(model).apply({"params": params}, tokens, positions, segments)
  logp = jax.nn.log_softmax(logits / temperature)
  lp = jnp.take_along_axis(logp, targets[..., None], axis=-1)[..., 0]
  return lp, -(jnp.exp(logp) * logp).sum(-1)


def cotangents():
  """Some weight on each log-probability and each entropy."""
  rng = np.random.default_rng(1)
  return [jnp.asarray(rng.normal(size=(B, T)), jnp.float32) for _ in range(2)]


def value_and_gradient(f, params):
  """Outputs of f and the gradient of a random combination of them."""
  out, pull = jax.vjp(f, params)
  return out, pull(tuple(cotangents()))[0]


@pytest.mark.parametrize(
  # 3 and 5 do not divide T = 7, nor does 4 divide V = 11.
  "tied, chunk, tile, temperature",
  [(True, 3, 4, 1.0), (False, 5, V, 1.3)],
)
def test_equals_log_softmax(batch, tied, chunk, tile, temperature):
  model = config(tied)
  params = random_params(model)

  @jax.jit
  def both(p):
    want = value_and_gradient(lambda q: plain(model, q, *batch, temperature), p)
    got = value_and_gradient(
      lambda q: policy.logprobs(
        model, q, policy.Rows(*batch), temperature, chunk, tile
      ),
      p,
    )
    return want, got

  (want, want_grad), (got, grad) = both(params)
  for x, y in zip(got, want):
    assert x.dtype == jnp.float32 and x.shape == (B, T)
    np.testing.assert_allclose(x, y, atol=1e-5)
  jax.tree.map(
    lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=2e-5),
    grad,
    want_grad,
  )
  for leaf in jax.tree.leaves(grad):
    assert np.abs(leaf).max() > 1e-3


@pytest.mark.parametrize(
  "chunk, tile",
  [(1, V), (2, 1), (3, 2), (4, 4), (7, V - 1), (9, V + 1)],
)
def test_any_chunk_and_tile_give_the_same(chunk, tile):
  rng = np.random.default_rng(5)
  h = jnp.asarray(rng.normal(size=(B, T, 8)), jnp.float32)
  head = jnp.asarray(rng.normal(size=(V, 8)), jnp.float32)
  target = jnp.asarray(rng.integers(V, size=(B, T)))

  def whole(args):
    logp = jax.nn.log_softmax(args[0] @ args[1].T)
    lp = jnp.take_along_axis(logp, target[..., None], axis=-1)[..., 0]
    return lp, -(jnp.exp(logp) * logp).sum(-1)

  want = value_and_gradient(whole, (h, head))
  got = jax.jit(
    lambda args: value_and_gradient(
      lambda a: policy.head_logprobs(*a, target, chunk, tile), args
    )
  )((h, head))
  jax.tree.map(
    lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=2e-5),
    got,
    want,
  )


@pytest.mark.parametrize("chunk", [1, 3, 7])
def test_what_is_not_trained_plays_no_part(chunk):
  """The rest may be anything: with chunks of one it may even be NaN."""
  rng = np.random.default_rng(6)
  h = rng.normal(size=(B, T, 8)).astype(np.float32)
  head = jnp.asarray(rng.normal(size=(V, 8)), jnp.float32)
  target = jnp.asarray(rng.integers(V, size=(B, T)))
  # As many in each row, or one would take part where another is done.
  trained = rng.permuted(np.tile(np.arange(T) < 3, (B, 1)), axis=1)
  trained[0] &= chunk == 1
  other = np.where(trained[..., None], h, np.nan if chunk == 1 else 3.0)

  def wanted(args):
    outputs = policy.head_logprobs(*args, target, T, V)
    return tuple(jnp.where(trained, x, 0) for x in outputs)

  def got(args):
    return policy.head_logprobs(
      *args, target, chunk, 4, trained=jnp.asarray(trained)
    )

  want, grads = value_and_gradient(wanted, (jnp.asarray(h), head))
  have, other_grads = value_and_gradient(got, (jnp.asarray(other), head))
  for x, y in zip((*have, *other_grads), (*want, *grads)):
    np.testing.assert_allclose(x, y, rtol=1e-4, atol=2e-5)
  assert (np.asarray(have[0])[~trained] == 0).all()


@pytest.mark.parametrize("which", [0, 1], ids=["logprobs", "entropy"])
def test_each_output_has_its_own_gradient(which):
  """By hand for one position: W (e_y - p), and -W p (log p + H)."""
  rng = np.random.default_rng(3)
  h = rng.normal(size=(1, 1, 4)).astype(np.float32)
  head = rng.normal(size=(6, 4)).astype(np.float32)
  target = jnp.array([[2]])
  logp = h[0, 0] @ head.T
  logp = logp - np.log(np.exp(logp).sum())
  p = np.exp(logp)
  entropy = -(p * logp).sum()
  dz = (np.eye(6)[2] - p, -p * (logp + entropy))[which]
  got = jax.jit(
    jax.grad(
      lambda h, w: policy.head_logprobs(h, w, target, 1, 6)[which].sum(), (0, 1)
    )
  )(h, head)
  np.testing.assert_allclose(got[0][0, 0], head.T @ dz, atol=1e-5)
  np.testing.assert_allclose(got[1], np.outer(dz, h), atol=1e-5)


def test_bfloat16_stays_near_float32(batch):
  model = config(tied=False)
  params = random_params(model)
  low = config(tied=False, compute_dtype="bfloat16")

  @jax.jit
  def both(p):
    rows = policy.Rows(*batch)
    return policy.logprobs(low, p, rows), policy.logprobs(model, p, rows)

  got, want = both(params)
  for x, y in zip(got, want):
    assert x.dtype == jnp.float32
    np.testing.assert_allclose(x, y, atol=0.15)


def test_logit_dtype_rounds_the_logits():
  rng = np.random.default_rng(4)
  h = jnp.asarray(rng.normal(size=(1, 5, 8)), jnp.float32)
  head = jnp.asarray(rng.normal(size=(11, 8)), jnp.float32)
  target = jnp.asarray(rng.integers(11, size=(1, 5)))
  got = policy.head_logprobs(h, head, target, 2, 3, "bfloat16")[0]
  z = (h @ head.T).astype(jnp.bfloat16).astype(jnp.float32)
  want = jnp.take_along_axis(jax.nn.log_softmax(z), target[..., None], -1)
  np.testing.assert_allclose(got, want[..., 0], atol=1e-5)


def shapes(jaxpr):
  """Shapes of everything computed in a jaxpr and in those inside of it."""
  for eqn in jaxpr.eqns:
    for var in eqn.outvars:
      yield tuple(getattr(var.aval, "shape", ()))
    for leaf in jax.tree.leaves(list(eqn.params.values())):
      inner = getattr(leaf, "jaxpr", leaf)
      if hasattr(inner, "eqns"):
        yield from shapes(inner)


@pytest.mark.parametrize("tied", [True, False])
def test_logits_are_never_whole(tied):
  """Neither forward nor backward, by the shapes that are computed."""
  rows, length, vocabulary, chunk = 4, 64, 4096, 8
  model = config(tied, vocab_size=vocabulary)
  params = jax.eval_shape(lambda k: init(model, k), jax.random.key(0))
  ids = jax.ShapeDtypeStruct((rows, length), jnp.int32)

  def loss(p, score):
    lp, entropy = score(p)
    return (lp + 0.1 * entropy).sum()

  def largest(score):
    def f(p, *batch):
      return jax.value_and_grad(loss)(p, lambda q: score(q, *batch))

    jaxpr = jax.make_jaxpr(f)(params, ids, ids, ids, ids).jaxpr
    return max(int(np.prod(s)) for s in shapes(jaxpr))

  whole = rows * length * vocabulary
  seen = largest(
    lambda p, *b: policy.logprobs(model, p, policy.Rows(*b), chunk=chunk)
  )
  assert seen <= rows * chunk * vocabulary < whole
  # The walk sees them where they exist.
  assert largest(lambda p, *b: plain(model, p, *b, 1.0)) >= whole


def test_default_chunk_bounds_the_logits():
  model = config(vocab_size=1 << 15)
  params = jax.eval_shape(lambda k: init(model, k), jax.random.key(0))
  ids = jax.ShapeDtypeStruct((4, 256), jnp.int32)
  jaxpr = jax.make_jaxpr(
    lambda p, *b: policy.logprobs(model, p, policy.Rows(*b))
  )(params, ids, ids, ids, ids).jaxpr
  largest = max(int(np.prod(s)) for s in shapes(jaxpr))
  assert largest <= policy.CHUNK_LOGITS_CPU < 4 * 256 << 15
