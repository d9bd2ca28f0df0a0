"""How much of a text is in a given language."""

import re

from r1jax.errors import UserError

_CODE = re.compile(
  r"```.*?(?:```|\Z)|`[^`\n]*`|\$\$.*?\$\$|\$[^$\n]*\$"
  r"|\\\((?:[^\\]|\\[^()])*\\\)|\\\[(?:[^\\]|\\[^][])*\\\]",
  re.DOTALL,
)
_TAG = re.compile(r"</?\w+>|\\(?:begin|end)\{\w+\*?\}|\\[A-Za-z]+")
_HAN = (
  "\u3005\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U000323af"
)
_KANA = "\u3041-\u309f\u30a0-\u30ff\uff66-\uff9f"
_HANGUL = "\u1100-\u11ff\u3130-\u318f\uac00-\ud7af"
HAN_KANA = _HAN + _KANA
_WORD = re.compile(rf"[{_HAN}{_KANA}{_HANGUL}]|[^\W\d_{_HAN}{_KANA}{_HANGUL}]+")
_LATIN = "a-z\u00aa\u00ba\u00c0-\u024f\u1e00-\u1eff"
_CYRILLIC = "\u0400-\u052f"
# Without a dictionary only the script can be seen, so French words count as
# English here. Japanese also uses Han characters.
_IN = {
  code: re.compile(f"[{letters}]+", re.IGNORECASE)
  for codes, letters in (
    (("en",), "a-z"),
    (("de", "es", "fr", "it", "nl", "pl", "pt", "tr", "vi"), _LATIN),
    (("bg", "ru", "sr", "uk"), _CYRILLIC),
    (("ar", "fa"), "\u0600-\u06ff\u0750-\u077f"),
    (("hi",), "\u0900-\u097f"),
    (("zh",), _HAN),
    (("ja",), HAN_KANA),
    (("ko",), _HANGUL),
  )
  for code in codes
}


def consistency(text: str, language: str) -> float:
  """The share of a text's words that are in a language.

      Num(words of the language) / Num(words)

  R1 v2, 3.2.1, Eq. 7. The paper does not say how to split words. Here a Han,
  kana or Hangul character is a word, and so is a run of other letters. Numbers,
  tags, code and formulas are not words.

  Args:
    text: the thinking.
    language: ISO 639-1 code, a key of `_IN`.

  Returns:
    in [0, 1]; 0.0 for a text without words, so that silence earns nothing.

  Raises:
    UserError: the language is unknown.
  """
  check_language(language)
  text = _TAG.sub(" ", _CODE.sub(" ", text))
  words = _WORD.findall(text)
  if not words:
    return 0.0
  inside = _IN[language].fullmatch
  return sum(inside(w) is not None for w in words) / len(words)


def check_language(language: str) -> None:
  """Raises a `UserError` if a language is not a key of `_IN`."""
  if language not in _IN:
    raise UserError(
      f'language "{language}" is unknown; known: {", ".join(_IN)}'
    )
