"""Ends completions whose text says so, which the device does not read.

The host looks at the tokens after every stride. A completion that should have
ended earlier is cut there. The tokens of another completion do not depend on
when that is noticed, so strides change nothing but the time.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from r1jax.sampling.step import Look, State


class Endings:
  """Cuts the completions of one rollout.

  Args:
    end_of: as in `sampler.Callbacks`.
    total: C, completions of the rollout.
  """

  def __init__(self, end_of: Callable, total: int) -> None:
    self._end_of = end_of
    self._seen = np.zeros(total, int)

  def __call__(self, state: State, look: Look) -> tuple[State, Look]:
    """The state and the look at it, with these completions finished.

    Args:
      state: that `advance` returned.
      look: at it, on the host.
    """
    total = len(self._seen)
    ids, done = jax.device_get((state.id, state.done))
    lengths = np.array(look.lengths)
    lengths[ids[ids < total]] = done[ids < total]
    ends = np.zeros(total, np.int32)
    (new,) = np.nonzero(lengths > self._seen)
    for i in range(0, len(new), len(ids)):
      part = new[i : i + len(ids)]
      padded = np.pad(part, (0, len(ids) - len(part)), mode="edge")
      for n, tokens in zip(part, np.asarray(_rows(state.rollout, padded))):
        end = self._end_of(tokens[: lengths[n]], int(self._seen[n]))
        ends[n] = end or 0
    self._seen[new] = lengths[new]
    if not ends.any():
      return state, look
    rollout, id, done = _cut(state.rollout, state.id, state.done, ends)
    cut: Any = np.where(ends > 0, ends, look.lengths)
    # Nothing of a cut completion is new any more.
    self._seen[ends > 0] = np.iinfo(int).max
    return (
      state._replace(rollout=rollout, id=id, done=done),
      look._replace(lengths=cut),
    )


@jax.jit
def _rows(rollout, ids):
  return rollout.tokens[ids]


@jax.jit
def _cut(rollout, id, done, ends):
  """Shortens completions to `ends` [C], where it is not 0; frees their slots.

  Args:
    rollout: the `Rollout`.
    id, done: [S] int32, of the `State`.
    ends: [C] int32.
  """
  stopped = ends > 0
  columns = jnp.arange(rollout.tokens.shape[1])
  after = stopped[:, None] & (columns[None] >= ends[:, None])
  # An idle slot has the number C.
  idle = jnp.append(stopped, True)[id]
  rollout = rollout._replace(
    tokens=jnp.where(after, 0, rollout.tokens),
    logprobs=jnp.where(after, 0.0, rollout.logprobs),
    lengths=jnp.where(stopped, ends, rollout.lengths),
    ended=rollout.ended | stopped,
  )
  return rollout, jnp.where(idle, len(ends), id), jnp.where(idle, 0, done)
