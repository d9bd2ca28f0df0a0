"""How much of a text is in a given language."""

import re

from r1jax.errors import UserError
from r1jax.text import characters
from r1jax.verifiers import formulas

_HAN = (
  "\u3005\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U000323af"
)
_KANA = "\u3041-\u309f\u30a0-\u30ff\uff66-\uff9f"
_HANGUL = "\u1100-\u11ff\u3130-\u318f\ua960-\ua97f\uac00-\ud7ff"
HAN_KANA = _HAN + _KANA
_SINGLE = f"{_HAN}{_KANA}{_HANGUL}"
# Marks that Python does not take for letters, though they are in words.
_MARKS = (
  "\u0300-\u036f\u0483-\u0487\u0610-\u061a\u064b-\u065f\u0670\u06d6-\u06dc"
  "\u06df-\u06e4\u0900-\u0903\u093a-\u094f\u0955-\u0957\u0962\u0963"
)
_GREEK = "\u0370-\u03ff\u1f00-\u1fff"
_WORD = re.compile(
  rf"[{_SINGLE}]|[{_GREEK}]+|(?:[^\W\d_{_SINGLE}{_GREEK}]|[{_MARKS}])+"
)
_LATIN = "a-z\u00aa\u00ba\u00c0-\u024f\u02bc\u1e00-\u1eff\u0300-\u036f"
_CYRILLIC = "\u0400-\u052f\u0300-\u036f"
# Without a dictionary only the script can be seen, so French words count as
# English here. Japanese also uses Han characters.
_IN = {
  code: re.compile(f"[{letters}]+", re.IGNORECASE)
  for codes, letters in (
    (("en", "de", "es", "fr", "it", "nl", "pl", "pt", "tr", "vi"), _LATIN),
    (("bg", "ru", "sr", "uk"), _CYRILLIC),
    (("ar", "fa"), "\u0600-\u06ff\u0750-\u077f"),
    (("hi",), "\u0900-\u097f"),
    (("zh",), _HAN),
    (("ja",), HAN_KANA),
    (("ko",), _HANGUL),
  )
  for code in codes
}
# Signs that a normal form would spell with letters.
_SIGNS = dict.fromkeys(
  (*map(ord, "\u2116\u2120\u2121\u2122\u2103\u2109\u00aa\u00ba"),
   *range(0x2150, 0x218C), *range(0x3250, 0x3400), *range(0x1F100, 0x1F200)),
  " ",
)  # fmt: skip
_SHORT_GREEK = re.compile(f"[{_GREEK}]{{1,3}}")
_NAMES = (
  "sin cos tan cot sec csc arcsin arccos arctan sinh cosh tanh log ln lg exp"
  " lim max min sup inf mod gcd lcm det dim ker rank deg arg sgn sqrt floor"
  " ceil sum prod int pi theta alpha beta gamma delta epsilon lambda mu sigma"
  " omega phi infty cm mm km dm kg mg ml kwh khz mhz hz ev mev gev kj kpa mol"
  " rad tg ctg arctg arcctg const div grad rot sh ch"
)
_FUNCTIONS = frozenset(_NAMES.split())
# Products of variables: letters without a vowel, or the last of the alphabet.
_PRODUCT = re.compile(r"[b-df-hj-np-tv-xz]{2,3}|[xyz]{2,3}|a[bcdxt]|d[r-z]")
_BESIDE = frozenset(
  "0123456789=+*/^<>|\u00d7\u00b7\u2264\u2265\u2260\u2212(){}"
)
_CAPITALS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def consistency(text: str, language: str) -> float:
  """The share of a text's words that are in a language.

      Num(words of the language) / Num(words)

  R1 v2, 3.2.1, Eq. 7. The paper does not say how to split words. Here a Han,
  kana or Hangul character is a word, and so is a run of other letters. Numbers,
  tags, addresses, code and formulas are not words. In a language of another
  script, neither are the Latin and Greek letters of formulas without dollars:
  x, AB, sin, 2kg.

  Args:
    text: the thinking.
    language: ISO 639-1 code, a key of `_IN`.

  Returns:
    in [0, 1]; 0.0 for a text without words, so that silence earns nothing.

  Raises:
    UserError: the language is unknown.
  """
  check_language(language)
  text = characters.normalized(formulas.without(text).translate(_SIGNS), "NFKC")
  inside = _IN[language].fullmatch
  good = total = 0
  for match in _WORD.finditer(text):
    for word in _letters(match[0]):
      if inside(word):
        good += 1
        total += 1
      elif not _is_formula(word, text, *match.span()):
        total += 1
  return good / total if total else 0.0


def _letters(word):
  """The parts of a word that are letters and marks, no raised numbers."""
  if word.isalpha() or word.isascii():
    return [word]
  numbers = {ord(c): " " for c in set(word) if c.isalnum() and not c.isalpha()}
  return [part for part in word.translate(numbers).split() if part.strip()]


def _is_formula(word, text, start, end):
  """Whether a word of another script is a symbol, as x, AB, sin and kg are."""
  if len(word) == 1:
    return not re.match(f"[{_SINGLE}]", word)
  if not word.isascii():
    return _SHORT_GREEK.fullmatch(word) is not None
  beside = {text[start - 1 : start], text[end : end + 1]}
  return bool(
    # AB, NaCl, pH.
    (len(word) <= 5 and word[1:] != word[1:].lower())
    or word in _CAPITALS
    or word.lower() in _FUNCTIONS
    or _PRODUCT.fullmatch(word)
    or "_" in beside
    or (len(word) <= 3 and beside & _BESIDE)
  )


def check_language(language: str) -> None:
  """Raises a `UserError` if a language is not a key of `_IN`."""
  if language not in _IN:
    raise UserError(
      f'language "{language}" is unknown; known: {", ".join(_IN)}'
    )
