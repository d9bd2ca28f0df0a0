"""Characters that look alike, as one character."""

import unicodedata
from typing import Literal

# Putting marks in order takes the square of their number, so that a text of
# marks alone must come in pieces.
_PIECE = 2048


def normalized(text: str, form: Literal["NFC", "NFKC"]) -> str:
  """A text in a normal form of Unicode, in linear time.

  Args:
    text: any text, also with half of a surrogate pair.
    form: "NFC" joins a letter and its accents. "NFKC" also replaces full-width,
      raised and other forms of a letter or digit by the plain ones.
  """
  if text.isascii():
    return text
  return "".join(
    unicodedata.normalize(form, text[i : i + _PIECE])
    for i in range(0, len(text), _PIECE)
  )
