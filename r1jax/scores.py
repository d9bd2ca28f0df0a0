"""Scores of repeated samples: pass@1 and majority vote."""

import collections
import math
import re
import statistics


def pass_at_1(correct):
  """Mean over problems of the share of right samples (R1 v1, 3).

  Args:
    correct: N lists of k bools.
  """
  return sum(sum(c) / len(c) for c in correct) / len(correct)


def half_width(correct):
  """Of the 95 % interval of `pass_at_1`, by the normal approximation.

  The problems are what was drawn, and samples of one problem are not
  independent: the error is that of the mean over problems (Miller 2024,
  arXiv:2411.00640, section 2.2).

  Args:
    correct: N lists of k bools; N at least 2.
  """
  means = [sum(c) / len(c) for c in correct]
  return 1.96 * statistics.stdev(means) / math.sqrt(len(means))


def cons_at_k(answers, correct):
  """Share of problems whose most frequent answer is right.

  Args:
    answers: N lists of k hashable answers, None where a sample has none; a
      None never wins a vote against an answer.
    correct: N lists of k bools, equal where answers are equal.

  Returns:
    the share; a tie is broken by the answer that came first.
  """
  right = 0
  for group, verdicts in zip(answers, correct):
    votes = collections.Counter(a for a in group if a is not None)
    if votes:
      winner = max(votes, key=lambda a: (votes[a], -group.index(a)))
      right += bool(verdicts[group.index(winner)])
  return right / len(answers)


def by_task(ids, correct):
  """The verdicts of each task, where problems are of several.

  Args:
    ids: of N problems, TASK-NUMBER. correct: N lists of bools.

  Returns:
    list of (task, the lists of its problems); empty if there is one task, or
    if the ids tell as many tasks as problems.
  """
  tasks = {}
  for name, verdicts in zip(ids, correct):
    tasks.setdefault(re.sub(r"-\d+$", "", name), []).append(verdicts)
  return list(tasks.items()) if 1 < len(tasks) < len(ids) else []
