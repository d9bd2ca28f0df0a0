"""Does a program pass its tests? Each test runs in a sandbox of its own.

The expected output never enters a sandbox. Even a program that has taken over
its sandbox can only guess what to print.
"""

import functools
import json
import math
import re
import shutil
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from r1jax.errors import BadProblem, UserError
from r1jax.text import think_format
from r1jax.types import Problem, Verdict
from r1jax.verifiers.code import bubblewrap, sandbox

# Runs the program, calls its function and writes the result as JSON, by hand,
# since importing json takes longer than all the rest. The test comes as a
# Python literal. Only values of exactly these types are written, but the
# program can replace all of this: the output is the program's.
_CALL = b"""
import os, sys
def text(value):
  kind = type(value)
  if value is None or kind is bool:
    return {None: "null", True: "true", False: "false"}[value]
  if kind is int or kind is float:
    return repr(value)
  if kind is str:
    units = value.encode("utf-16-be", "surrogatepass").hex()
    units = [units[i : i + 4] for i in range(0, len(units), 4)]
    return '"' + "".join("\\\\u" + unit for unit in units) + '"'
  if kind is list or kind is tuple:
    return "[" + ",".join([text(item) for item in value]) + "]"
  if kind is dict:
    if not all(type(key) in (str, int) for key in value):
      raise TypeError("a key is no str or int")
    pairs = [text(str(k)) + ":" + text(v) for k, v in value.items()]
    return "{" + ",".join(pairs) + "}"
  raise TypeError(f"{kind} is no JSON")
name, args = eval(sys.stdin.read())
channel = os.dup(1)
os.dup2(2, 1)
module = sys.modules["program"] = type(sys)("program")
scope = module.__dict__
with open("/program", "rb") as file:
  exec(compile(file.read(), "/program", "exec"), scope)
result = text(scope[name](*args)).encode()
while result:
  result = result[os.write(channel, result):]
"""


class Language(NamedTuple):
  """How to run programs of a language.

  Attributes:
    run: the command that runs the program.
    call: the command that calls a function of the program, or None.
    compiler: path of the compiler, or None.
    compile: the command that compiles the source to the file "out" in
      `bubblewrap.BOX`, or None.
  """

  run: tuple
  call: tuple | None = None
  compiler: str | None = None
  compile: tuple | None = None


# To add a language, add an entry. Its commands must be below /usr.
LANGUAGES = {
  "python": Language(
    run=(*bubblewrap.PYTHON, bubblewrap.SOURCE),
    call=(*bubblewrap.PYTHON, "-c", _CALL.decode()),
  ),
  "cpp": Language(
    run=(bubblewrap.SOURCE,),
    compiler="/usr/bin/g++",
    compile=("/usr/bin/g++", "-O2", "-std=c++17", "-x", "c++", "-o", "out"),
  ),
}
_FENCES = dict.fromkeys(("python", "python3", "py", "py3"), "python")
_FENCES |= dict.fromkeys(("cpp", "c++", "cpp17", "c++17", "cc"), "cpp")

_COMPILING = bubblewrap.Limits(
  cpu_seconds=30,
  wall_seconds=60,
  memory_bytes=2 << 30,
  output_bytes=32 << 20,
  file_bytes=64 << 20,
)
# The last words of Python and of the C++ library when they get no memory.
_OUT_OF_MEMORY = (b"MemoryError", b"std::bad_alloc")
_RELATIVE = 1e-9


def run(
  code: str,
  tests: Sequence[Mapping[str, Any]],
  limits: Mapping[str, float] | None = None,
  *,
  language: str = "python",
) -> Verdict:
  """Runs a program on its tests, up to the first test that it fails.

  Outputs are compared line by line, without white space at the ends of lines
  and without empty lines at the end. Results are compared as JSON: a tuple is a
  list, a key is a string, a bool is no number, and floats are equal within a
  relative error of 1e-9.

  Args:
    code: text of the program.
    tests: list of {"input", "output"}, or of {"fn", "args", "result"}, where
      args is a list.
    limits: name -> number, which replace defaults of `bubblewrap.Limits`.
    language: one of `LANGUAGES`.

  Returns:
    `Verdict` with the score 1.0 or 0.0 (R1 v2, 2.2); paying for the share of
    passed tests would pay for guesses. Reason "correct", "wrong", "error",
    "crashed", "timed_out", "out_of_memory", "too_much_output" or
    "does_not_compile".

  Raises:
    UserError: a limit, the language or a test is invalid, or no sandbox can be
      made here.
  """
  limits = _limits(limits)
  _check_tests(tests, language)
  kind = LANGUAGES[language]
  program = code.encode(errors="surrogatepass")
  if kind.compile:
    program = _compile(kind, program)
    if program is None:
      return Verdict(False, 0.0, "does_not_compile")
  for test in tests:
    reason = _run_test(kind, program, test, limits)
    if reason != "correct":
      return Verdict(False, 0.0, reason)
  return Verdict(True, 1.0, "correct")


def verify(problem: Problem, completion: str) -> Verdict:
  """Whether the program of a completion passes the tests.

  Args:
    problem: a `Problem` whose data has "tests" and may have "language" and
      "limits", all as for `run`.
    completion: the text that the policy wrote. After the thinking, the last
      fenced code counts, else the text in the answer tags.

  Returns:
    `Verdict`; the reason is one of `run`, or "no_answer".

  Raises:
    BadProblem: see `check_problem`.
    UserError: no sandbox can be made here.
  """
  check_problem(problem)
  data = problem.data
  language = data.get("language", "python")
  code = fenced_code(completion, language)
  if code is None:
    code = think_format.answer(completion)
  if code is None:
    return Verdict(False, 0.0, "no_answer")
  return run(code, data["tests"], data.get("limits"), language=language)


def check_problem(problem: Problem) -> None:
  """Raises a `BadProblem` if `verify` cannot use the problem's data."""
  data = problem.data
  try:
    _limits(data.get("limits"))
    _check_tests(data.get("tests"), data.get("language", "python"))
  except UserError as error:
    raise BadProblem(f"problem {problem.id}: {error}") from None


def fenced_code(completion: str, language: str) -> str | None:
  """The last code between closed fences after the thinking, or None.

  Args:
    completion: the text that the policy wrote.
    language: one of `LANGUAGES`. A fence counts if it names this language or
      none.
  """
  text = think_format.after_thinking(completion)
  # The answer tags are often on the lines of the fences.
  text = re.sub(rf"{think_format.ANSWER}[ \t]*(?=```)", "\n", text)
  text = re.sub(rf"(?<=```)[ \t]*{think_format.END_ANSWER}", "\n", text)
  code: str | None = None
  inside: list[str] | None = None
  mark = ""
  for line in text.split("\n"):
    if inside is None:
      if match := re.match(r" {0,3}``` ?([\w+]*)\s*$", line):
        inside, mark = [], match[1].lower()
    elif line.strip() == "```":
      if _FENCES.get(mark) == language or not mark:
        code = "\n".join(inside) + "\n"
      inside = None
    else:
      inside.append(line)
  return code


def _limits(changes):
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
    kinds = (int, type(bubblewrap.Limits._field_defaults[name]))
    if type(value) not in kinds or not 0 < value < math.inf:
      raise UserError(
        f"limits: {name} must be {kinds[1].__name__} above 0, not {value!r}"
      )
  return bubblewrap.Limits(**changes)


def _check_tests(tests, language):
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
    names = set(test) if isinstance(test, Mapping) else None
    if names == {"input", "output"}:
      good = _is_text(test["input"]) and _is_text(test["output"])
    elif names == {"fn", "args", "result"}:
      if not kind.call:
        raise UserError(f"test {i}: functions of {language} cannot be called")
      good = (
        isinstance(test["fn"], str)
        and test["fn"].isidentifier()
        and isinstance(test["args"], list)
        and _is_json([test["args"], test["result"]])
      )
    else:
      good = False
    if not good:
      raise UserError(
        f"test {i} must be input and output, both text, or fn (a name), args"
        " (a list) and result, both JSON"
      )


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


# A group's completions often hold the same program.
@functools.lru_cache(maxsize=16)
def _compile(kind, source):
  """The compiled program as bytes; None if it does not compile."""
  # The compiled program leaves the box through standard output.
  script = f'"$@" {bubblewrap.SOURCE} >&2 && cat {bubblewrap.BOX}/out'
  command = ("/usr/bin/sh", "-c", script, "sh", *kind.compile)
  outcome = sandbox.run(command, source, b"", _COMPILING, forks=True)
  done = outcome.ending == "exited" and outcome.code == 0
  return outcome.stdout if done else None


def _run_test(kind, program, test, limits):
  if "fn" in test:
    stdin, command = repr((test["fn"], test["args"])), kind.call
  else:
    stdin, command = test["input"], kind.run
  outcome = sandbox.run(command, program, stdin.encode(), limits)
  if outcome.ending != "exited":
    return outcome.ending
  if outcome.code:
    if any(words in outcome.stderr[-200:] for words in _OUT_OF_MEMORY):
      return "out_of_memory"
    return "crashed" if outcome.code > 128 else "error"
  if "fn" in test:
    passed = _same_result(outcome.stdout, test["result"])
  else:
    passed = _lines(outcome.stdout) == _lines(test["output"].encode())
  return "correct" if passed else "wrong"


def _lines(output):
  return [line.rstrip() for line in output.rstrip().split(b"\n")]


def _same_result(text, expected):
  try:
    value = json.loads(text)
  except (ValueError, RecursionError):
    return False
  return _same(value, expected)


def _same(value, expected):
  """Whether two JSON values are equal.

  Only `expected` bounds the depth of the recursion; a program cannot.
  """
  if isinstance(expected, list):
    return (
      isinstance(value, list)
      and len(value) == len(expected)
      and all(map(_same, value, expected))
    )
  if isinstance(expected, dict):
    return (
      isinstance(value, dict)
      and value.keys() == expected.keys()
      and all(_same(value[key], expected[key]) for key in expected)
    )
  if {type(value), type(expected)} in ({float}, {int, float}):
    try:
      return math.isclose(value, expected, rel_tol=_RELATIVE)
    except OverflowError:  # a whole number beyond all floats
      return False
  return type(value) is type(expected) and value == expected
