"""Are the chosen letters the right ones?"""

import re
import unicodedata

from r1jax.errors import BadProblem
from r1jax.text import characters, think_format
from r1jax.types import Problem, Verdict
from r1jax.verifiers import boxes as boxes_lib
from r1jax.verifiers import choice_words as words

LETTERS = words.LETTERS
_DRESS = re.compile(words.DRESS + r"|[.:\u3002\u3001]+")
_OTHER = re.compile(rf"(?<![\w'\\\u00b0-])[A-J]{words.ENDS}")
# The end of a letter that something sets off from the words after it.
_SET_OFF = re.compile(r"[)\]}*\"'`$]{0,6}\s?[).:]|[)\]}*\"'`$]{1,6}")
_SMALL_FIRST = re.compile(r"[a-j](?=[).:](?:\s|$))")
_WORD = re.compile(r"\s{1,8}[A-Za-z]")
_HTML = re.compile(
  r"</?(?:b|i|u|em|strong|code|span|p|br)\s?/?>", re.IGNORECASE
)


def _table():
  """Characters that stand for others, or for nothing."""
  table = {0xFF00 + i: chr(0x20 + i) for i in range(1, 0x5F)}
  for code in (*range(0x24B6, 0x24EA), *range(0x1D400, 0x1D6A4)):
    table[code] = unicodedata.normalize("NFKC", chr(code))
  table |= dict.fromkeys(map(ord, "\u3010\u300c\u300e\u3014\u300a\u3008"), "[")
  table |= dict.fromkeys(map(ord, "\u3011\u300d\u300f\u3015\u300b\u3009"), "]")
  table |= dict.fromkeys(map(ord, "\u201c\u201d\u201e\u00ab\u00bb"), '"')
  table |= {0x3001: ",", 0x3002: ".", 0xA0: " ", 0x202F: " ", 0x3000: " "}
  table |= {0x2018: "'", 0x2019: "'"}
  # Of no width: they only say how a text runs.
  nothing = (*range(0x200B, 0x2010), *range(0x202A, 0x202F))
  return table | dict.fromkeys((*nothing, *range(0x2060, 0x206A), 0xFEFF))


_TABLE = _table()


def verify(problem: Problem, completion: str) -> Verdict:
  """Whether the chosen letters are those of `problem.answer`.

  Args:
    problem: a `Problem` whose answer is a letter from A to J, or several, such
      as "ACD" or "A, C". Its data may have "options", the list of the options'
      texts; a text then means its letter.
    completion: the text that the policy wrote. After the thinking, the text in
      the answer tags counts, if there are any. In it the last box counts, else
      the last "answer is".

  Returns:
    `Verdict`; reason "correct", "wrong" or "no_answer". Two chosen letters are
    no answer where one is right.

  Raises:
    BadProblem: see `check_problem`.
  """
  check_problem(problem)
  letters = final_answer(problem, completion)
  if letters is None:
    return Verdict(False, 0.0, "no_answer")
  if letters != _gold(problem):
    return Verdict(False, 0.0, "wrong")
  return Verdict(True, 1.0, "correct")


def final_answer(problem: Problem, completion: str) -> str | None:
  """The chosen letter, or None; several in their order where several are right.

  Args:
    problem: as for `verify`.
    completion: as for `verify`.
  """
  options = problem.data.get("options", ())
  tagged = think_format.answer(completion)
  text = think_format.after_thinking(completion) if tagged is None else tagged
  reader = _Reader(options, several=len(_gold(problem) or "") > 1)
  chosen = reader.read(_cleaned(text), tagged is not None)
  if not chosen or not chosen <= set(reader.known):
    return None
  return "".join(sorted(chosen)) if reader.several or len(chosen) == 1 else None


class _Reader:
  """Finds the chosen letters in a text that is `_cleaned`.

  Args:
    options: the options' texts; empty if they are not known.
    several: whether several letters may be chosen.
  """

  def __init__(self, options, several):
    self.several = several
    self.known = LETTERS[: len(options)] if options else LETTERS
    self._options = [_plain(_cleaned(option)) for option in options]

  def read(self, text, tagged):
    """The set of the chosen letters; empty if none is.

    Args:
      text: after the thinking, or in the tags.
      tagged: whether it was in the tags, where a bare letter is an answer.
    """
    if chosen := self._boxed(text):
      return chosen
    alone = self._alone(text) if tagged else set()
    if len(alone) == 1 or (alone and self.several):
      return alone
    return self._said(text) or alone

  def _boxed(self, text):
    """What the last box says, and the boxes that are listed with it."""
    boxes = boxes_lib.boxes(text)
    chosen = set()
    for box, after in zip(boxes[::-1], [None, *boxes[::-1]]):
      if after and not words.LIST.fullmatch(text, box.end, after.start):
        break
      inner = box.of(text)
      chosen |= self._alone(inner) or self._said(inner)
    return chosen

  def _alone(self, text):
    """The letters of a text that begins with them or is an option's text."""
    alone = _plain(text)
    if len(alone) == 1 and alone.isascii() and alone.upper() in LETTERS:
      return {alone.upper()}
    for letter, option in zip(LETTERS, self._options):
      if alone and alone in (option, letter + option):
        return {letter}
    if self.several and (chosen := _list(text)):
      return chosen
    at = words.BETWEEN.match(text).end()
    if first := _SMALL_FIRST.match(text, at):
      chosen, end = {first[0].upper()}, first.end()
    else:
      chosen, end = self._letters(text, at)
    if len(chosen) != 1 or words.DENIED.match(text, end):
      return chosen if len(chosen) > 1 else set()
    # "(C) the mass of A", but not "C because B is a plane" or "(A) 3 (B) 4".
    set_off = _SET_OFF.match(text, end)
    others = {
      other[0]
      for other in _OTHER.finditer(text, end)
      if (text[other.end() : other.end() + 1] == ")" if set_off
          else other[0] not in "AI" or not _WORD.match(text, other.end()))
    }  # fmt: skip
    return chosen if others <= chosen else set()

  def _said(self, text):
    """The letters after the last "the answer is", or of "B is correct"."""
    for lead in (words.ANSWER, words.OPTION):
      last, at = set(), 0
      while match := lead.search(text, at):
        at = words.BETWEEN.match(text, match.end()).end()
        chosen, end = self._letters(text, at)
        if not chosen or words.DENIED.match(text, end):
          continue
        before = text[max(0, match.start() - 48) : match.start()]
        last = last if words.HEDGED.search(before) else chosen
      if last:
        return last
    texts = [_plain(t) for t in words.TEXT.findall(text)[-1:]]
    for letter, option in zip(LETTERS, self._options):
      if option and option in texts:
        return {letter}
    found = set(words.REVERSED.findall(text))
    return found if len(found) == 1 else set()

  def _letters(self, text, at):
    """The letters that are listed from a place on, and the end of the list."""
    chosen, end, comma = set(), at, False
    while match := self._run(text, at) or words.LETTER.match(text, at):
      if comma and words.CLAUSE.match(text, match.end()):
        break
      chosen |= set(match[0].upper())
      end = match.end()
      between = words.LIST.match(text, end)
      if not between:
        break
      if self.several and words.OR.search(between[0]):
        # Of alternatives none is chosen.
        return set(), end
      comma = "," in between[0] and not words.AND.search(between[0])
      at = between.end()
    return chosen, end

  def _run(self, text, at):
    return words.RUN.match(text, at) if self.several else None


def _list(text):
  """The letters of a text that is a list of them and nothing else."""
  parts = words.SEPARATOR.split(_DRESS.sub(" ", text).strip())
  letters = "".join(part for part in parts if part)
  if letters and all(x in LETTERS for x in letters):
    return set(letters) if len(set(letters)) == len(letters) else set()
  return set()


def _gold(problem):
  """The right letters in their order; None if the answer is no such list."""
  text = _cleaned(problem.answer)
  alone = _plain(text).upper()
  chosen = set(alone) if len(alone) == 1 else _list(text)
  return "".join(sorted(chosen)) if chosen <= set(LETTERS) else None


def _cleaned(text):
  return _HTML.sub("", characters.normalized(text, "NFC").translate(_TABLE))


def _plain(text):
  return _DRESS.sub("", text)


def check_problem(problem: Problem) -> None:
  """Raises a `BadProblem` if the answer is not the letter of an option."""
  options = problem.data.get("options", [])
  if not (
    isinstance(options, list) and all(isinstance(x, str) for x in options)
  ):
    raise BadProblem(
      f'problem {problem.id}: data\'s "options" must be a list of texts, in'
      " the order of their letters"
    )
  known = LETTERS[: len(problem.data.get("options", LETTERS))]
  letters = _gold(problem)
  if not letters or not set(letters) <= set(known):
    raise BadProblem(
      f'problem {problem.id}: the answer "{problem.answer}" is none of the'
      f" letters {known}"
    )
