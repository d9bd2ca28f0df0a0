"""However a batch is computed, its gradient is that of the plain layout."""

import functools
import itertools

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_model import random_params
from test_shared_prompts import groups

from r1jax import losses, meshes
from r1jax import model as model_lib
from r1jax.model import ModelConfig
from r1jax.model.config import REMATS
from r1jax.training import learner, packing, policy

# Long enough for attention in blocks; the plain rows are not.
ROW, LONGEST = 192, 48
MODEL = {
  remat: ModelConfig(
    vocab_size=32, d_model=16, n_layers=2, n_heads=4, n_kv_heads=2, head_dim=8,
    d_ff=32, max_length=256, remat=remat,
  )
  for remat in REMATS
}  # fmt: skip
PARAMS = random_params(MODEL["none"])
SHAPES = st.lists(
  st.tuples(
    st.integers(1, 24), st.lists(st.integers(1, 24), min_size=1, max_size=6)
  ),
  min_size=1,
  max_size=4,
)


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def gradient(remat, chunk, mesh, params, reference, batch):
  """Of GRPO's loss with a KL term, entropies among the metrics.

  Args:
    chunk: of `policy.logprobs`; without, the only micro-batch's gradient as
      JAX has it, which nothing accumulates.
  """
  model = MODEL[remat]

  def logprobs(p, b):
    return policy.logprobs(model, p, policy.rows_of(b), chunk=chunk)

  def loss(p, b):
    lp, entropy = logprobs(p, b)
    ref, _ = jax.lax.stop_gradient(logprobs(reference, b))
    value, metrics = losses.grpo_loss(
      lp, b.old_logprobs, ref, b.advantages, b.weights, 0.2, 0.1
    )
    return value, {**metrics, "entropy": (b.weights * entropy).sum()}

  with meshes.on(mesh):
    if chunk is None:
      (value, metrics), grads = jax.value_and_grad(loss, has_aux=True)(
        params, learner.micro_batch(batch, 0)
      )
      return {"loss": value, **metrics}, grads
    grads, metrics = learner.accumulate(loss, params, batch)
  return metrics, grads


REFERENCE = jax.tree.map(lambda x: 0.9 * x, PARAMS)


def plain(sequences):
  """One sequence a row, its own prompt, everything kept, all logits."""
  rows = [
    packing.pack(
      [s._replace(prompt=0)], row_length=LONGEST, rows=1, micro_batches=1
    )
    for s in sequences
  ]
  # As many rows for all, so that one compiled program serves them.
  rows += [packing.pack([], row_length=LONGEST, rows=1, micro_batches=1)] * (
    24 - len(rows)
  )
  batch = jax.tree.map(
    lambda *x: np.concatenate(x, axis=1),
    *(r._replace(count=None) for r in rows),
  )
  return gradient(
    "none", None, None, PARAMS, REFERENCE, batch._replace(count=np.int32(1))
  )


def equal(got, want):
  jax.tree.map(
    lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-5),
    got, want,
  )  # fmt: skip


# (remat, chunk, rows). Each way is compiled, so the fast test has half of them:
# each two values of any two of the three meet.
ALL_WAYS = list(itertools.product(REMATS, (7, ROW), (1, 2)))
WAYS = [
  (remat, chunk, rows)
  for i, remat in enumerate(REMATS)
  for chunk, rows in (((7, 1), (ROW, 2)), ((7, 2), (ROW, 1)))[i % 2]
]


@settings(max_examples=30, deadline=None)
@given(SHAPES, st.integers(0, 99), st.sampled_from(WAYS), st.booleans())
def test_every_way_gives_the_plain_gradient(shapes, seed, way, shared):
  """Packed, sharing prompts, accumulated, chunked and rematerialised."""
  check_way(shapes, seed, way, shared)


@pytest.mark.slow
@settings(max_examples=30, deadline=None)
@given(SHAPES, st.integers(0, 99), st.sampled_from(ALL_WAYS), st.booleans())
def test_so_do_all_combinations(shapes, seed, way, shared):
  check_way(shapes, seed, way, shared)


def check_way(shapes, seed, way, shared):
  remat, chunk, rows = way
  sequences = groups(seed, shapes)
  batch = packing.pack(
    sequences, row_length=ROW, rows=rows, micro_batches=16 // rows,
    shared=shared,
  )  # fmt: skip
  got = gradient(remat, chunk, None, PARAMS, REFERENCE, batch)
  equal(got, plain(sequences))


@settings(max_examples=4, deadline=None)
@given(SHAPES, st.integers(0, 99))
def test_so_does_a_mesh(shapes, seed):
  """Eight devices: rows over four, heads over two."""
  mesh = meshes.make_mesh(data=2, fsdp=2, tensor=2)
  sequences = groups(seed, shapes)
  batch = packing.pack(
    sequences, row_length=ROW, rows=4, micro_batches=4, shared=True
  )
  got = gradient(
    "products", 64, mesh, model_lib.place(MODEL["none"], PARAMS, mesh),
    model_lib.place(MODEL["none"], REFERENCE, mesh), learner.place(batch, mesh),
  )  # fmt: skip
  equal(got, plain(sequences))
