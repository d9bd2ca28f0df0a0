"""The words that the modules share, and the glossary of axes.

Axes, the same letter everywhere:

  N  prompts (questions) of a rollout
  G  completions of one prompt, its group
  C  completions of a rollout, C = N * G
  P  tokens of a prompt
  M  micro-batches of an optimizer step
  B  rows of a micro-batch
  T  tokens of a row, or of a completion
  U  tokens that are attended to
  V  vocabulary
  S  decoding slots of the sampler
  L  layers
  H  query heads
  K  key/value heads
  D  dimensions of a head
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
  # Verifiers' worker processes need these words, but no JAX.
  import jax


@dataclasses.dataclass(frozen=True)
class Problem:
  """A question whose answer a verifier can judge.

  This class is the only list of a problem's fields. Files of problems and the
  protocol of the judges derive theirs from it.

  Attributes:
    id: unique within its data set.
    kind: names the verifier, see `r1jax.verifiers.find`, and may select the
      weights of `rewards.kinds`.
    prompt: all the text that the policy sees, with the template applied.
    answer: one right answer, for people and for cold starts.
    language: ISO 639-1 code of the question, see `verifiers.language`.
    data: whatever else the verifier needs; plain JSON.
    verifier: "package.module:function", a verifier other than the kind's own.
      A config sets it; files do not hold it.
  """

  id: str
  kind: str
  prompt: str
  answer: str
  language: str
  data: Mapping[str, Any]
  verifier: str = ""


@dataclasses.dataclass(frozen=True)
class Example:
  """A prompt and the completion to imitate; only the latter is trained."""

  prompt: str
  completion: str


@dataclasses.dataclass(frozen=True)
class Verdict:
  """A verifier's judgement of a completion.

  Attributes:
    correct: whether the answer is right.
    score: in [0, 1]; 1.0 exactly where `correct`.
    reason: "correct", "wrong", "no_answer", "unparsable", ...; the share of
      each is logged.
    cut: whether the completion reached the length limit before its end.
    judged: False if nobody can judge the problem; RL then ignores its group.
  """

  correct: bool
  score: float
  reason: str
  cut: bool = False
  judged: bool = True


class TrainState(NamedTuple):
  """All that an optimiser step reads and writes.

  Attributes:
    step: [] int32, optimiser steps taken.
    params: nested dict of arrays, as `model.init` makes it.
    opt_state: optax state, its moments shaped like what is trained of
      `params`: all, or the adapters where there are any.
  """

  step: jax.Array
  params: Any
  opt_state: Any


class Rollout(NamedTuple):
  """C completions and what the sampler knew when it drew them.

  Attributes:
    tokens: [C, T] int32; the end-of-sequence token is part of a completion,
      what follows it is padding.
    logprobs: [C, T] float32, log pi(token | prompt, tokens before) of the
      temperature-scaled distribution over the whole vocabulary; 0 in padding.
    lengths: [C] int32, tokens of a completion, end-of-sequence included.
    ended: [C] bool, False where it was cut at T tokens.
  """

  tokens: jax.Array
  logprobs: jax.Array
  lengths: jax.Array
  ended: jax.Array


class Batch(NamedTuple):
  """Packed rows. Entry t of a row concerns the prediction of its token t + 1.

  Leaves are [M, B, T]: M micro-batches of B rows. Only the first `count`
  micro-batches hold anything; the rest is capacity, so that one compiled
  program serves every filling.

  Attributes:
    tokens: int32, the inputs.
    positions: int32, from 0 in each segment, or on from its prefix.
    segments: int32, 1, 2, ... along a row; 0 is padding.
    prefixes: int32, the earlier segment that also comes before this token,
      the prompt that several completions share; 0 where there is none. None
      if no row has any.
    targets: int32, the next token of the same segment.
    weights: float32, the share of this prediction in the loss; they sum to 1
      over the whole batch, 0 where nothing is to be learned.
    advantages, old_logprobs: float32, zero outside RL. The latter are the
      sampler's.
    learner_logprobs: float32, log pi_old in the learner's arithmetic; None
      where no loss asks for them.
    reference_logprobs: float32, log pi_ref; None where the update computes
      them, or needs none.
    count: [] int32, micro-batches in use.
  """

  tokens: Any
  positions: Any
  segments: Any
  prefixes: Any
  targets: Any
  weights: Any
  advantages: Any
  old_logprobs: Any
  learner_logprobs: Any
  reference_logprobs: Any
  count: Any
