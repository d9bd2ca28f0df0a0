"""DAPO's penalty for completions that come near their length limit."""

import numpy as np
from numpy.typing import ArrayLike


def penalty(lengths: ArrayLike, limit: int, margin: int) -> np.ndarray:
  """What a completion of some length loses of its reward.

      0                                  |o| <= limit - margin
      (limit - margin - |o|) / margin    up to the limit
      -1                                 beyond

  DAPO Eq. 13, arXiv 2503.14476; it is added to the reward.

  Args:
    lengths: tokens of completions, an array of any shape.
    limit: DAPO's L_max, the most tokens that a completion may have.
    margin: DAPO's L_cache, tokens before the limit at which it starts.

  Returns:
    float32 of the shape of `lengths`, in [-1, 0].
  """
  lengths = np.asarray(lengths, np.float32)
  return np.clip((limit - margin - lengths) / np.float32(margin), -1, 0)
