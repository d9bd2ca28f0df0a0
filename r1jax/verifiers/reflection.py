"""How often a text turns back on itself: a metric, never a reward."""

import re

# R1 v2, appendix C.2, merged there from the lists of three experts; the
# Chinese ones are ours.
WORDS = (
  *("wait", "mistake", "however", "but", "retry"),
  *("error", "verify", "wrong", "evaluate", "check"),
)
WORDS_ZH = ("等等", "再来", "错", "检查", "验证", "但是", "不过")

_PATTERN = re.compile(
  rf"\b(?:{'|'.join(WORDS)})\b|{'|'.join(WORDS_ZH)}", re.IGNORECASE
)


def count(text):
  """How many reflective words a text has."""
  return len(_PATTERN.findall(text))
