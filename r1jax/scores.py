"""Scores of an evaluation: pass@1 and majority vote."""

import collections
import math
import re
import statistics
from collections.abc import Hashable, Sequence


def pass_at_1(correct: Sequence[Sequence[bool]]) -> float:
  """The mean over problems of the share of right samples (R1 v1, 3).

  Args:
    correct: N lists of k bools.
  """
  return sum(sum(c) / len(c) for c in correct) / len(correct)


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


def cons_at_k(
  answers: Sequence[Sequence[Hashable]], correct: Sequence[Sequence[bool]]
) -> float:
  """The share of problems whose most frequent answer is right.

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
