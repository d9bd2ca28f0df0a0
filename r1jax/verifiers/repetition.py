"""How much a text repeats itself: a metric, not a reward."""

import re

from r1jax.verifiers.language import HAN_KANA

_WORD = re.compile(rf"[{HAN_KANA}]|[^\s{HAN_KANA}]+")


def share(text: str, n: int = 4) -> float:
  """The share of a text's n-grams that occur earlier in the same text.

  Args:
    text: words separated by white space; a Han or kana character is a word.
    n: number of words in an n-gram.

  Returns:
    in [0, 1); 0.0 for a text of fewer than n words.
  """
  words = _WORD.findall(text)
  grams = list(zip(*(words[i:] for i in range(n))))
  return 1 - len(set(grams)) / len(grams) if grams else 0.0
