"""Scores of an evaluation: pass@k, majority votes, and their intervals.

Every score is a mean over problems of a number in [0, 1]. `pass_at_k` and
`cons_at_k` give the number of one problem from n samples of it, for any k up
to n; both are the exact means over all choices of k of the n samples.
"""

import collections
import math
import re
import statistics
from collections.abc import Hashable, Sequence

import numpy as np

# Two-sided 95 % of a normal distribution.
_Z = 1.959964


def pass_at_k(right: int, samples: int, k: int) -> float:
  """The chance that k of the samples of a problem have a right one among them.

      1 - C(n - c, k) / C(n, k) = 1 - prod_{i = n-c+1}^{n} (1 - k / i)

  Unbiased for the chance that k new samples do. Chen et al. 2021,
  arXiv:2107.03374, eq. 1; the product avoids large binomials.

  Args:
    right: c, how many of the samples are right.
    samples: n.
    k: from 1 to n.

  Returns:
    float in [0, 1].
  """
  if samples - right < k:
    return 1.0
  factors = (1.0 - k / i for i in range(samples - right + 1, samples + 1))
  return 1.0 - math.prod(factors)


def cons_at_k(
  answers: Sequence[Hashable], correct: Sequence[bool], k: int
) -> float:
  """The chance that a vote of k of the samples of a problem is right.

  The mean over all choices of k of the n samples; a tie of t answers counts a
  t-th for each of them. Wang et al. 2022, arXiv:2203.11171, vote so. DeepSeek
  calls it cons@k, others maj@k.

  Args:
    answers: n hashable answers, None for a sample without one. None never wins
      a vote against an answer.
    correct: n bools, equal where answers are equal.
    k: from 1 to n.

  Returns:
    float in [0, 1].
  """
  counts = collections.Counter(a for a in answers if a is not None)
  right = {a for a, good in zip(answers, correct) if good and a is not None}
  silent = len(answers) - counts.total()
  return sum(
    _wins(n, [m for b, m in counts.items() if b != a], silent, k)
    for a, n in counts.items()
    if a in right
  )


def _wins(own, others, silent, k):
  """The chance that an answer wins a vote of k of all samples.

  Samples without replacement are independent binomial counts, one for each
  answer, under the condition that they sum to k, whatever their common
  probability is. With k / n nothing becomes too small for a float.

  Args:
    own: samples with this answer.
    others: samples of each other answer.
    silent: samples without an answer.
    k: votes.
  """
  n = own + sum(others) + silent
  share = k / n
  total = 0.0
  for votes in range(1, min(own, k) + 1):
    # [t, s]: t others have as many votes, and all have s together.
    chance = np.zeros((k // votes + 1, k + 1))
    chance[0, votes] = _binomial(own, share, votes)
    for m in others:
      after = np.zeros_like(chance)
      for j in range(min(m, votes) + 1):
        tied = int(j == votes)
        moved = chance[: len(chance) - tied, : k + 1 - j]
        after[tied:, j:] += _binomial(m, share, j) * moved
      chance = after
    weights = 1.0 / np.arange(1, len(chance) + 1)
    for j in range(min(silent, k) + 1):
      alone = _binomial(silent, share, j)
      total += alone * float(weights @ chance[:, k - j])
  return total / _binomial(n, share, k)


def _binomial(n, share, j):
  """The chance of j successes of n, each of chance `share`."""
  if share == 1.0:
    return float(j == n)
  log = math.lgamma(n + 1) - math.lgamma(j + 1) - math.lgamma(n - j + 1)
  return math.exp(log + j * math.log(share) + (n - j) * math.log1p(-share))


def interval(values: Sequence[float], draws: int = 1) -> tuple[float, float]:
  """The 95 % interval of the mean over problems.

  Samples of one problem are not independent, so the error is that of a mean
  over problems (Miller 2024, arXiv:2411.00640, section 2.2). The interval is
  Wilson's (1927) for as many independent problems as would have that error, as
  Korn and Graubard (1998) take it for surveys. So it stays within [0, 1], and
  has a width where all problems are right.

  Args:
    values: N numbers in [0, 1], one for each problem.
    draws: independent draws in each number, such as n for pass@1. The error is
      not taken for less than that of N draws of this number.

  Returns:
    (low, high).
  """
  count = len(values)
  mean = min(1.0, max(0.0, statistics.fmean(values)))
  effective = float(count)
  if count > 1 and 0.0 < mean < 1.0:
    variance = statistics.variance(values)
    most = count * draws
    bound = count * mean * (1 - mean)
    effective = bound / variance if variance * most > bound else float(most)
  z2 = _Z**2 / effective
  middle = (mean + z2 / 2) / (1 + z2)
  half = _Z * math.sqrt(mean * (1 - mean) / effective + z2 / 4 / effective)
  half /= 1 + z2
  return max(0.0, middle - half), min(1.0, middle + half)


def pass_at_1(correct: Sequence[Sequence[bool]]) -> float:
  """The mean over problems of the share of right samples (R1 v1, 3).

  Args:
    correct: N lists of k bools.
  """
  return sum(sum(c) / len(c) for c in correct) / len(correct)


def solved(correct: Sequence[Sequence[bool]]) -> float:
  """The mean over problems of pass@k, where k is the number of samples.

  Args:
    correct: N lists of k bools.

  Returns:
    float; for k of k samples it is the share of problems with a right one.
  """
  found = [pass_at_k(sum(c), len(c), len(c)) for c in correct]
  return statistics.fmean(found)


def half_width(correct: Sequence[Sequence[bool]]) -> float:
  """Half the width of the 95 % interval of `pass_at_1`.

  It uses the normal approximation. Samples of one problem are not independent,
  so the error is that of the mean over problems (Miller 2024,
  arXiv:2411.00640, section 2.2).

  Args:
    correct: N lists of k bools; N at least 2.
  """
  means = [sum(c) / len(c) for c in correct]
  return 1.96 * statistics.stdev(means) / math.sqrt(len(means))


def consensus(
  answers: Sequence[Sequence[Hashable]], correct: Sequence[Sequence[bool]]
) -> float:
  """The share of problems whose most frequent answer is right.

  It is cons@k for k = all samples; `cons_at_k` differs from it in ties only.

  Args:
    answers: N lists of k hashable answers, None for a sample without one. None
      never wins a vote against an answer.
    correct: N lists of k bools, equal where answers are equal.

  Returns:
    float; the answer that came first wins a tie.
  """
  right = 0
  for group, verdicts in zip(answers, correct):
    votes = collections.Counter(a for a in group if a is not None)
    if votes:
      winner = max(votes, key=lambda a: (votes[a], -group.index(a)))
      right += bool(verdicts[group.index(winner)])
  return right / len(answers)


def by_task(
  ids: Sequence[str], correct: Sequence[Sequence[bool]]
) -> list[tuple[str, list[Sequence[bool]]]]:
  """Splits verdicts by task.

  Args:
    ids: N ids of problems, TASK-NUMBER.
    correct: N lists of bools.

  Returns:
    list of (task, the lists of its problems); empty if there is only one task,
    or if each problem is a task of its own.
  """
  tasks: dict[str, list[Sequence[bool]]] = {}
  for name, verdicts in zip(ids, correct):
    tasks.setdefault(re.sub(r"-\d+$", "", name), []).append(verdicts)
  return list(tasks.items()) if 1 < len(tasks) < len(ids) else []
