"""Scores against brute force: every choice of k of the samples."""

import itertools
import math
import random
from fractions import Fraction

import numpy as np
import pytest

from r1jax import scores


@pytest.mark.parametrize("n", [1, 2, 5, 8])
def test_pass_at_k_is_the_mean_over_all_choices(n):
  for right in range(n + 1):
    samples = [i < right for i in range(n)]
    for k in range(1, n + 1):
      found = [any(s) for s in itertools.combinations(samples, k)]
      assert scores.pass_at_k(right, n, k) == pytest.approx(np.mean(found))


def test_pass_at_k_of_many_samples():
  """Where the binomials have hundreds of digits."""
  for right, n, k in ((3, 2000, 100), (1, 10_000, 1), (500, 1000, 2)):
    exact = 1 - Fraction(math.comb(n - right, k), math.comb(n, k))
    assert scores.pass_at_k(right, n, k) == pytest.approx(float(exact))


def by_enumeration(answers, correct, k):
  """The share of choices whose winner is right, ties in equal parts."""
  total, choices = Fraction(0), 0
  for chosen in itertools.combinations(range(len(answers)), k):
    choices += 1
    said = [answers[i] for i in chosen if answers[i] is not None]
    most = max((said.count(a) for a in said), default=0)
    winners = {a for a in said if said.count(a) == most}
    right = sum(correct[answers.index(a)] for a in winners)
    total += Fraction(right, len(winners)) if winners else 0
  return float(total / choices)


def test_cons_at_k_is_the_mean_over_all_choices():
  rng = random.Random(0)
  for _ in range(300):
    n = rng.randint(1, 9)
    answers = [rng.choice([None, "a", "b", "c", "d"]) for _ in range(n)]
    good = {a for a in "abcd" if rng.random() < 0.4}
    correct = [a in good for a in answers]
    k = rng.randint(1, n)
    wanted = by_enumeration(answers, correct, k)
    assert scores.cons_at_k(answers, correct, k) == pytest.approx(wanted)


def test_cons_at_k_by_hand():
  # Two of three a: the vote of all three. Of two: aa, ab, ab, a half each.
  answers, correct = ["a", "b", "a"], [True, False, True]
  assert scores.cons_at_k(answers, correct, 3) == 1.0
  assert scores.cons_at_k(answers, correct, 2) == pytest.approx(2 / 3)
  assert scores.cons_at_k(answers, correct, 1) == pytest.approx(2 / 3)
  # Nobody answers, or the only answers are wrong.
  assert scores.cons_at_k([None, None], [False, False], 1) == 0.0
  assert scores.cons_at_k([None, "b"], [False, False], 2) == 0.0
  # Silence never wins.
  assert scores.cons_at_k([None, None, "a"], [False, False, True], 3) == 1.0


def test_cons_at_k_of_many_samples():
  """One right answer of two: the tail of a hypergeometric distribution."""
  n, right, k = 1200, 650, 101
  answers = ["a"] * right + ["b"] * (n - right)
  correct = [a == "a" for a in answers]
  ways = sum(
    math.comb(right, i) * math.comb(n - right, k - i)
    for i in range(k // 2 + 1, k + 1)
  )
  wanted = float(Fraction(ways, math.comb(n, k)))
  got = scores.cons_at_k(answers, correct, k)
  assert got == pytest.approx(wanted, rel=1e-9)


@pytest.mark.parametrize("hard", [0.5, 0.05])
def test_the_interval_covers_the_truth(hard):
  """In about 95 of 100 evaluations of problems of mixed difficulty."""
  rng, k, covered = np.random.default_rng(0), 4, []
  for _ in range(1500):
    chance = rng.beta(hard * 2, (1 - hard) * 2, 60)
    values = rng.binomial(k, chance) / k
    low, high = scores.interval(values.tolist(), k)
    covered.append(low <= hard <= high)
  # 1500 trials: the standard error is 0.006.
  assert 0.93 < np.mean(covered) < 0.98


def test_the_interval_by_hand():
  # Wilson's interval of 8 of 10 and of 10 of 10, from its tables.
  assert scores.interval([1.0] * 8 + [0.0] * 2, 1) == pytest.approx(
    (0.4902, 0.9433), abs=2e-2
  )
  assert scores.interval([1.0] * 10) == pytest.approx((0.7225, 1.0), abs=1e-4)
  assert scores.interval([0.0] * 10) == pytest.approx((0.0, 0.2775), abs=1e-4)
  # All problems alike: the error of their draws stays.
  low, high = scores.interval([0.5] * 10, 8)
  assert low == pytest.approx(0.3931, abs=1e-3)
  assert high == pytest.approx(0.6069, abs=1e-3)
  assert scores.interval([0.5], 2)[0] < 0.2
