"""How often a text reconsiders what it said: a metric, not a reward."""

import re

# R1 v2, appendix C.2, where the lists of three experts are merged. The Chinese
# words are ours.
WORDS = (
  *("wait", "mistake", "however", "but", "retry"),
  *("error", "verify", "wrong", "evaluate", "check"),
)
WORDS_ZH = ("等等", "再来", "错", "检查", "验证", "但是", "不过")

_PATTERN = re.compile(
  rf"\b(?:{'|'.join(WORDS)})\b|{'|'.join(WORDS_ZH)}", re.IGNORECASE
)


def count(text: str) -> int:
  """The number of reflective words in a text."""
  return len(_PATTERN.findall(text))
