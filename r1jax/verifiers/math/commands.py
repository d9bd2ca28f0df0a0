"""Gives each command of LaTeX its arguments in braces: \\binom52, \\sqrt[3]5.

One pass from right to left: when a command is met, its arguments are known.
"""

import re

# How many arguments a command takes.
_TAKES = {
  "\\frac": 2, "\\dfrac": 2, "\\tfrac": 2, "\\cfrac": 2, "\\binom": 2,
  "\\dbinom": 2, "\\tbinom": 2, "\\sqrt": 1, "\\boxed": 1, "\\fbox": 1,
  "\\overline": 1, "\\bar": 1, "\\dot": 1, "\\mathbb": 1,
}  # fmt: skip
_TOKEN = re.compile(r"\\[A-Za-z]+|\\.|\s+|.", re.DOTALL)
_NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?(?:/\d+)?")
# What is no argument.
_NONE = ("&", "$", "^", "_", ")", "]", "\\\\", "}", ",", "=")


def braced_arguments(text: str) -> str:
  """A text whose commands have their arguments in braces.

  A command is also set apart from a digit: "\\lg2" becomes "\\lg 2".

  Args:
    text: LaTeX, such as "\\frac12", "\\boxed 7", "\\lg2".
  """
  if "\\" not in text:
    return text
  # Of each open brace, what is right of it; the next unit is the last.
  levels: list[list[str]] = [[]]
  for token in reversed(_TOKEN.findall(text)):
    units = levels[-1]
    if token == "}":
      levels.append([])
    elif token == "{" and len(levels) > 1:
      inner = "".join(reversed(levels.pop()))
      levels[-1].append(f"{{{inner}}}")
    elif token in _TAKES:
      units.append(_with_arguments(token, units))
    elif token in "^_":
      _brace_script(units)
      units.append(token)
    else:
      if len(token) > 1 and token[1:].isalpha() and units:
        token += " " if units[-1].isdigit() else ""
      units.append(token)
  return "}".join("".join(reversed(units)) for units in reversed(levels))


def _with_arguments(command, units):
  """The command with its arguments, which are taken from the units."""
  made = command
  if command == "\\sqrt" and _next(units) == "[":
    index = [i for i in range(2, 8) if units[-i : 1 - i] == ["]"]]
    if not index:
      return made
    made += "".join(units.pop() for _ in range(index[0]))
  for _ in range(_TAKES[command]):
    unit = _next(units)
    if unit is None or unit in _NONE:
      break
    if command in ("\\boxed", "\\fbox"):
      match = _NUMBER.match("".join(reversed(units[-60:])))
      if match:
        del units[-len(match[0]) :]
        made += f"{{{match[0]}}}"
        continue
    units.pop()
    made += unit if unit[0] == "{" else f"{{{unit}}}"
  return made


def _brace_script(units):
  """Braces a raised or lowered command that has arguments: 2^\\frac12."""
  unit = _next(units)
  if unit is not None and unit[0] == "\\" and "{" in unit:
    units[-1] = f"{{{unit}}}"


def _next(units):
  """The next unit that is no space; drops the spaces before it."""
  while units and units[-1].isspace():
    units.pop()
  return units[-1] if units else None
