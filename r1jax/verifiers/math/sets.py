"""Sets written as conditions: builders, memberships, points left out."""

import re

_NAME = r"[A-Za-z](?:_\{?\w\}?)?"
_REALS = r"(?:\\mathbb\s?\{\s?R\s?\}|\\Re|\\R(?![A-Za-z]))"
_IN = r"\s?\\in(?![A-Za-z])\s?"
_NE = r"\s{0,3}(?:\\neq?(?![A-Za-z])|\\not\s?=|!=)\s{0,3}"
_STYLED = re.compile(r"\\(?:text|mathrm|mbox|textrm)\s?\{([^{}]{0,80})\}")
_DRESS = re.compile(r"\\left(?![A-Za-z])|\\right(?![A-Za-z])|\\[,;:! ]|~")
_BUILDER = re.compile(
  rf"\\\{{\s?({_NAME})\s?(?:{_IN}{_REALS})?\s?"
  r"(?:\\mid(?![A-Za-z])|\\vert(?![A-Za-z])|\||:|such that)(.{1,300})\\\}"
)
_MEMBER = re.compile(rf"({_NAME}){_IN}(.{{1,300}})")
_REAL_FIRST = re.compile(
  rf"(?:{_NAME}{_IN})?{_REALS}\s?(?:[,;:|]|with|where|and|such that)\s?"
  r"(.{1,300})"
)
_REAL_LAST = re.compile(rf"\A(.{{1,300}}?)\s?[,;]\s?(?:{_NAME}){_IN}{_REALS}")
_EXCEPT = re.compile(
  r"(?:(?:the set of )?(?:all )?(?:the )?(?:reals?(?: numbers?)?"
  rf"|(?:real )?numbers|(?:real )?values(?: of {_NAME})?|{_REALS}"
  rf"|(?:real )?(?:values of )?\$?{_NAME}\$?(?:{_IN}{_REALS})?))"
  r",? ?(?:except|excluding|other than|but|apart from|besides)"
  rf"(?: for| when| at)? ?:? ?\$?(?:({_NAME})\s?=\s?)?(.{{1,100}})",
  re.IGNORECASE,
)
_MINUS = re.compile(
  rf"(?:({_NAME}){_IN})?{_REALS}\s?(?:\\setminus|\\backslash|\\smallsetminus"
  r"|-|\\)\s?\\?\{(.{1,100}?)\\?\}"
)
_NOT_IN = re.compile(
  rf"({_NAME})\s?(?:\\notin|\\not\s?\\in)\s?\\\{{(.{{1,100}})\\\}}"
)
_UNEQUAL = re.compile(rf"({_NAME}){_NE}")
_LISTED = re.compile(
  r"\s?(?:,\s?(?:and|or)(?![A-Za-z])|[,;]|(?<![A-Za-z])(?:and|or)(?![A-Za-z]))"
  r"\s?"
)


def bare(text: str) -> str:
  """A formula without dollars, styles and sizes of brackets.

  Args:
    text: one answer, without a box.
  """
  text = _STYLED.sub(r" \1 ", text.strip().strip("$").strip())
  text = _DRESS.sub(" ", text.replace("$", " "))
  return re.sub(r"\s+", " ", text).strip(" .,")


def canonical(text: str) -> str:
  """An answer as intervals, relations, or the reals without some points.

  Args:
    text: one answer, without a box.

  Returns:
    "x>6" for "\\{x \\mid x>6\\}", "(6,\\infty)" for "x\\in(6,\\infty)",
    "\\mathbb{R}\\setminus\\{-1,4\\}" for "x\\neq -1, 4"; the text itself if it
    is none of these.
  """
  if len(text) > 400:
    return text
  plain = bare(text)
  changed = False
  match = _BUILDER.fullmatch(plain)
  if match and re.search(rf"(?<![A-Za-z\\]){re.escape(match[1])}", match[2]):
    plain, changed = match[2].strip(), True
  for pattern in (_REAL_FIRST, _REAL_LAST):
    match = pattern.fullmatch(plain)
    if match and re.search(r"[<>=]|\\[lgn]e|\\in", match[1]):
      plain, changed = match[1].strip(), True
  points = excluded(plain)
  if points and (len(points[1]) > 1 or changed or not points[0]):
    return "\\mathbb{R}\\setminus\\{" + ",".join(points[1]) + "\\}"
  match = _MEMBER.fullmatch(plain)
  if match and re.match(r"[(\[]|\\\{|\\mathbb", match[2]):
    plain, changed = match[2], True
  return plain if changed else text


def excluded(text: str) -> tuple[str, tuple[str, ...]] | None:
  """(the unknown or "", the points) of the reals without some points.

  Args:
    text: a `bare` formula.
  """
  for pattern in (_MINUS, _NOT_IN, _EXCEPT):
    match = pattern.fullmatch(text)
    if match:
      inner = _UNEQUAL.sub("", match[2].strip(" ${}"))
      inner = re.sub(rf"(?<![A-Za-z\\])({_NAME})\s?=\s?", "", inner)
      name = match[1] or ""
      points = _points(inner)
      return (name, points) if points else None
  names = set(_UNEQUAL.findall(text))
  if len(names) != 1 or not _UNEQUAL.match(text):
    return None
  points = _points(_UNEQUAL.sub("", text))
  return (names.pop(), points) if points else None


def _points(text):
  """The points of a list; "\\pm 2" is two of them. None if it is prose."""
  found: list[str] = []
  for part in _LISTED.split(text):
    part = part.strip(" \\{}") if part.count("{") != part.count("}") else part
    part = part.strip()
    if not part or re.search(r"(?<!\\)[A-Za-z]{4,}|[<>=]", part):
      return None
    if part.startswith("\\pm"):
      rest = part[3:].strip()
      found += [f"-{rest}", rest]
    else:
      found.append(part)
  return tuple(found)
