"""Stop strings: a completion ends where its text contains one of them."""

from collections.abc import Callable, Sequence

# Characters that tokens which begin in the middle of a text may show otherwise:
# a space that is left out, bytes of a character whose others are missing.
MARGIN = 8


class Stops:
  """Finds the stop strings of completions.

  Args:
    strings: of which none is empty.
    decode: function from a list of tokens to their text.
  """

  def __init__(
    self, strings: Sequence[str], decode: Callable[[list[int]], str]
  ) -> None:
    self._strings, self._decode = tuple(strings), decode
    self._reach = max(map(len, self._strings)) + MARGIN

  def end(self, tokens: Sequence[int], seen: int = 0) -> int | None:
    """The number of tokens after which a completion ends, or None.

    It is the smallest n for which the text of the first n tokens contains a
    stop string, which may begin and end inside of tokens.

    Args:
      tokens: of the completion so far.
      seen: of how many tokens an earlier call found no end.
    """
    ids = [int(i) for i in tokens]
    # Only the end of the text can be new; all of it would take T^2 steps.
    back = MARGIN
    while back < seen and len(self._decode(ids[seen - back : seen])) < (
      2 * self._reach
    ):
      back *= 2
    start = max(0, seen - back)
    old = len(self._decode(ids[start:seen])) if start else 0
    first = max(0, old - self._reach)

    def ends(n):
      text = self._decode(ids[start:n])[first:]
      return any(string in text for string in self._strings)

    none, some = seen, len(ids)
    if none >= some or not ends(some):
      return None
    while some - none > 1:
      middle = (none + some) // 2
      none, some = (none, middle) if ends(middle) else (middle, some)
    return some

  def trim(self, text: str) -> str:
    """The text before the first stop string."""
    found = [text.find(string) for string in self._strings]
    return text[: min((i for i in found if i >= 0), default=None)]
