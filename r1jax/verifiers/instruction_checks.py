"""The 25 instructions of IFEval, each as a function of a text.

Zhou et al. 2023, "Instruction-Following Evaluation for Large Language Models",
arXiv 2311.07911, table 1. Names of instructions and of their arguments are
those of the public data set.
"""

import json
import re
from collections.abc import Sequence

from r1jax.extras import need

RELATIONS = ("at least", "less than")
ANSWERS = ("My answer is yes.", "My answer is no.", "My answer is maybe.")
_ABBREVIATIONS = (
  "mr mrs ms dr prof sr jr st vs etc e.g i.e a.m p.m u.s u.k no inc ltd co"
  " approx dept est fig vol"
)
_SHORT = frozenset(_ABBREVIATIONS.split())


def _holds(count, relation, bound):
  return count < bound if relation == "less than" else count >= bound


def keywords(text: str, keywords: Sequence[str]) -> bool:
  """Whether a text has all keywords, in any case."""
  return all(word.lower() in text.lower() for word in keywords)


def keyword_frequency(
  text: str, keyword: str, frequency: int, relation: str
) -> bool:
  """Whether a text has a keyword often or seldom enough, in any case."""
  return _holds(text.lower().count(keyword.lower()), relation, frequency)


def forbidden_words(text: str, forbidden_words: Sequence[str]) -> bool:
  """Whether a text has none of some words, in any case."""
  return not any(
    re.search(rf"(?<!\w){re.escape(word)}(?!\w)", text, re.IGNORECASE)
    for word in forbidden_words
  )


def letter_frequency(
  text: str, letter: str, let_frequency: int, let_relation: str
) -> bool:
  """Whether a text has a letter often or seldom enough, in any case."""
  return _holds(text.lower().count(letter.lower()), let_relation, let_frequency)


def response_language(text: str, language: str) -> bool:
  """Whether a text is in a language, as `py3langid` finds it.

  Args:
    text: of some words.
    language: ISO 639-1 code.

  Raises:
    UserError: the extra `ifeval` is not installed.
  """
  return need("py3langid").classify(text)[0] == language


def sentences(text: str, num_sentences: int, relation: str) -> bool:
  """Whether a text has many or few enough sentences."""
  return _holds(len(split_sentences(text)), relation, num_sentences)


def split_sentences(text: str) -> list[str]:
  """The sentences of a text.

  A sentence ends with a mark before white space, or with a paragraph. The full
  stop of an abbreviation or of a single letter ends none.

  Args:
    text: of any length.
  """
  found = []
  for paragraph in _paragraphs(text):
    start = 0
    for mark in re.finditer(
      r"(?<![.!?])[.!?]{1,8}[\"'\u201d\u2019)\]*_]{0,4}(?=\s)|[\u3002\uff01\uff1f]",
      paragraph,
    ):
      before = paragraph[max(start, mark.start() - 20) : mark.start()].split()
      last = before[-1].strip("(\"'\u201c*_").lower() if before else ""
      if mark[0] == "." and (last in _SHORT or _is_initial(last)):
        continue
      found.append(paragraph[start : mark.end()])
      start = mark.end()
    found.append(paragraph[start:])
  return [s.strip() for s in found if any(c.isalnum() for c in s)]


def _is_initial(word):
  return len(word) == 1 and word.isalpha() and word != "i"


def words(text: str, num_words: int, relation: str) -> bool:
  """Whether a text has many or few enough words."""
  return _holds(len(re.findall(r"\w+", text)), relation, num_words)


def paragraphs(text: str, num_paragraphs: int) -> bool:
  """Whether lines of *** separate exactly so many paragraphs."""
  parts = [part.strip() for part in text.split("***")]
  parts = parts[not parts[0] :]
  parts = parts[:-1] if parts and not parts[-1] else parts
  return len(parts) == num_paragraphs and all(parts)


def first_word(
  text: str, num_paragraphs: int, nth_paragraph: int, first_word: str
) -> bool:
  """Whether one of so many paragraphs begins with a word, in any case.

  Args:
    text: empty lines separate its paragraphs.
    num_paragraphs: how many it must have.
    nth_paragraph: which of them, from 1.
    first_word: its first word, without marks around it.
  """
  found = _paragraphs(text)
  if len(found) != num_paragraphs or not 1 <= nth_paragraph <= len(found):
    return False
  begin = found[nth_paragraph - 1].split()[0].lstrip("\"'\u201c\u2018*_([")
  begin = re.split(r"[.,?!:;\"'\u201d\u2019*_)\]]", begin, maxsplit=1)[0]
  return begin.lower() == first_word.lower()


def _paragraphs(text):
  found = [[]]
  for line in text.split("\n"):
    if line.strip():
      found[-1].append(line)
    elif found[-1]:
      found.append([])
  return ["\n".join(lines) for lines in found if lines]


def placeholders(text: str, num_placeholders: int) -> bool:
  """Whether a text has at least so many placeholders, such as [name]."""
  return len(re.findall(r"\[[^\[\]\n]*\]", text)) >= num_placeholders


def postscript(text: str, postscript_marker: str) -> bool:
  """Whether a text has a postscript, such as P.S. or P.P.S, in any case."""
  text = re.sub(r"\.[ \t](?=[ps]\b)", ".", text.lower())
  at = text.rfind(postscript_marker.lower().replace(". ", "."))
  return at >= 0 and bool(text[at + len(postscript_marker) :].strip(". :\n"))


def bullets(text: str, num_bullets: int) -> bool:
  """Whether a text has exactly so many lines that begin with * or -."""
  lines = [line.strip() for line in text.split("\n")]
  count = sum(
    line.startswith("-") or (line[:1] == "*" and line[1:2] not in ("", "*"))
    for line in lines
  )
  return count == num_bullets


def constrained_response(text: str) -> bool:
  """Whether a text has one of `ANSWERS`."""
  return any(answer in text for answer in ANSWERS)


def highlights(text: str, num_highlights: int) -> bool:
  """Whether at least so many parts are *highlighted* or **so**."""
  found = re.findall(r"\*\*([^\n*]*)\*\*|\*([^\n*]*)\*", text)
  return sum(any(map(str.strip, part)) for part in found) >= num_highlights


def sections(text: str, section_spliter: str, num_sections: int) -> bool:
  """Whether at least so many sections begin with a word and a number.

  Args:
    text: of the sections.
    section_spliter: the word, such as "Section" or "SECTION"; its name in the
      data set is spelled so.
    num_sections: how many there must be.
  """
  mark = rf"{re.escape(section_spliter.strip())}\s?\d{{1,9}}"
  return len(re.findall(mark, text)) >= num_sections


def json_format(text: str) -> bool:
  """Whether the whole text is JSON; a fence around it is allowed."""
  text = text.strip()
  if text.startswith("```") and text.endswith("```") and len(text) > 6:
    text = re.sub(r"\A(?:json|JSON|Json)?\s", "", text[3:-3])
  try:
    json.loads(text, parse_constant=_no_json)
  except (ValueError, RecursionError):
    return False
  return True


def _no_json(name):
  raise ValueError(f"{name} is no JSON")


def title(text: str) -> bool:
  """Whether a line has a title in <<double angular brackets>>."""
  for line in text.split("\n"):
    begin, end = line.find("<<"), line.rfind(">>")
    if 0 <= begin < end and line[begin:end].strip("<> \t"):
      return True
  return False


def two_responses(text: str) -> bool:
  """Whether six asterisks separate two different responses."""
  parts = [part.strip() for part in text.split("******")]
  parts = parts[not parts[0] :]
  parts = parts[:-1] if parts and not parts[-1] else parts
  return len(parts) == 2 and all(parts) and parts[0] != parts[1]


def repeat_prompt(text: str, prompt_to_repeat: str) -> bool:
  """Whether a text begins with the request, in any case."""
  return text.strip().lower().startswith(prompt_to_repeat.strip().lower())


def end_phrase(text: str, end_phrase: str) -> bool:
  """Whether a text ends with a phrase, in any case, quotes aside."""
  return text.strip().strip('"').lower().endswith(end_phrase.strip().lower())


def capital_words(
  text: str, capital_frequency: int, capital_relation: str
) -> bool:
  """Whether a text has many or few enough words in capitals only."""
  count = sum(word.isupper() for word in re.findall(r"\w[\w'\u2019-]*", text))
  return _holds(count, capital_relation, capital_frequency)


def english_capital(text: str) -> bool:
  """Whether a text is in capitals only, of the Latin script."""
  return text.isupper() and _is_latin(text)


def english_lowercase(text: str) -> bool:
  """Whether a text has no capitals, and letters of the Latin script."""
  return text.islower() and _is_latin(text)


def _is_latin(text):
  letters = [c for c in text if c.isalpha()]
  return 2 * sum(c < "\u0250" for c in letters) > len(letters)


def no_comma(text: str) -> bool:
  """Whether a text has no comma."""
  return "," not in text


def quotation(text: str) -> bool:
  """Whether double quotes wrap the whole text."""
  text = text.strip()
  return len(text) > 1 and text[0] == text[-1] == '"'
