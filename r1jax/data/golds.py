"""Gold answers at the end of solutions, as data sets lay them out."""

import re
from typing import Literal

from r1jax.errors import UserError

# "plain": the whole text is the answer. "after_hashes": what follows the last
# "####", as in GSM8K. "boxed": what is in the last \boxed{}, as in MATH.
Gold = Literal["plain", "after_hashes", "boxed"]
_HASHES = "####"
_BOX = re.compile(r"\\(?:boxed|fbox)(?![A-Za-z])[ \t]*")


def answer(text: str, gold: Gold) -> str:
  """The answer in a text of a data set.

  Args:
    text: an answer, or a solution that ends in one.
    gold: where in it the answer is.

  Returns:
    str without white space around it.

  Raises:
    UserError: the answer is not there.
  """
  if gold == "after_hashes":
    _, hashes, found = text.rpartition(_HASHES)
    if not hashes:
      raise UserError(f'no "{_HASHES}" in the text of the answer')
  elif gold == "boxed":
    found = _boxed(text)
  else:
    return text
  if not found.strip():
    raise UserError("the text of the answer ends before the answer")
  return found.strip()


def _boxed(text):
  """What is in the last box."""
  boxes = list(_BOX.finditer(text))
  if not boxes:
    raise UserError(r'no "\boxed{...}" in the text of the answer')
  at = boxes[-1].end()
  if text[at : at + 1] != "{":
    # \boxed 7 and \boxed7 have all up to the next space in the box.
    words = text[at:].partition("$")[0].split(maxsplit=1)
    return words[0].rstrip(".,") if words else ""
  depth = 0
  for match in re.finditer(r"\\.|[{}]", text[at:], re.DOTALL):
    depth += {"{": 1, "}": -1}.get(match[0], 0)
    if depth == 0 and match[0] == "}":
      return text[at + 1 : at + match.start()]
  raise UserError(r'the last "\boxed{" in the text of the answer never closes')
