"""Is the chosen letter the right one?"""

import re

from r1jax.errors import BadProblem
from r1jax.types import Verdict
from r1jax.verifiers import think_format

LETTERS = "ABCDEFGHIJ"
_DRESS = re.compile(r"\\(?:text|textbf|mathrm|mathbf|boxed)\b|[{}$*().:\s]+")
_BOX = re.compile(r"\\boxed\{((?:[^{}]|\{[^{}]*\})*)\}")
# "The answer is (C)", to the end of the sentence.
_SAID = re.compile(
  r"(?:answer|choice|option)(?:\s+is|:)?\s*:?\s*(\**\(?[A-J]\)?\**[^\n]*)",
  re.IGNORECASE,
)


def verify(problem, completion):
  """Whether the one letter that was chosen is `problem.answer`.

  Args:
    problem: a `Problem`; the answer is a letter A to J. Its data may have
      "options", the list of their texts: an option's text then stands for its
      letter.
    completion: the text that the policy wrote. After the thinking, the
      answer's tags count if there are any, else the last box, else the last
      "answer is".

  Returns:
    `Verdict`; reason "correct", "wrong" or "no_answer", which is also that of
    two letters.
  """
  letter = final_answer(problem, completion)
  if letter is None:
    return Verdict(False, 0.0, "no_answer")
  if letter != problem.answer.strip().upper():
    return Verdict(False, 0.0, "wrong")
  return Verdict(True, 1.0, "correct")


def final_answer(problem, completion):
  """The letter that was chosen, or None."""
  text = think_format.answer(completion)
  if text is None:
    text = completion.rsplit("</think>", 1)[-1]
    found = _BOX.findall(text) or _SAID.findall(text)
    if not found:
      return None
    text = found[-1]
  boxes = _BOX.findall(text)
  return _letter(boxes[-1] if boxes else text, problem.data.get("options", ()))


def _letter(text, options):
  for letter, option in zip(LETTERS, options):
    if _plain(text) == _plain(option):
      return letter
  # "C", "(C) 12 m" and "C, because" but neither "A or C" nor "Carbon".
  words = [_plain(word) for word in re.split(r"[\s,;/]+", text)]
  letters = [w for w in words if len(w) == 1 and w in LETTERS]
  # The article may stand in a sentence, but not at its beginning.
  chosen = {w for i, w in enumerate(letters) if w != "A" or i == 0}
  return words[0] if len(chosen) == 1 and words[0] in chosen else None


def _plain(text):
  return _DRESS.sub("", text)


def check(problem):
  """Raises a `BadProblem` if the answer is no letter, or not an option's."""
  options = problem.data.get("options", [])
  if not (
    isinstance(options, list) and all(isinstance(x, str) for x in options)
  ):
    raise BadProblem(
      f"problem {problem.id}: data's \"options\" must be a list of texts, in"
      " the order of their letters"
    )
  known = LETTERS[: len(problem.data.get("options", LETTERS))]
  letter = problem.answer.strip().upper()
  if len(letter) != 1 or letter not in known:
    raise BadProblem(
      f'problem {problem.id}: the answer "{problem.answer}" is none of the'
      f" letters {known}"
    )
