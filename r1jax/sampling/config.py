"""How completions are decoded, and what the compiled programs depend on."""

import dataclasses
import math
import numbers
from typing import Any

import numpy as np

from r1jax import kept, sharding
from r1jax.errors import UserError
from r1jax.meshes import Mesh
from r1jax.model import ModelConfig

KV_DTYPES = ("compute", "int8")


@dataclasses.dataclass(frozen=True)
class SamplerConfig:
  """How to decode. Each distinct config is compiled once.

  Attributes:
    slots: S, the number of completions decoded side by side. On a mesh the
      number is rounded up until every shard of rows has equally many.
    max_new_tokens: T, the most tokens of a completion.
    eos_id: the token that ends a completion, or several of them; the completion
      includes it. -1 lets every completion run until `max_new_tokens`; in a
      phase it stands for the tokenizer's tokens.
    stop: strings, such as ("User:",). A completion ends with the token after
      which its text contains one of them.
    top_k: draw among the k likeliest tokens only; 0 draws among all.
    top_p: draw among the likeliest tokens that together hold this share of
      the probability; 1 draws among all.
    greedy: take the likeliest token and ignore temperature, `top_k`, `top_p`.
    chunk: columns of the key-value cache that are read together. A step reads
      only the chunks that some slot needs. On TPU take a multiple of 128, so
      that each slot reads only its own chunks (see `sampling.ragged`).
    stride: decoding steps between two looks of the host at the results.
    tail_slots: smaller numbers of slots, such as (4, 1). When all completions
      are started and at most this many are unfinished, the batch shrinks to
      this size. The last long completions then decode faster; each size
      compiles one more program. () keeps all slots to the end.
    kv_dtype: "compute" stores keys and values in the model's compute dtype.
      "int8" stores eight bits and one scale for each token and head. This
      halves the memory of bfloat16; log-probabilities then differ slightly
      from the learner's.
  """

  slots: int
  max_new_tokens: int
  eos_id: int | tuple[int, ...] = -1
  stop: tuple[str, ...] = ()
  top_k: int = 0
  top_p: float = 1.0
  greedy: bool = False
  chunk: int = 64
  stride: int = 64
  tail_slots: tuple[int, ...] = ()
  kv_dtype: str = "compute"

  def __post_init__(self):
    for name in ("tail_slots", "eos_id", "stop"):
      if isinstance(getattr(self, name), list):
        object.__setattr__(self, name, tuple(getattr(self, name)))
    for name, wanted, ok in (
      ("slots", "a whole number, at least 1", _whole(self.slots, 1)),
      (
        "max_new_tokens",
        "a whole number, at least 1",
        _whole(self.max_new_tokens, 1),
      ),
      (
        "eos_id",
        "a token's number, several of them, or -1 for none",
        _whole(self.eos_id, -1)
        or (
          isinstance(self.eos_id, tuple)
          and all(_whole(i, 0) for i in self.eos_id)
        ),
      ),
      (
        "stop",
        'strings, none of them empty, such as ("User:",)',
        isinstance(self.stop, tuple)
        and all(isinstance(s, str) and s for s in self.stop),
      ),
      ("top_k", "a whole number; 0 keeps all tokens", _whole(self.top_k, 0)),
      ("top_p", "a number above 0 and at most 1", _share(self.top_p)),
      ("greedy", "True or False", isinstance(self.greedy, bool)),
      ("chunk", "a whole number, at least 1", _whole(self.chunk, 1)),
      ("stride", "a whole number, at least 1", _whole(self.stride, 1)),
      (
        "tail_slots",
        "numbers of slots, each at least 1, such as (4, 1)",
        isinstance(self.tail_slots, tuple)
        and all(_whole(n, 1) for n in self.tail_slots),
      ),
      ("kv_dtype", '"compute" or "int8"', self.kv_dtype in KV_DTYPES),
    ):
      if not ok:
        raise UserError(
          f"sampler: {name}={getattr(self, name)} must be {wanted}"
        )

  @property
  def end_ids(self) -> tuple[int, ...]:
    """The tokens that end a completion; none if it is never ended."""
    ids = self.eos_id if isinstance(self.eos_id, tuple) else (self.eos_id,)
    return tuple(i for i in ids if i >= 0)

  @property
  def truncates(self) -> bool:
    """Whether tokens are drawn from a part of the vocabulary."""
    return not self.greedy and (self.top_k > 0 or self.top_p < 1)

  @property
  def int8(self) -> bool:
    """Whether keys and values are stored in eight bits."""
    return self.kv_dtype == "int8"


@dataclasses.dataclass(frozen=True)
class Static:
  """What the compiled programs depend on; equal values share a program.

  Attributes:
    model: the `ModelConfig`.
    config: the `SamplerConfig`.
    group: G, completions of each prompt.
    mesh: where the parameters live. Slots are split over its rows, heads over
      its tensor axis. None for one device.
    keep: whether the rollout tells which tokens `top_k` and `top_p` kept, as
      training needs it.
  """

  model: ModelConfig
  config: SamplerConfig
  group: int
  mesh: Mesh | None = None
  keep: bool = False

  @property
  def words(self) -> int:
    """W of the sets that a rollout holds; 0 if it holds none."""
    if not self.keep or not self.config.truncates:
      return 0
    return kept.words(self.model.vocab_size)

  def divided(self, prompts: int) -> tuple["Static", int]:
    """How the groups of a rollout are divided over the shards of slots.

    If there are so few prompts that some shards would have more work than
    others, or none, each prompt is taken several times, with a part of its
    group each time.

    Args:
      prompts: N.

    Returns:
      the same with the part of a group as `group`; how many prompts it
      decodes.
    """
    shards = sharding.row_shards(self.mesh)
    for parts in (n for n in range(1, self.group + 1) if self.group % n == 0):
      whole = prompts * parts % shards == 0
      if whole or prompts * parts >= 4 * shards:
        break
    group = self.group // parts
    return dataclasses.replace(self, group=group), prompts * parts


def check_tokens(what: str, tokens: Any, vocabulary: int) -> None:
  """Checks that a model knows the tokens of a prompt.

  Args:
    what: name of the prompt, for messages.
    tokens: token ids, at least one.
    vocabulary: tokens of the model.

  Raises:
    UserError: a token is not one of the model's.
  """
  for token in (np.min(tokens), np.max(tokens)):
    if not 0 <= token < vocabulary:
      raise UserError(
        f"{what} has the token {token}; the model has only {vocabulary}; is"
        " this its tokenizer?"
      )


def _whole(x, least):
  """Whether x is an integer of at least `least`; booleans are none."""
  return (
    isinstance(x, numbers.Integral) and not isinstance(x, bool) and x >= least
  )


def _share(x):
  """Whether x is a real number in (0, 1]."""
  return (
    isinstance(x, numbers.Real)
    and not isinstance(x, bool)
    and not math.isnan(x)
    and 0 < x <= 1
  )
