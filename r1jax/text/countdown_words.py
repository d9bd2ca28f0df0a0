"""The words of Countdown in its two languages, and their vocabulary.

`r1jax.data.countdown` writes problems and traces with these words. The
tokenizer of kind "countdown" knows them and no others.
"""

from r1jax.text.think_format import TAGS

LIMIT = 100  # the largest number
LANGUAGES = ("en", "zh")
SYMBOLS = ("+", "-", "*", "/", "=", "?", "(", ")", ":", ".", "：", "。")
PHRASES = {
  "en": {
    "prompt": "User : make {target} from {numbers} . Assistant :",
    "try": "try",
    "low": "low",
    "high": "high",
    "right": "yes",
    "again": "wait",
    "quit": "so",
  },
  "zh": {
    "prompt": "用户 ： 得到 {target} 用 {numbers} 。 助手 ：",
    "try": "试",
    "low": "小",
    "high": "大",
    "right": "对",
    "again": "等等",
    "quit": "所以",
  },
}


def _words():
  words = [*TAGS, *SYMBOLS]
  for phrases in PHRASES.values():
    text = " ".join(phrases.values())
    words += [w for w in text.split() if "{" not in w]
  words += map(str, range(LIMIT + 1))
  return tuple(dict.fromkeys(words))


WORDS = _words()
