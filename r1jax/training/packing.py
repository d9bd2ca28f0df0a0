"""Sequences of any length into fixed rows, without attention between them.

Completions of one prompt may share it: it then stands once before them, all
but its last token, which predicts another token in each and so opens each.
"""

import bisect
import math
from typing import NamedTuple

import numpy as np

from r1jax.errors import UserError
from r1jax.types import Batch


class Sequence(NamedTuple):
  """A prompt with its completion.

  Attributes:
    tokens: [n] ints.
    weights: [n] floats, the share of each token in the loss; 0 in the prompt.
    advantage: of the completion; 0 outside RL.
    old_logprobs: [n] floats, log pi_old of each token, or None.
    prompt: tokens of the prompt, if it may be shared with the sequences that
      have the same one; otherwise 0.
    kept: [n, W] uint32, the set that each token was drawn from; None for the
      whole vocabulary.
  """

  tokens: np.ndarray
  weights: np.ndarray
  advantage: float = 0.0
  old_logprobs: np.ndarray | None = None
  prompt: int = 0
  kept: np.ndarray | None = None


def best_fit(lengths: list[int], row_length: int) -> list[list[int]]:
  """Which sequences share a row: best fit, longest first.

  Args:
    lengths: of the sequences, each at most `row_length`.

  Returns:
    A list of rows, each a list of indices into `lengths`.
  """
  rows: list[list[int]] = []
  # Sorted pairs (free places, row) of the open rows.
  room: list[tuple[int, int]] = []
  for i in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
    at = bisect.bisect_left(room, (lengths[i], -1))
    if at < len(room):
      free, row = room.pop(at)
    else:
      free, row = row_length, len(rows)
      rows.append([])
    rows[row].append(i)
    bisect.insort(room, (free - lengths[i], row))
  return rows


def bundles(sequences: list[Sequence], row_length: int) -> list[list[int]]:
  """Which sequences share a prompt, no more together than fit a row.

  Args:
    sequences: of `Sequence`.

  Returns:
    list of lists of indices; those without a shared prompt are alone.
  """
  groups = {}
  for i, s in enumerate(sequences):
    key = np.asarray(s.tokens[: s.prompt]).tobytes() if s.prompt > 1 else i
    groups.setdefault(key, []).append(i)
  found = []
  for members in groups.values():
    prefix = _prefix(sequences[members[0]])
    own = [len(sequences[i].tokens) - 1 - prefix for i in members]
    found += [
      [members[j] for j in part] for part in best_fit(own, row_length - prefix)
    ]
  return found


def _prefix(sequence):
  """How many tokens stand once for all that share the prompt."""
  return max(0, sequence.prompt - 1)


def capacity(
  count: int, longest: int, row_length: int, rows: int, shared: bool = False
) -> int:
  """Micro-batches that hold any `count` sequences of at most `longest` tokens.

  Rounded up to a power of two, so that batches of about the same size share a
  compiled program.

  Args:
    count, longest: of the sequences. row_length, rows: of a micro-batch.
    shared: whether they may share prompts. Bundles fill rows less evenly: all
      that is sure is that no two rows would fit into one.
  """
  each = max(1, row_length // max(1, longest - 1))
  needed = 2 * count / each + 1 if shared else count / each
  micro = math.ceil(math.ceil(needed) / rows)
  return 1 << (micro - 1).bit_length()


def pack(
  sequences: list[Sequence],
  *,
  row_length: int,
  rows: int,
  micro_batches: int,
  pad_id: int = 0,
  shared: bool = False,
  words: int = 0,
) -> Batch:
  """Packs sequences into a `Batch` of numpy arrays [M, B, T].

  Args:
    sequences: list of `Sequence`; n tokens take n - 1 places of a row.
    row_length: T, tokens of a row.
    rows: B, rows of a micro-batch.
    micro_batches: M, see `capacity`.
    pad_id: token of the places that stay empty.
    shared: whether sequences share prompts; if not, `prefixes` is None.
    words: W, if every sequence has `kept`; 0 if none has.

  Raises:
    UserError: a sequence is longer than a row.
  """
  _check_lengths(sequences, row_length)
  if not shared:
    sequences = [s._replace(prompt=0) for s in sequences]
  shape = (micro_batches * rows, row_length)
  tokens = np.full(shape, pad_id, np.int32)
  targets = np.full(shape, pad_id, np.int32)
  positions, segments, prefixes = (np.zeros(shape, np.int32) for _ in range(3))
  weights, advantages, old = (np.zeros(shape, np.float32) for _ in range(3))
  kept = np.zeros((*shape, words), np.uint32) if words else None
  packed = _rows(sequences, row_length)
  for row, parts in enumerate(packed):
    start, segment = 0, 0
    for part in parts:
      before, prefix = 0, _prefix(sequences[part[0]])
      if prefix:
        segment = before = segment + 1
        at = row, slice(start, start + prefix)
        tokens[at] = sequences[part[0]].tokens[:prefix]
        positions[at], segments[at] = np.arange(prefix), segment
        start += prefix
      for s in (sequences[i] for i in part):
        n = len(s.tokens) - 1 - prefix
        segment += 1
        at = (row, slice(start, start + n))
        tokens[at], targets[at] = s.tokens[prefix:-1], s.tokens[prefix + 1 :]
        positions[at], segments[at] = prefix + np.arange(n), segment
        prefixes[at] = before
        weights[at], advantages[at] = s.weights[prefix + 1 :], s.advantage
        if s.old_logprobs is not None:
          old[at] = s.old_logprobs[prefix + 1 :]
        if kept is not None:
          kept[at] = s.kept[prefix + 1 :]
        start += n
  leaves = (
    tokens, positions, segments, prefixes, targets, weights, advantages, old
  )  # fmt: skip
  lead = (micro_batches, rows, row_length)
  shaped = [x.reshape(lead) for x in leaves]
  sets = None if kept is None else kept.reshape(*lead, words)
  count = np.int32(-(-len(packed) // rows))
  batch = Batch(*shaped, None, None, sets, count)  # type: ignore[call-arg]
  return batch if shared else batch._replace(prefixes=None)


def members(
  sequences: list[Sequence], row_length: int, rows: int, shared: bool = False
) -> list[list[int]]:
  """Which sequences `pack` puts into each micro-batch that has any.

  Args:
    sequences, row_length, rows, shared: as of `pack`.

  Returns:
    list of lists of numbers of sequences.
  """
  if not shared:
    sequences = [s._replace(prompt=0) for s in sequences]
  packed = [sum(parts, []) for parts in _rows(sequences, row_length)]
  return [sum(packed[i : i + rows], []) for i in range(0, len(packed), rows)]


def _rows(sequences, row_length):
  """For each row the bundles in it, lists of indices."""
  parts = bundles(sequences, row_length)
  lengths = [_length(sequences, part) for part in parts]
  return [[parts[i] for i in row] for row in best_fit(lengths, row_length)]


def _check_lengths(sequences, row_length):
  longest = max((len(s.tokens) - 1 for s in sequences), default=0)
  if longest > row_length:
    raise UserError(
      f"a sequence of {longest + 1} tokens does not fit a row of"
      f" row_length={row_length}; raise row_length or shorten the data"
    )


def _length(sequences, part):
  """Places of a row that a bundle takes."""
  prefix = _prefix(sequences[part[0]])
  return prefix + sum(len(sequences[i].tokens) - 1 - prefix for i in part)
