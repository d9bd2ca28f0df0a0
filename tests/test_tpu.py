"""Compiles for TPU pods without one.

pip install -e ".[test,aot]" && python -m pytest tests/test_tpu.py
"""

import os

import jax
import jax.numpy as jnp
import pytest

pytest.importorskip("libtpu", reason='needs pip install -e ".[aot]"')
os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
# The compiler needs no TPU, so workers that run side by side need no lock.
os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")

from jax.experimental import topologies
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from r1jax import meshes, sharding
from r1jax import model as model_lib
from r1jax.model import ModelConfig, attention
from r1jax.model.attention import Kept
from r1jax.phases import grpo_update
from r1jax.sampling import cache, ragged, sampler
from r1jax.sampling import kernels as decode_kernels
from r1jax.training import packing
from r1jax.training.optimizer import OptimizerConfig
from r1jax.variants import Loss

MODEL = ModelConfig(
  vocab_size=1024, d_model=256, n_layers=2, n_heads=4, n_kv_heads=2,
  head_dim=128, d_ff=512, max_length=1024, compute_dtype="bfloat16",
  remat="layer",
)  # fmt: skip
N, G = 8, 8


@pytest.fixture(
  params=[
    ("v5e:2x4", dict(data=2, fsdp=2, tensor=2)),
    ("v5p:2x2x2", dict(data=1, fsdp=4, tensor=2)),
  ],
  ids=["v5e", "v5p"],
)
def mesh(request):
  name, axes = request.param
  topology = topologies.get_topology_desc(name, platform="tpu")
  return meshes.make_mesh(devices=topology.devices, **axes)


def whole(mesh, tree):
  """Shapes of what every device holds whole."""
  return jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(
      x.shape, x.dtype, sharding=sharding.replicated(mesh)
    ),
    tree,
  )


def ints(mesh, *shape):
  return whole(mesh, jax.ShapeDtypeStruct(shape, jnp.int32))


FLOAT = jax.ShapeDtypeStruct((), jnp.float32)


@pytest.mark.parametrize("kv_dtype", ["compute", "int8"])
def test_the_sampler(mesh, kv_dtype):
  config = sampler.SamplerConfig(
    slots=16, max_new_tokens=512, eos_id=1, kv_dtype=kv_dtype, chunk=128
  )
  lowered = sampler.Sampler(MODEL, config, G, mesh).lower(N, width=256)
  assert "tpu_custom_call" in lowered.prefill.as_text()  # the splash kernel
  memory = lowered.prefill.compile().memory_analysis()
  assert memory.temp_size_in_bytes > 0
  step = lowered.advance
  # The kernel of `sampling.ragged`, which does not know int8.
  assert ("tpu_custom_call" in step.as_text()) == (kv_dtype == "compute")
  assert step.compile().cost_analysis()["flops"] > 0


def gqa(k, v):
  return (
    Kept("k", 2, k, key=True, value=False, tokens_last=True),
    Kept("v", 2, v, key=False, value=True, tokens_last=False),
  )


LATENT = (
  Kept("c", 2, 256, key=True, value=True, tokens_last=False),
  Kept("r", 2, 64, key=True, value=False, tokens_last=True),
)


@pytest.mark.parametrize(
  "kept", [gqa(64, 64), gqa(128, 128), gqa(64, 128), LATENT]
)
def test_the_ring_is_read_where_it_lies(mesh, kept):
  """The largest: no copy for the kernel's sake, no list that is too long."""
  chunks, size, kv = ragged.MOST_VISITS // 256 + 1, 128, mesh.shape["tensor"]
  slots = 256 * mesh.size // kv

  def shape(spec, dtype, *dims):
    return jax.ShapeDtypeStruct(
      dims,
      dtype,
      sharding=NamedSharding(mesh.grid, sharding.fit(spec, dims, mesh)),
    )

  heads = P(sharding.ROWS, "tensor")
  ring = cache.Ring(
    {
      k.name: shape(
        cache.PLACES, jnp.bfloat16, chunks, slots,
        *k._replace(heads=kv).shape(size),
      )
      for k in kept
    },
    kept,
  )  # fmt: skip
  part = (heads, jnp.float32, slots, kv, 2)
  width = sum(k.width for k in kept if k.key)
  (out,) = (k.width for k in kept if k.value)
  with meshes.on(mesh):
    lowered = jax.jit(decode_kernels.join_ring).lower(
      attention.Partial(shape(*part, out), shape(*part), shape(*part)),
      shape(heads, jnp.bfloat16, slots, 2 * kv, 1, width), ring,
      ints(mesh, slots), ints(mesh),
    )  # fmt: skip
  assert "tpu_custom_call" in lowered.as_text()
  memory = lowered.compile().memory_analysis()
  assert memory.temp_size_in_bytes < memory.argument_size_in_bytes / 10


def lowered(mesh, optimizer, shared=False):
  """The programs of a GRPO update: name -> `Lowered`."""
  update = grpo_update.update_fn(MODEL, optimizer, mesh)
  batch = packing.pack(
    [], row_length=512, rows=8, micro_batches=2, shared=shared
  )
  shapes = update.shapes(batch)
  constants = shapes[0].params, Loss(beta=0.1), whole(mesh, FLOAT)
  return update.lower(*shapes, *constants)


@pytest.mark.parametrize("shared", [False, True])
def test_a_grpo_update(mesh, shared):
  step = lowered(mesh, OptimizerConfig(), shared)["step"]
  # Splash knows segments, and not the prompt that several share.
  assert ("tpu_custom_call" in step.as_text()) != shared
  assert step.compile().memory_analysis().temp_size_in_bytes > 0


def test_offloaded_moments(mesh):
  """AdamW's step finds and leaves them in the hosts' memory."""
  programs = lowered(mesh, OptimizerConfig(offload=True))
  assert set(programs) == {"gradients", "apply"}
  memory = programs["apply"].compile().memory_analysis()
  shards = mesh.shape["fsdp"] * mesh.shape["tensor"]
  moments = 8 * model_lib.param_count(model_lib.shapes(MODEL)) / shards
  # Parameters and gradients on the devices, four bytes a number each.
  assert memory.argument_size_in_bytes == pytest.approx(moments, rel=0.02)
  assert memory.host_argument_size_in_bytes == pytest.approx(moments, rel=0.02)
  assert memory.host_output_size_in_bytes == pytest.approx(moments, rel=0.02)
