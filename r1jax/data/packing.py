"""Sequences of any length into fixed rows, without attention between them."""

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
  """

  tokens: np.ndarray
  weights: np.ndarray
  advantage: float = 0.0
  old_logprobs: np.ndarray | None = None


def best_fit(lengths, row_length):
  """Which sequences share a row: best fit, longest first.

  Args:
    lengths: of the sequences, each at most `row_length`.

  Returns:
    A list of rows, each a list of indices into `lengths`.
  """
  rows, room = [], []  # room: sorted (free, row) pairs of the open rows
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


def capacity(count, longest, row_length, rows):
  """Micro-batches that hold any `count` sequences of at most `longest` tokens.

  Rounded up to a power of two, so that batches of about the same size share a
  compiled program.
  """
  each = max(1, row_length // max(1, longest - 1))
  micro = math.ceil(math.ceil(count / each) / rows)
  return 1 << (micro - 1).bit_length()


def pack(sequences, *, row_length, rows, micro_batches, pad_id=0):
  """A `Batch` of numpy arrays [M, B, T].

  Args:
    sequences: of `Sequence`, each of n tokens taking n - 1 places of a row.
    row_length: T. rows: B. micro_batches: M, see `capacity`.
    pad_id: fills what is left.

  Raises:
    UserError: a sequence is longer than a row.
  """
  lengths = [len(s.tokens) - 1 for s in sequences]
  if lengths and max(lengths) > row_length:
    raise UserError(
      f"a sequence of {max(lengths) + 1} tokens does not fit a row of"
      f" row_length={row_length}; raise row_length or shorten the data"
    )
  shape = (micro_batches * rows, row_length)
  tokens = np.full(shape, pad_id, np.int32)
  targets = np.full(shape, pad_id, np.int32)
  positions, segments = np.zeros(shape, np.int32), np.zeros(shape, np.int32)
  weights, advantages, old = (np.zeros(shape, np.float32) for _ in range(3))
  packed = best_fit(lengths, row_length)
  for row, members in enumerate(packed):
    start = 0
    for segment, i in enumerate(members, start=1):
      s, n = sequences[i], lengths[i]
      at = (row, slice(start, start + n))
      tokens[at], targets[at] = s.tokens[:-1], s.tokens[1:]
      positions[at], segments[at] = np.arange(n), segment
      weights[at], advantages[at] = s.weights[1:], s.advantage
      if s.old_logprobs is not None:
        old[at] = s.old_logprobs[1:]
      start += n
  leaves = (tokens, positions, segments, targets, weights, advantages, old)
  return Batch(
    *(x.reshape(micro_batches, rows, row_length) for x in leaves),
    count=np.int32(-(-len(packed) // rows)),
  )
