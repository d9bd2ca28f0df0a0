"""The types that all packages share, and the glossary of axes.

A letter in the shape of an array means the same everywhere:

  N  prompts (questions) of a rollout
  G  completions of one prompt, its group
  C  completions of a rollout, C = N * G
  M  micro-batches of an optimizer step
  B  rows of a micro-batch, or of a prefill
  T  tokens of a row or of a completion
  P  tokens of a prompt
  S  decoding slots of the sampler
  A  places for prompts in the sampler's pool
  L  layers
  V  vocabulary
  W  words of 32 bits, one bit for each token of the vocabulary
  d  width of the residual stream (`d_model`)
  H  query heads
  K  key and value heads
  D  width of a head
  E  width of a head's value, where it differs from D
  Q  query tokens of a tile of attention
  U  tokens that an attention reads

Other axes are written as words: [banks, places, P]. In code that shards arrays
`P` is JAX's `PartitionSpec`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
  # The workers of the judges import this module and must not import JAX.
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
  """A prompt and the completion to imitate; only the completion is trained."""

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
  """All that an optimizer step reads and writes.

  Attributes:
    step: [] int32, optimizer steps taken; None before the first.
    params: nested dict of arrays, as `model.init` makes it.
    opt_state: optax state; its moments have the shapes of the trained leaves of
      `params`.
  """

  step: Any
  params: Any
  opt_state: Any


class Rollout(NamedTuple):
  """C completions and what the sampler knew when it drew them.

  Attributes:
    tokens: [C, T] int32. The end-of-sequence token is part of a completion;
      padding follows it.
    logprobs: [C, T] float32, log pi(token | prompt, tokens before) of the
      temperature-scaled distribution that the token was drawn from; 0 in
      padding. With top-k or top-p it is the one over the kept tokens.
    lengths: [C] int32, tokens of a completion, with the end-of-sequence token.
    ended: [C] bool, False if the completion was cut at T tokens.
    kept: [C, T, W] uint32, the set that each token was drawn from, see
      `r1jax.kept`; None if that is the whole vocabulary, or nobody asked.
  """

  tokens: jax.Array
  logprobs: jax.Array
  lengths: jax.Array
  ended: jax.Array
  kept: jax.Array | None = None


class Batch(NamedTuple):
  """Packed rows. Entry t of a row is about the prediction of its token t + 1.

  Leaves are [M, B, T]: M micro-batches of B rows. Only the first `count`
  micro-batches contain data. The rest are padding, so the compiled program
  has a fixed shape.

  Attributes:
    tokens: int32, the inputs.
    positions: int32, from 0 in each segment, or on from its prefix.
    segments: int32, 1, 2, ... along a row; 0 in padding.
    prefixes: int32, the earlier segment that also comes before this token, such
      as a prompt that several completions share; 0 without one. None if no
      row has prefixes.
    targets: int32, the next token of the same segment.
    weights: float32, the share of this prediction in the loss. The weights of
      a batch sum to 1; a token that is not trained has 0.
    advantages: float32; zero outside of RL.
    old_logprobs: float32, log pi_old as the sampler computed it; zero outside
      of RL.
    learner_logprobs: float32, log pi_old as the learner computes it; None if
      the loss does not need it.
    reference_logprobs: float32, log pi_ref; None if the update computes it or
      does not need it.
    kept: [M, B, T, W] uint32, the set that the target was drawn from, see
      `r1jax.kept`; None for the whole vocabulary.
    count: [] int32, number of micro-batches that contain data.
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
  kept: Any
  count: Any
