"""Which attention a platform runs: chosen here only.

Of whole sequences: on TPU the splash kernel that JAX ships, on GPU cuDNN's;
elsewhere, and for what these do not know, XLA block by block. The memory is
linear in T, but for cuDNN, which wants the mask of the segments as an array:
it does not get long rows.
"""

import functools

import jax
import jax.numpy as jnp
from jax.experimental.pallas.ops.tpu import splash_attention as splash
from jax.sharding import PartitionSpec as P

from r1jax import meshes, sharding
from r1jax.model import attention, blocks

# Tokens of the kernel's smallest block.
BLOCK = 128
# Tokens of the longest row whose mask is worth its memory: 128 MiB in 16 bits,
# and in JAX 0.10 the same again for a gradient that nobody asked for. It is
# the same for all layers, and JAX keeps it once.
LONGEST_MASK = 8192


def attend(q, k, v, segments, prefixes):
  """Causal attention within segments, by the platform's kernel.

  Args:
    q, k, v: as of `attention.attend`, T = U.
    segments: [B, T] int32, 0 for padding.
    prefixes: [B, T] int32 or None, as of `attention.causal_mask`. Splash
      knows none of these, nor rows that are no multiple of `BLOCK`.

  Returns:
    [B, H, T, D] in the dtype of q; anything in padding.
  """
  t = q.shape[2]
  if meshes.platform() == "tpu" and prefixes is None and not t % BLOCK:
    return splash_attend(q, k, v, segments)
  if t <= 2 * blocks.SMALLEST:
    mask = attention.causal_mask(segments, prefixes)
    return attention.attend(q, k, v, mask)
  if meshes.platform() == "gpu" and cudnn_takes(q):
    return cudnn_attend(q, k, v, segments, prefixes)
  # Not over the whole mesh: every device then visits only its own rows' pairs.
  return _by_rows_and_heads(blocks.attend, q, k, v, segments, prefixes)


def splash_attend(q, k, v, segments, interpret=False):
  """`attend` by the splash kernel.

  Args:
    interpret: on any platform, slowly; for tests.
  """
  # The compiler cannot split a kernel; by rows and heads it is ours to do.
  return _by_rows_and_heads(
    functools.partial(_splash, interpret=interpret), q, k, v, segments
  )


def cudnn_takes(q):
  """Whether cuDNN's flash attention takes such queries on this GPU.

  What `jax.nn.dot_product_attention` demands of them, forward and backward, on
  any GPU; of the GPU, Ampere or later, and not AMD's.
  """
  _, _, t, d = q.shape
  capability = getattr(meshes.device(), "compute_capability", "")
  generation = str(capability).partition(".")[0]
  return (
    generation.isdigit()
    and int(generation) >= 8
    and q.dtype in (jnp.bfloat16, jnp.float16)
    and d % 8 == 0
    and d <= 128
    and t % 8 == 0
    and t <= LONGEST_MASK
  )


def cudnn_attend(q, k, v, segments, prefixes=None, implementation="cudnn"):
  """`attend` by cuDNN.

  Args:
    implementation: "xla" on any platform, in quadratic memory; for tests.
  """
  return _by_rows_and_heads(
    functools.partial(_cudnn, implementation), q, k, v, segments, prefixes
  )


def of_cudnn(primitive, *_, **__):
  """A policy of `jax.checkpoint`: what cuDNN's attention returns is kept.

  Not by name as with the others, since only JAX sees its normaliser.
  """
  return primitive.name.startswith("dot_product_attention")


def _cudnn(implementation, q, k, v, segments, prefixes):
  mask = attention.causal_mask(segments, prefixes)
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
  """Each device its rows and heads; `marks` [B, T] or None go by rows."""
  mesh = meshes.current()
  if mesh is not None and mesh.size > 1:
    heads = sharding.fit(P(sharding.ROWS, "tensor"), k.shape, mesh)
    rows = sharding.fit(P(sharding.ROWS), marks[0].shape, mesh)
    attend_local = jax.shard_map(
      attend_local, mesh=mesh, in_specs=(heads,) * 3 + (rows,) * len(marks),
      out_specs=heads, check_vma=False,
    )  # fmt: skip
  return attend_local(q, k, v, *marks)


def _splash(q, k, v, segments, interpret):
  _, h, t, d = q.shape
  size = next(b for b in (512, 256, BLOCK) if t % b == 0)
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
