"""What the data of a problem with a program may hold; docs/verifiers.md."""

import json
import math
import re
import shutil
from collections.abc import Mapping
from typing import Any, NamedTuple

from r1jax.errors import UserError
from r1jax.verifiers.code import bubblewrap
from r1jax.verifiers.code.programs import LANGUAGES

_COMPARE = ("tokens", "lines")
_CHECK = re.compile(r"^def check\(", re.MULTILINE)


class Rules(NamedTuple):
  """What a problem's data says besides tests, limits and the language.

  Attributes:
    compare: "tokens": outputs are compared word by word; "lines": line by line.
    tolerance: error of numbers, absolute below 1 and relative above; None for
      the usual one.
    checker: text of Python code with a function check(input, expected, output)
      -> bool, which decides instead of a comparison; "" for none.
    packages: names of `bubblewrap.PACKAGES` that the program may import.
    preamble: code that runs before the program, in its scope.
  """

  compare: str = "tokens"
  tolerance: float | None = None
  checker: str = ""
  packages: tuple[str, ...] = ()
  preamble: str = ""


def limits_of(changes: Mapping[str, Any] | None) -> bubblewrap.Limits:
  """The limits of a problem.

  Args:
    changes: name -> number, which replace defaults of `bubblewrap.Limits`.

  Raises:
    UserError: a limit is invalid.
  """
  changes = changes or {}
  known = bubblewrap.Limits._fields
  if not isinstance(changes, Mapping):
    raise UserError(
      f"limits must map names to numbers, not be {changes!r:.80}; names:"
      f" {', '.join(known)}"
    )
  for name, value in changes.items():
    if name not in known:
      raise UserError(f'limits: "{name}" is unknown; known: {", ".join(known)}')
    kinds = (int, int if name in bubblewrap.WHOLE else float)
    if type(value) not in kinds or not 0 < value < math.inf:
      raise UserError(
        f"limits: {name} must be {kinds[1].__name__} above 0, not {value!r}"
      )
  return bubblewrap.Limits(**changes)


def language_of(data: Mapping[str, Any]) -> str:
  """The language of a problem's programs; a column may hold no value."""
  language = data.get("language")
  return "python" if language is None else language


def rules_of(data: Mapping[str, Any]) -> Rules:
  """The rules of a problem.

  Args:
    data: the problem's `data`.

  Raises:
    UserError: a field is invalid.
  """
  rules = Rules(
    **{k: data[k] for k in Rules._fields if data.get(k) is not None}
  )
  if rules.compare not in _COMPARE:
    raise UserError(
      f"compare={rules.compare!r:.80} must be one of {', '.join(_COMPARE)}"
    )
  tolerance = rules.tolerance
  if tolerance is not None and (
    type(tolerance) not in (int, float) or not 0 <= tolerance < math.inf
  ):
    raise UserError(
      f"tolerance must be a number of at least 0, not {tolerance!r:.80}"
    )
  if tolerance is not None and rules.compare == "lines":
    raise UserError(
      'tolerance needs compare="tokens"; lines are compared as text'
    )
  for name in ("checker", "preamble"):
    if not _is_text(getattr(rules, name)):
      raise UserError(f"{name} must be text, not {getattr(rules, name)!r:.80}")
  if rules.checker and not _CHECK.search(rules.checker):
    raise UserError(
      "checker must be Python code that begins a line with"
      ' "def check(input, expected, output)"'
    )
  _check_packages(rules.packages, language_of(data))
  return rules._replace(packages=tuple(rules.packages))


def _check_packages(packages, language):
  known = bubblewrap.PACKAGES
  if not isinstance(packages, (list, tuple)) or not all(
    isinstance(name, str) and name in known for name in packages
  ):
    raise UserError(
      f"packages must be a list of names, not {packages!r:.80}; known:"
      f" {', '.join(known)}"
    )
  if packages and language != "python":
    raise UserError(f"packages are for python, not for {language}")
  for name in packages:
    try:
      bubblewrap.package_place(name)
    except bubblewrap.Failed as error:
      raise UserError(f"packages: {error}") from None


def check_tests(tests: Any, language: str) -> None:
  """Raises a `UserError` unless programs of a language can be tested by tests.

  Args:
    tests: what a problem's data has under "tests".
    language: one of `programs.LANGUAGES`, if it is valid.
  """
  if not isinstance(language, str) or language not in LANGUAGES:
    raise UserError(
      f'language "{language}" is unknown; known: {", ".join(LANGUAGES)}'
    )
  kind = LANGUAGES[language]
  if kind.compiler and not shutil.which(kind.compiler):
    raise UserError(f"language {language}: there is no {kind.compiler} here")
  if not isinstance(tests, list) or not tests:
    raise UserError("tests must be a list with at least one test")
  for i, test in enumerate(tests):
    names = set(test) if isinstance(test, Mapping) else set()
    if names == {"input", "output"}:
      good = _is_text(test["input"]) and _is_text(test["output"])
    elif names == {"fn", "args", "result"}:
      good = (
        _is_name(test["fn"])
        and isinstance(test["args"], list)
        and _is_json([test["args"], test["result"]])
      )
    else:
      good = "assert" in names <= {"assert", "setup", "fn"} and (
        _is_text(test["assert"])
        and bool(test["assert"].strip())
        and _is_text(test.get("setup", ""))
        and ("fn" not in test or _is_name(test["fn"]))
      )
    if not good:
      raise UserError(
        f"test {i} must be input and output, both text, or fn (a name), args"
        " (a list) and result, both JSON, or assert (text) and perhaps setup"
        " (text) and fn (a name)"
      )
    if "input" not in names and not kind.call:
      raise UserError(f"test {i}: functions of {language} cannot be called")


def _is_name(value):
  return isinstance(value, str) and value.isidentifier()


def _is_text(value):
  if not isinstance(value, str):
    return False
  try:
    value.encode()
  except UnicodeEncodeError:  # half of a surrogate pair
    return False
  return True


def _is_json(value):
  try:
    return json.loads(json.dumps(value, allow_nan=False)) == value
  except (TypeError, ValueError, RecursionError):
    return False
