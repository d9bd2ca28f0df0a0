"""The share of a text's words that are of a given language."""

import re

from r1jax.errors import UserError

_CODE = re.compile(r"```.*?(?:```|\Z)|`[^`]*`|\$\$.*?\$\$|\$[^$]*\$", re.DOTALL)
_TAG = re.compile(r"</?\w+>")
_HAN = "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U000323af"
_WORD = re.compile(rf"[{_HAN}]|[^\W\d_{_HAN}]+")
_IN = {
  "en": re.compile(r"[a-z]+", re.IGNORECASE),
  "zh": re.compile(rf"[{_HAN}]"),
}


def consistency(text, language):
  """Num(words of the language) / Num(words), R1 v2, 3.2.1, Eq. 7.

  How words are split is not stated there. Here a Han character is a word, and
  so is a run of any other letters; numbers, tags, code and formulas are none.

  Args:
    text: the thinking. language: "en" or "zh".

  Returns:
    in [0, 1]; 0.0 for a text without words, so that silence earns nothing.

  Raises:
    UserError: the language is not one of these.
  """
  if language not in _IN:
    raise UserError(
      f'language "{language}" is unknown; known: {", ".join(_IN)}'
    )
  text = _TAG.sub(" ", _CODE.sub(" ", text))
  words = _WORD.findall(text)
  if not words:
    return 0.0
  inside = _IN[language].fullmatch
  return sum(inside(w) is not None for w in words) / len(words)
