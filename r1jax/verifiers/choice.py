"""Is the chosen letter the right one?"""

import re

from r1jax.errors import BadProblem
from r1jax.text import think_format
from r1jax.types import Problem, Verdict

LETTERS = "ABCDEFGHIJ"
_STYLE = r"\\(?:text|math)?(?:text|bf|it|rm)\b"
_DRESS = re.compile(
  _STYLE + r"|\\boxed\b|\\(?![A-Za-z])"
  r"|[][{}$*_`\"'().:\s\uff08\uff09\uff0e\uff1a\u3002\u3001]+"
)
_BOX = re.compile(r"\\boxed\s?\{((?:[^{}]|\{[^{}]*\})*)\}")
# Words before the chosen letter. The second kind counts only without any of the
# first kind, since a text also discusses options that it does not choose.
_SAID = (
  re.compile("answer|\u7b54\u6848", re.IGNORECASE),
  re.compile("choice|option|choose|\u9009", re.IGNORECASE),
)
# What is between such a word and the letter, then the letter: C, (c), **C**. A
# small letter is in brackets or ends the clause. The article "A" is no letter.
_OPEN = r"[\s:\uff1a\\*_\"'`$({\[\uff08\u201c]{0,8}"
_LETTER = re.compile(
  rf"{_OPEN}(?:(?:is|must\sbe|should\sbe|would\sbe|the|correct|option|choice"
  rf"|letter|answer|{_STYLE}|[\u662f\u4e3a\u9009\u62e9\u9879\u5e94\u8be5])"
  rf"{_OPEN}){{0,6}}"
  r"((?-i:[A-J])(?![A-Za-z'])(?!(?<=[AI])\s(?!as\b|because\b|since\b|or\b"
  r"|and\b|is\b)(?-i:[a-z]))"
  r"|(?<=[(\uff08])[a-j](?=[)\uff09])|[a-j](?=[*_\"'`$)}\s]{0,4}(?:[.,;\n]|$)))",
  re.IGNORECASE,
)
_TEXT = re.compile(r"answer(?:\sis:?|:)\**\s{0,3}([^\n]*)", re.IGNORECASE)
_END = re.compile(r"[.!?](?=\s)|[\n\u3002\uff01\uff1f]")


def verify(problem: Problem, completion: str) -> Verdict:
  """Whether the chosen letter is `problem.answer`.

  Args:
    problem: a `Problem` whose answer is a letter from A to J. Its data may have
      "options", the list of the options' texts; a text then means its letter.
    completion: the text that the policy wrote. After the thinking, the text in
      the answer tags counts, if there are any. In it the last box counts, else
      the last "answer is".

  Returns:
    `Verdict`; reason "correct", "wrong" or "no_answer". Two chosen letters are
    no answer.

  Raises:
    BadProblem: see `check_problem`.
  """
  check_problem(problem)
  letter = final_answer(problem, completion)
  if letter is None:
    return Verdict(False, 0.0, "no_answer")
  if letter != problem.answer.strip().upper():
    return Verdict(False, 0.0, "wrong")
  return Verdict(True, 1.0, "correct")


def final_answer(problem: Problem, completion: str) -> str | None:
  """The chosen letter, or None."""
  options = problem.data.get("options", ())
  tagged = think_format.answer(completion)
  text = think_format.after_thinking(completion) if tagged is None else tagged
  boxes = _BOX.findall(text)
  if boxes:
    return _letter(boxes[-1], options)
  letter = None if tagged is None else _letter(text, options)
  return letter or _letter(_said(text), options)


def _said(text):
  """The text after the last "the answer is", from its letter on."""
  for lead in _SAID:
    found = [_LETTER.match(text, m.end()) for m in lead.finditer(text)]
    found = [match for match in found if match]
    if found:
      at = found[-1].start(1)
      end = _END.search(text, at)
      return text[at].upper() + text[at + 1 : end and end.start()]
  texts = _TEXT.findall(text)
  return texts[-1] if texts else ""


def _letter(text, options):
  alone = _plain(text)
  if len(alone) == 1 and alone.isascii() and alone.upper() in LETTERS:
    return alone.upper()
  for letter, option in zip(LETTERS, options):
    if alone and alone in (_plain(option), letter + _plain(option)):
      return letter
  # "C", "(C) 12 m" and "C, because" but neither "A or C" nor "Carbon".
  words = re.split(r"(\s*[,;/&]\s*|\s+)", text.strip())
  words = [_plain(w) or w.strip() for w in words]
  words = [w for w in words if w]
  chosen = {
    word
    for i, word in enumerate(words)
    if len(word) == 1 and word in LETTERS and not _is_article(words, i)
  }
  return words[0] if len(chosen) == 1 and words[0] in chosen else None


def _is_article(words, i):
  """Whether an A or I is a word of a sentence and not a letter."""
  return (
    words[i] in "AI" and 0 < i < len(words) - 1
    and words[i - 1].lower() not in ("or", "and", ",", ";", "/", "&")
  )  # fmt: skip


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
  letter = problem.answer.strip().upper()
  if len(letter) != 1 or letter not in known:
    raise BadProblem(
      f'problem {problem.id}: the answer "{problem.answer}" is none of the'
      f" letters {known}"
    )
