"""Reads answers in words, times of day, ratios and residues."""

import math
import re
from fractions import Fraction

_STYLE = re.compile(
  r"\\(?:text(?:bf|rm|it|sf|sc|tt|normal|up)?|math(?:rm|bf|it|sf|tt)|mbox"
  r"|boxed|emph|rm|bf|it|underline)(?![A-Za-z])"
)
_SPACES = re.compile(r"\\[,;:! ]|~|\s+")
_QUOTED = re.compile(r"([\"'`*_]{1,3})([\w .,;-]{1,200})[\"'`*_]{1,3}")


def spoken(text: str) -> str:
  """A text without styles, braces, dollars, quotes and final punctuation."""
  text = _SPACES.sub(" ", _STYLE.sub("", text))
  text = re.sub(r"[${}]|\\[()\[\]]", "", text).strip(" .,")
  quoted = _QUOTED.fullmatch(text)
  return re.sub(" +", " ", quoted[2] if quoted else text).strip(" .,")


_ONES = (
  "zero", "one", "two", "three", "four", "five", "six", "seven", "eight",
  "nine", "ten", "eleven", "twelve", "thirteen", "fourteen", "fifteen",
  "sixteen", "seventeen", "eighteen", "nineteen",
)  # fmt: skip
_TENS = (
  "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety",
)  # fmt: skip
_VALUES = {word: i for i, word in enumerate(_ONES)}
_VALUES |= {word: 10 * i for i, word in enumerate(_TENS, 2)}
_SCALES = {"thousand": 10**3, "million": 10**6, "billion": 10**9}


def number_of(text: str) -> int | None:
  """The whole number in words, such as "twenty-one", or None."""
  words = re.split(r"[ -]+(?:and )?", spoken(text).lower())
  if len(words) > 12:
    return None
  total, part, last = 0, 0, None
  for word in words:
    value = _VALUES.get(word)
    if value is not None:
      # "twenty three" is a number, "two three" is not.
      if last is not None and not (last >= 20 and last % 10 == 0 < value < 10):
        return None
      part, last = part + value, value
    elif word == "hundred" and part:
      part, last = part * 100, None
    elif word in _SCALES and part:
      total, part, last = total + part * _SCALES[word], 0, None
    else:
      return None
  return total + part


_PARTS = (
  "half|halve", "third", "fourth|quarter", "fifth", "sixth", "seventh",
  "eighth", "ninth", "tenth",
)  # fmt: skip
_PART = re.compile(
  f"({'|'.join(_ONES[1:10])})[ -](?:"
  + "|".join(f"({p})" for p in _PARTS)
  + ")s?"
)


def fraction_of(text: str) -> str | None:
  """The LaTeX of a fraction in words, such as "two-thirds", or None."""
  match = _PART.fullmatch(spoken(text).lower())
  return match and f"\\frac{{{_VALUES[match[1]]}}}{{{match.lastindex}}}"


_LETTER = r"(?:\([A-J]\)|[A-J])"
_LETTERS = re.compile(rf"{_LETTER}(?:(?:, and |,? and |, ?){_LETTER})+")
_WORDS = re.compile(r"[A-Za-z0-9 ,;'-]+")
_SAME = {
  "all reals": "all real numbers", "all real number": "all real numbers",
  "all real": "all real numbers", "dne": "does not exist",
  "no real solution": "no real solutions", "infinite": "infinitely many",
  "infinitely many solutions": "infinitely many",
}  # fmt: skip
_NONE = ("no solution", "no solutions", "there is no solution",
         "there are no solutions", "empty set", "the empty set")  # fmt: skip


def symbol_of(text: str) -> str:
  """The symbol that a phrase means; the text itself if there is none."""
  phrase = spoken(text).lower()
  phrase = _SAME.get(phrase, phrase)
  if phrase in _NONE:
    return "\\emptyset"
  if phrase in ("infinity", "positive infinity"):
    return "\\infty"
  if phrase == "all real numbers":
    return "(-\\infty,\\infty)"
  if fraction := fraction_of(phrase):
    return fraction
  number = number_of(phrase)
  return text if number is None else str(number)


def phrase(text: str) -> tuple[str, ...] | None:
  """The parts of an answer in words, or None.

  Returns:
    sorted tuple, since "Bob and Alice" is "Alice and Bob".
  """
  plain = spoken(text)
  if _LETTERS.fullmatch(plain):
    return tuple(sorted(re.findall(r"[A-J]", plain)))
  if len(plain) > 200 or not _WORDS.fullmatch(plain):
    return None
  if plain.lower() in _SAME:
    return (_SAME[plain.lower()],)
  if not re.search("[A-Za-z]{3}", plain) or re.fullmatch("[A-Z]+", plain):
    return None
  plain = plain.lower()
  parts = re.split(r"\s?(?:,\s?and\b|[,;]|\band\b)\s?", plain)
  return tuple(sorted(re.sub("^(?:a|an|the) ", "", p.strip()) for p in parts))


_CLOCK = re.compile(r"(\d{1,2}):(\d\d)(?: ?([ap])\.? ?m\.?)?", re.IGNORECASE)
_RATIO = re.compile(
  r"(\d{1,30}(?:\.\d{1,30})?)((?: ?(?:\\?:| to ) ?\d{1,30}(?:\.\d{1,30})?)+)"
)


def clock(text: str) -> tuple | None:
  """A time of day as (hour, minute, "a", "p" or None); or None."""
  match = _CLOCK.fullmatch(spoken(text))
  if not match:
    return None
  half = match[3] and match[3].lower()
  return int(match[1]), int(match[2]), half


def same_clock(a: tuple, b: tuple) -> bool:
  """Whether two times are equal; a missing a.m. or p.m. is ignored.

  7:12 and 14:24 may also be ratios, unless they have a.m., p.m. or a digit 0.
  """
  if a[:2] == b[:2]:
    return a[2] == b[2] or None in (a[2], b[2])
  if a[2] or b[2] or min(a[0], b[0], a[1] - 9, b[1] - 9) <= 0:
    return False
  lowest = 1 in (math.gcd(*a[:2]), math.gcd(*b[:2]))
  return lowest and a[0] * b[1] == a[1] * b[0]


def ratio(text: str) -> tuple | None:
  """A ratio as multiples of its first number, or None."""
  match = _RATIO.fullmatch(re.sub(r" ?\\?: ?", ":", spoken(text)))
  if not match:
    return None
  first, *others = map(Fraction, re.findall(r"[\d.]+", match[0]))
  return tuple(x / first for x in others) if first else None


_RESIDUE = re.compile(
  r"\A(?:[A-Za-z] ?\\(?:equiv|cong)\b)? ?"
  r"(-?\d{1,30}(?: ?(?:,|or|and){1,3} ?-?\d{1,30}){0,30}) ?"
  r"(?:\\p?mod|\\bmod|\(?\\?(?:mod|bmod)) ?(\d{1,30})\)?"
)


def residues(text: str) -> tuple | None:
  """(modulus, residues) of "x = 1, 3 (mod 7)" as LaTeX, or None."""
  found: set[tuple[int, int]] = set()
  text = re.sub(r"\bx ?=", "", spoken(text)).strip()
  parts = re.split(r"(?: |,|\bor\b|\band\b){1,9}(?=[A-Za-z] ?\\equiv)", text)
  for part in parts:
    match = _RESIDUE.fullmatch(part)
    if not match or not int(match[2]):
      return None
    modulus = int(match[2])
    residues = re.findall(r"-?\d+", match[1])
    found.update((modulus, int(n) % modulus) for n in residues)
  moduli = {modulus for modulus, _ in found}
  if len(moduli) != 1:
    return None
  return moduli.pop(), frozenset(n for _, n in found)


def pieces(text: str) -> frozenset | None:
  """The rows of a piecewise function, without order; or None."""
  _, begin, rest = text.partition("\\begin{cases}")
  inner, end, _ = rest.rpartition("\\end{cases}")
  if not (begin and end):
    return None
  rows = (
    re.sub(r"\b(?:if|for|when)\b|[\s,.]", "", spoken(r))
    for r in inner.split("\\\\")
  )
  return frozenset(row for row in rows if row)


def squeezed(text: str) -> str | None:
  """A text without meaningless white space and dollars."""
  text = re.sub(r"(?<!\w)\s+|\s+(?!\w)", "", text.replace("$", " ").strip())
  return text if re.search(r"\w", text) else None


_OPTION = re.compile(
  r"\s{0,9}\$?(?:\\(?:text|textbf|mathrm|mathbf)\s?\{\s?)?"
  r"(?:(?:the )?(?:correct )?(?:option|choice|answer)(?: is)?:? ?)?"
  r"(?:\(([A-J])\)|([A-J])[.):](?!\w)|\*\*\(?([A-J])\)?[.:]?\*\*)(?!\s?,)"
  r"\s?\}?(?:\\[,;:! ]|\s|~|\\q?quad|\}|[:.-](?=\s))*(.*)",
  re.IGNORECASE,
)


def option(text: str) -> tuple[str, str] | None:
  """(letter, the rest) of "\\textbf{(B)}\\ 12" or "B. 12", or None."""
  match = _OPTION.fullmatch(text) if len(text) <= 200 else None
  if not match:
    return None
  letter = match[1] or match[2] or match[3]
  return (letter, match[4].strip("$ .{}")) if letter.isupper() else None


_JOINED = re.compile("[A-J]{2,10}")
_CHOSEN = re.compile(
  r"(?:(?:options?|choices?|answers?|statements?) )?"
  rf"({_LETTER}(?:(?:, and |,? and |, ?| ?& ?|; ?| ?/ ?| ){_LETTER}){{1,9}})"
)


def letters(text: str) -> tuple[bool, str] | None:
  """(whether they are written together, the letters) of several options.

  Args:
    text: "AC", "A and C", "(A), (C)".
  """
  plain = spoken(text)
  if _JOINED.fullmatch(plain):
    return True, plain
  match = _CHOSEN.fullmatch(plain)
  return (False, re.sub("[^A-J]", "", match[1])) if match else None


def same_letters(a: tuple[bool, str], b: tuple[bool, str]) -> bool | None:
  """Whether two answers choose the same letters; None if they may be unknowns.

  Letters that are written together have an order, unless it is the alphabet's.
  """
  if a[1] == b[1]:
    return True
  if a[0] and b[0]:
    return None
  for joined, text in (a, b):
    if joined and list(text) != sorted(set(text)):
      return False
  return sorted(a[1]) == sorted(b[1])
