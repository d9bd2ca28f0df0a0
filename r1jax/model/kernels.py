"""The choice of the attention kernel for whole sequences, by platform.

TPU runs the splash kernel that JAX ships, GPU that of cuDNN. Other platforms,
and shapes that these kernels do not support, run `tiles` in plain XLA. Memory
is linear in T except for cuDNN, which takes the mask as an array and therefore
gets no long rows.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental.pallas.ops.tpu import splash_attention as splash
from jax.sharding import PartitionSpec

from r1jax import meshes, sharding
from r1jax.model import attention, tiles

# Tokens of the smallest tile of the splash kernel.
SPLASH_TILE = 128
# Tokens of the longest row whose mask is worth its memory: 128 MiB in 16 bits,
# and in JAX 0.10 the same again for a gradient that nobody asked for. It is
# the same for all layers, and JAX keeps it once.
LONGEST_MASK = 8192


def attend(
  q: jax.Array,
  k: jax.Array,
  v: jax.Array,
  segments: jax.Array,
  prefixes: jax.Array | None,
  span: attention.Span | None = None,
) -> jax.Array:
  """Causal attention within segments, by the platform's kernel.

  Args:
    q: [B, H, T, D], k: [B, K, D, T], v: [B, K, T, E], as of `attention.attend`.
    segments: [B, T] int32, as of `attention.causal_mask`.
    prefixes: [B, T] int32 or None, as of `attention.causal_mask`. Splash
      supports no prefixes, nor rows that are no multiple of `SPLASH_TILE`.
    span: as of `attention.causal_mask`. Splash supports none.

  Returns:
    [B, H, T, E] in the dtype of q; padding gets values without meaning.
  """
  t = q.shape[2]
  plain = prefixes is None and span is None
  if meshes.platform() == "tpu" and plain and not t % SPLASH_TILE:
    return splash_attend(q, k, v, segments)
  if t <= 2 * tiles.SMALLEST:
    mask = attention.causal_mask(segments, prefixes, span)
    return attention.attend(q, k, v, mask)
  if meshes.platform() == "gpu" and cudnn_takes(q, v):
    return cudnn_attend(q, k, v, segments, prefixes, span)
  # Not over the whole mesh: each device then visits only its own rows' pairs.
  return _by_rows_and_heads(
    tiles.attend, q, k, v, segments, prefixes, *(span or ())
  )


def splash_attend(
  q: jax.Array,
  k: jax.Array,
  v: jax.Array,
  segments: jax.Array,
  interpret: bool = False,
) -> jax.Array:
  """`attend` by the splash kernel, without prefixes.

  Args:
    q, k, v, segments: as of `attend`.
    interpret: runs on any platform, slowly; for tests.
  """
  # The compiler cannot split a kernel over the mesh, so this does.
  return _by_rows_and_heads(
    functools.partial(_splash, interpret=interpret), q, k, v, segments
  )


def cudnn_takes(q: jax.Array, v: jax.Array) -> bool:
  """Whether cuDNN's flash attention supports such queries and values.

  These are the conditions of `jax.nn.dot_product_attention`, forward and
  backward, on every GPU from NVIDIA's Ampere on.

  Args:
    q: [B, H, T, D].
    v: [B, K, T, E].
  """
  _, _, t, d = q.shape
  capability = getattr(meshes.device(), "compute_capability", "")
  generation = str(capability).partition(".")[0]
  return (
    generation.isdigit()
    and int(generation) >= 8
    and q.dtype in (jnp.bfloat16, jnp.float16)
    and d % 8 == 0
    and v.shape[3] == d
    and d <= 128
    and t % 8 == 0
    and t <= LONGEST_MASK
  )


def cudnn_attend(
  q: jax.Array,
  k: jax.Array,
  v: jax.Array,
  segments: jax.Array,
  prefixes: jax.Array | None = None,
  span: attention.Span | None = None,
  implementation: str = "cudnn",
) -> jax.Array:
  """`attend` by cuDNN.

  Args:
    q, k, v, segments, prefixes, span: as of `attend`.
    implementation: "xla" runs on any platform, in quadratic memory; for tests.
  """
  return _by_rows_and_heads(
    functools.partial(_cudnn, implementation), q, k, v, segments, prefixes,
    *(span or ()),
  )  # fmt: skip


def of_cudnn(primitive: Any, *_, **__) -> bool:
  """A policy of `jax.checkpoint` that keeps what cuDNN's attention returns.

  Not by name like the policies of the other kernels, since only JAX sees its
  normaliser.
  """
  return primitive.name.startswith("dot_product_attention")


def _cudnn(implementation, q, k, v, segments, prefixes, *span):
  span = attention.Span(*span) if span else None
  mask = attention.causal_mask(segments, prefixes, span)
  # Padding looks at itself. Masked scores are finite there, about -1e12; in a
  # row of nothing else the normaliser's logarithm would be lost to rounding.
  mask |= jnp.eye(q.shape[2], dtype=bool)[None]
  # `is_causal` besides, so that what lies beyond the diagonal is not computed.
  out = jax.nn.dot_product_attention(
    q.swapaxes(1, 2), k.transpose(0, 3, 1, 2), v.swapaxes(1, 2),
    mask=mask[:, None], is_causal=True, implementation=implementation,
  )  # fmt: skip
  return out.swapaxes(1, 2)


def _by_rows_and_heads(attend_local, q, k, v, *marks):
  """Runs `attend_local` on each device's own rows and heads.

  Args:
    attend_local: function of the other arguments.
    q, k, v: as of `attend`.
    *marks: [B, T] arrays or None.
  """
  mesh = meshes.current()
  if mesh is not None and mesh.size > 1:
    heads = sharding.fit(PartitionSpec(sharding.ROWS, "tensor"), k.shape, mesh)
    rows = sharding.fit(PartitionSpec(sharding.ROWS), marks[0].shape, mesh)
    attend_local = jax.shard_map(
      attend_local, mesh=mesh.grid,
      in_specs=(heads,) * 3 + (rows,) * len(marks), out_specs=heads,
      check_vma=False,
    )  # fmt: skip
  return attend_local(q, k, v, *marks)


def _splash(q, k, v, segments, interpret):
  _, h, t, d = q.shape
  size = next(b for b in (512, 256, SPLASH_TILE) if t % b == 0)
  kernel = splash.make_splash_mha(
    splash.MultiHeadMask([splash.CausalMask((t, t))] * h),
    block_sizes=splash.BlockSizes(
      block_q=size, block_kv=size, block_kv_compute=size, block_q_dkv=size,
      block_kv_dkv=size, block_kv_dkv_compute=size, use_fused_bwd_kernel=True,
    ),
    head_shards=1,
    q_seq_shards=1,
    residual_checkpoint_name=attention.ATTENTION,
    interpret=interpret,
  )  # fmt: skip
  q = (q.astype(jnp.float32) * d**-0.5).astype(q.dtype)
  out = jax.vmap(kernel)(
    q, k.swapaxes(2, 3), v, splash.SegmentIds(segments, segments)
  )
  return out.astype(q.dtype)
