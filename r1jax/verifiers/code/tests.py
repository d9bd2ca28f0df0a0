"""Does a program pass its tests? Each test runs in a sandbox of its own.

The expected output never enters the program's sandbox. Even a program that has
taken over its sandbox can only guess what to print.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from r1jax.errors import BadProblem, UserError
from r1jax.text import think_format
from r1jax.types import Problem, Verdict
from r1jax.verifiers.code import compare, programs, sandbox
from r1jax.verifiers.code.blocks import fenced_code
from r1jax.verifiers.code.data import (
  Rules,
  check_tests,
  language_of,
  limits_of,
  rules_of,
)

_USUAL = Rules()
_FAILED = Verdict(False, 0.0, "sandbox_failed", judged=False)


def run(
  code: str,
  tests: Sequence[Mapping[str, Any]],
  limits: Mapping[str, float] | None = None,
  *,
  language: str = "python",
  rules: Rules = _USUAL,
) -> Verdict:
  """Runs a program on its tests, up to the first test that it fails.

  Args:
    code: text of the program.
    tests: list of {"input", "output"}, of {"fn", "args", "result"}, where args
      is a list, or of {"assert"} with "setup" and "fn" if needed; see
      docs/verifiers.md.
    limits: name -> number, which replace defaults of `bubblewrap.Limits`.
    language: one of `programs.LANGUAGES`.
    rules: what else the problem's data says.

  Returns:
    `Verdict` with the score 1.0 or 0.0 (R1 v2, 2.2); paying for the share of
    passed tests would pay for guesses. Reason "correct", "wrong", "error",
    "crashed", "timed_out", "out_of_memory", "too_much_output",
    "does_not_compile", "checker_failed", or "sandbox_failed", which is not
    judged.

  Raises:
    UserError: a limit, the language or a test is invalid, or no sandbox can be
      made here.
  """
  most = limits_of(limits)
  check_tests(tests, language)
  try:
    program = programs.prepare(
      programs.LANGUAGES[language], code, rules.preamble, rules.packages
    )
    if program is None:
      return Verdict(False, 0.0, "does_not_compile")
    for test in tests:
      reason = _run_test(program, test, most, rules)
      if reason != "correct":
        return Verdict(False, 0.0, reason)
  except (sandbox.Broken, OSError):
    # It says nothing about the program.
    return _FAILED
  return Verdict(True, 1.0, "correct")


def verify(problem: Problem, completion: str) -> Verdict:
  """Whether the program of a completion passes the tests.

  Args:
    problem: a `Problem` whose data has "tests" and may have the other fields
      that docs/verifiers.md lists.
    completion: the text that the policy wrote. After the thinking, the code
      of `fenced_code` counts, else the text in the answer tags.

  Returns:
    `Verdict`; the reason is one of `run`, or "no_answer".

  Raises:
    BadProblem: see `check_problem`.
    UserError: no sandbox can be made here.
  """
  check_problem(problem)
  data = problem.data
  language = language_of(data)
  code = fenced_code(completion, language)
  if code is None:
    code = think_format.answer(completion)
  if code is None:
    return Verdict(False, 0.0, "no_answer")
  limits, rules = data.get("limits"), rules_of(data)
  return run(code, data["tests"], limits, language=language, rules=rules)


def check_problem(problem: Problem) -> None:
  """Raises a `BadProblem` if `verify` cannot use the problem's data."""
  data = problem.data
  try:
    limits_of(data.get("limits"))
    check_tests(data.get("tests"), language_of(data))
    rules_of(data)
  except UserError as error:
    raise BadProblem(f"problem {problem.id}: {error}") from None


def _run_test(program, test, limits, rules):
  if "assert" in test:
    return programs.holds(
      program, test.get("setup", ""), test["assert"], test.get("fn", ""), limits
    )
  if "fn" in test:
    stdin, how = repr((test["fn"], test["args"])), "call"
    given, expected = test["args"], test["result"]
    # The result is JSON, where a character may take six bytes.
    size = 6 * len(repr(expected))
  else:
    stdin, how = test["input"], "run"
    given, expected = test["input"], test["output"]
    size = len(expected.encode())
  room = limits._replace(output_bytes=limits.output_bytes + 2 * size)
  outcome = program.execute(how, stdin.encode(), room)
  if why := programs.failure(outcome):
    return why
  if rules.checker:
    return _checked(rules.checker, given, expected, outcome.stdout)
  if "fn" in test:
    same = compare.same_result(outcome.stdout, expected, rules.tolerance)
  else:
    lines = rules.compare == "lines"
    same = compare.same_output(
      outcome.stdout, expected.encode(), rules.tolerance, lines
    )
  return "correct" if same else "wrong"


def _checked(checker, given, expected, output):
  """The reason that a checker function gives."""
  try:
    text = isinstance(given, str)
    value = output.decode() if text else compare.parse(output)
  except ValueError:
    return "wrong"  # no text, or no result
  says = programs.check(checker, (given, expected, value))
  if says is None:
    return "checker_failed"
  return "correct" if says else "wrong"


__all__ = ["Rules", "check_problem", "fenced_code", "run", "verify"]
