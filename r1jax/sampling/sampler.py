"""Sampling completions from the learner's own parameters.

Prompts of about equal length are prefilled together, each once. S slots decode
side by side; a slot that finishes a completion takes the next one from the
queue inside the same compiled loop, so no slot waits for the longest of a
batch. (On a mesh every shard of slots has its own queue, see `pool`.) The
draw of token t of a completion uses fold_in(fold_in(key, index), t) and
nothing else: it does not depend on the slot or on the other completions.

The host looks at the results every `stride` steps. It hands out what is
finished and loads the next prompts in place of those that are complete, while
the device decodes on.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from r1jax import sharding
from r1jax.errors import UserError
from r1jax.sampling import endings as endings_lib
from r1jax.sampling import pool, programs, step, weights
from r1jax.sampling.config import SamplerConfig, Static, check_tokens
from r1jax.sampling.programs import Programs
from r1jax.types import Rollout

__all__ = ["Callbacks", "Loaded", "Sampler", "SamplerConfig"]


class Loaded(NamedTuple):
  """A model's parameters, ready to sample from.

  Attributes:
    params: the parameters, as the prefill uses them.
    weights: the `weights.Weights`, as the decoding steps use them.
  """

  params: Any
  weights: weights.Weights


class Callbacks(NamedTuple):
  """Functions that `Sampler.sample` calls while it samples.

  Attributes:
    on_finished: function of (ids, rows): numbers of newly finished completions
      and their rows of the `Rollout`, as numpy arrays. It is called once for
      each completion, while the device decodes the others.
    on_look: function of a `step.Look`, called after every stride.
    end_of: function of (tokens, seen): a completion's tokens so far, of which
      the first `seen` were shown to it before. It returns the number of tokens
      after which the completion ends, or None. `text.stops.Stops.end` is one.
  """

  on_finished: Callable | None = None
  on_look: Callable | None = None
  end_of: Callable | None = None


@dataclasses.dataclass(frozen=True)
class Sampler(Static):
  """Draws G completions of each prompt; see `Static` for the attributes.

  Example:
    sampler = Sampler(model_config, SamplerConfig(...), group=8)
    rollout = sampler.sample(sampler.load(params), prompts, key)
  """

  def load(self, params: Any) -> Loaded:
    """Lays out a model's parameters for sampling, in the compute dtype.

    Do this once for each new set of parameters, not for each call of `sample`.

    Args:
      params: the learner's parameters, on the mesh.

    Returns:
      a `Loaded`.
    """
    return Loaded(params, weights.lay_out(self.model, params))

  def sample(
    self,
    loaded: Loaded,
    prompts: Sequence,
    key: jax.Array,
    temperature: float = 1.0,
    indices: np.ndarray | None = None,
    limits: np.ndarray | None = None,
    callbacks: Callbacks | None = None,
  ) -> Rollout:
    """G completions of each of N prompts.

    Args:
      loaded: what `load` returned.
      prompts: N sequences of token ids, none of them empty.
      key: typed PRNG key of this rollout.
      temperature: divides the logits.
      indices: [N * G] integers, the sample index of each completion, which is
        folded into its key. Prompt n has the entries n G to n G + G - 1. None
        for 0, 1, 2, ...
      limits: [N * G] integers, the most tokens of each completion; None for
        `max_new_tokens`.
      callbacks: the `Callbacks`, or None.

    Returns:
      the `Rollout` of C = N G completions. Its log-probabilities are those of
      the distribution at this temperature that the token was drawn from: with
      top_k or top_p, within the kept tokens, which `kept` lists if asked.

    Raises:
      UserError: a prompt is empty, or has a token that the model has not; or
        the config has stop strings and `callbacks` has no `end_of`.
    """
    _check_prompts(prompts, self.model.vocab_size)
    callbacks = callbacks or Callbacks()
    if self.config.stop and callbacks.end_of is None:
      raise UserError(
        f"sampler: stop={self.config.stop} needs the text of tokens; pass"
        " Callbacks(end_of=Stops(strings, tokenizer.decode).end)"
      )
    static, count = self.divided(len(prompts))
    texts, number = _queue_order(prompts, count // len(prompts), static.group)
    if indices is None:
      indices = np.arange(len(number))
    if limits is None:
      limits = np.full(len(number), self.config.max_new_tokens)
    inputs = step.Inputs(
      loaded.weights,
      np.asarray(indices, np.int32)[number],
      np.asarray(limits, np.int32)[number],
      key,
      jnp.asarray(temperature, jnp.float32),
    )
    places = pool.Places(static, loaded.params, texts)
    rollout = _run(static, inputs, places, number, callbacks)
    return _rows(rollout, np.argsort(number))

  def shapes(self, prompts: int, width: int) -> Programs:
    """Abstract inputs of the compiled programs.

    Args:
      prompts: N.
      width: tokens of the longest prompt.

    Returns:
      `Programs` of tuples: what each program takes besides its static
      arguments.
    """
    return programs.shapes(*self.divided(prompts), width)

  def lower(self, prompts: int, width: int) -> Programs:
    """The programs before compilation; arguments as of `shapes`.

    Returns:
      `Programs` of `jax.stages.Lowered`.
    """
    return programs.lower(*self.divided(prompts), width)


def _check_prompts(prompts, vocabulary):
  """Raises a `UserError` for a prompt that cannot be completed."""
  for n, prompt in enumerate(map(np.asarray, prompts)):
    if not len(prompt):
      raise UserError(
        f"sampler: prompt {n} is empty; give it a token, such as the"
        " beginning-of-text token"
      )
    check_tokens(f"sampler: prompt {n}", prompt, vocabulary)


def _queue_order(prompts, parts, group):
  """The prompts in the order in which they are prefilled.

  Prompts of about equal length are prefilled together, so they are sorted.
  What a completion is does not depend on it.

  Args:
    prompts: N sequences of token ids.
    parts: how often each prompt occurs.
    group: completions of each occurrence.

  Returns:
    texts, N * parts arrays of token ids; and [C] int, the caller's number of
    each completion of these texts.
  """
  texts = [np.asarray(prompt) for prompt in prompts for _ in range(parts)]
  order = sorted(range(len(texts)), key=lambda n: len(texts[n]))
  number = (np.asarray(order)[:, None] * group + np.arange(group)).ravel()
  return [texts[n] for n in order], number


def _run(static, inputs, places, number, callbacks):
  """The host loop: calls `step.advance` until all completions are finished.

  Args:
    static: the `Static`.
    inputs: the `step.Inputs`.
    places: the `pool.Places`, still empty.
    number: [C] int, the caller's number of each completion.
    callbacks: the `Callbacks`.

  Returns:
    the `Rollout`, in the order of `inputs`.
  """
  shards = sharding.row_shards(static.mesh)
  state = step.begin(static, len(number))
  seen, batches, clock = np.zeros(len(number), bool), [], 0
  end_of = callbacks.end_of
  endings = endings_lib.Endings(end_of, len(number)) if end_of else None
  while not seen.all():
    places.fill()
    state, look = step.advance(static, inputs, places.pool, state, places.book)
    # The device is at work before the host handles the earlier completions.
    _hand_out(batches, number, callbacks)
    look = jax.device_get(look)
    if endings is not None:
      state, look = endings(state, look)
    if callbacks.on_look is not None:
      callbacks.on_look(look)
    finished = look.lengths > 0
    places.release(finished)
    state = step.next_chunk(state, clock, look.clock)
    clock, batches = look.clock, []
    if callbacks.on_finished is not None:
      (new,) = np.nonzero(finished & ~seen)
      batches = list(_batches(state.rollout, new, len(state.id)))
    seen = finished
    (left,) = np.nonzero(~seen)
    if look.taken == len(seen) and len(left):
      most = np.bincount(places.shards(left // static.group)).max()
      sizes = step.smaller_batches(static, len(state.id))
      if enough := [n for n in sizes if n >= most * shards]:
        state = step.shrink(static, min(enough), state)
  _hand_out(batches, number, callbacks)
  return state.rollout


def _batches(rollout, ids, size):
  """Yields ids and their rows, `size` at a time, by one compiled program."""
  for i in range(0, len(ids), size):
    part = ids[i : i + size]
    padded = np.pad(part, (0, size - len(part)), mode="edge")
    # The sets are large, and nobody reads them before the rollout is complete.
    yield part, _rows(rollout._replace(kept=None), padded)


def _hand_out(batches, number, callbacks):
  """Calls `on_finished` for batches of finished completions."""
  for ids, rows in batches:
    rows = jax.tree.map(lambda x: np.asarray(x)[: len(ids)], rows)
    callbacks.on_finished(number[ids], rows)


@jax.jit
def _rows(rollout, ids):
  return jax.tree.map(lambda x: x[ids], rollout)
