"""Programs against tests: what passes, what does not, and what is refused."""

import json
import shutil
import time

import pytest

from r1jax.data import problem_files
from r1jax.errors import UserError
from r1jax.types import Problem, Verdict
from r1jax.verifiers.code import compare
from r1jax.verifiers.code import tests as code_tests
from tools import evaluate

DOUBLE = [{"input": "4\n", "output": "8\n"}, {"input": "-1", "output": "-2"}]
needs_compiler = pytest.mark.skipif(
  not shutil.which("/usr/bin/g++"), reason="there is no compiler"
)


def reason(code, tests, **kwargs):
  verdict = code_tests.run(code, tests, **kwargs)
  assert verdict.correct is (verdict.reason == "correct")
  assert verdict.score == float(verdict.correct)
  return verdict.reason


def prints(text, expected):
  return reason(
    f"import sys; sys.stdout.buffer.write({text!r})",
    [{"input": "", "output": expected}],
  )


def returns(expression, expected):
  test = {"fn": "f", "args": [], "result": expected}
  return reason(f"def f():\n  return {expression}\n", [test])


@pytest.mark.parametrize(
  ("code", "expected"),
  [
    ("print(int(input()) * 2)", "correct"),
    ("import math\nprint(round(math.ldexp(int(input()), 1)))", "correct"),
    ("if __name__ == '__main__': print(2 * int(input()))", "correct"),
    # The second test fails.
    ("print(abs(int(input())) * 2)", "wrong"),
    ("print(8)", "wrong"),
    ("", "wrong"),
    # The right output, but not the right end.
    ("print(int(input()) * 2); raise ValueError", "error"),
    ("print(int(input()) * 2); exit(3)", "error"),
    ("print(int(input() * 2", "error"),
    ("import numpy", "error"),
    ("print(input() * 2)\0", "error"),
    ("print('\ud800')", "error"),
  ],
)
def test_standard_output(code, expected):
  assert reason(code, DOUBLE) == expected


@pytest.mark.parametrize(
  ("text", "expected", "verdict"),
  [
    (b"a  \r\nb\n\n\n", "a\nb", "correct"),
    (b"a\nb", "a\nb  \n", "correct"),
    (b" a\nb", "a\nb", "correct"),
    (b"a\n\nb", "a\nb", "correct"),
    (b"a b", "a  b", "correct"),
    (b"a\nb", "a b", "correct"),
    (b"ab", "a b", "wrong"),
    (b"1.0", "1", "wrong"),
    ("é".encode(), "é", "correct"),
    (b"\xff\xfe", "\ufffd\ufffd", "wrong"),
  ],
)
def test_how_output_is_compared(text, expected, verdict):
  assert prints(text, expected) == verdict


@pytest.mark.parametrize(
  ("expression", "expected", "verdict"),
  [
    ("(1, [2, (3,)])", [1, [2, [3]]], "correct"),
    ("{'a': {'b': None}, 2: ()}", {"2": [], "a": {"b": None}}, "correct"),
    ("'\\n\"\\\\\\u00e9\\U0001f600'", '\n"\\é😀', "correct"),
    ("-(10 ** 40)", -(10**40), "correct"),
    ("10 ** 40 + 1", 10**40, "wrong"),
    ("True", True, "correct"),
    ("True", 1, "wrong"),
    ("1", True, "wrong"),
    ("[1, 0]", [True, False], "wrong"),
    ("None", None, "correct"),
    ("None", False, "wrong"),
    ("'1'", 1, "wrong"),
    ("2", 2.0, "correct"),
    ("2.0", 2, "correct"),
    # A large whole number and the float beside it.
    ("float(10 ** 17 + 1)", 10**17 + 1, "wrong"),
    ("10 ** 23", 1e23, "correct"),
    # One part in 10^10, and in 10^8.
    ("0.1 + 0.2", 0.3, "correct"),
    ("1 + 1e-10", 1.0, "correct"),
    ("1 + 1e-8", 1.0, "wrong"),
    ("10 ** 400", 1.5, "wrong"),
    ("float('inf')", 1.5, "wrong"),
    ("[1, 2]", [1, 2, 3], "wrong"),
    ("{'a': 1, 'b': 2}", {"a": 1}, "wrong"),
    # Sets have no order; numbers of one's own may be equal to anything.
    ("{1}", [1], "error"),
    ("type('N', (int,), {})(3)", 3, "error"),
    ("{True: 1}", {"True": 1}, "error"),
  ],
)
def test_how_results_are_compared(expression, expected, verdict):
  assert returns(expression, expected) == verdict


def test_arguments_arrive_as_they_are():
  args = [1, -2.5, 1e300, "é\n'\"\\", None, True, [], {"a": [{}]}, 10**50]
  code = "def f(*args):\n  return args\n"
  test = {"fn": "f", "args": args, "result": json.loads(json.dumps(args))}
  assert reason(code, [test]) == "correct"


def test_what_a_function_prints_is_not_its_result():
  test = {"fn": "f", "args": [2], "result": 4}
  assert reason("def f(x):\n  print(x)\n  return 2 * x\n", [test]) == "correct"
  assert reason("def f(x):\n  print(2 * x)\n", [test]) == "wrong"
  assert reason("def g(x):\n  return 2 * x\n", [test]) == "error"


def test_deep_recursion_in_a_thread():
  code = """
import sys, threading
sys.setrecursionlimit(200_000)
threading.stack_size(1 << 27)
def depth(n):
  return n and 1 + max([depth(n - 1)], key=int)
thread = threading.Thread(target=lambda: print(depth(20_000)))
thread.start()
thread.join()
"""
  assert reason(code, [{"input": "", "output": "20000"}]) == "correct"


def test_annotations_and_classes_of_a_program():
  code = """
from __future__ import annotations
import dataclasses
from typing import List
@dataclasses.dataclass
class Pair:
  a: int
  b: List[int]
def f(x):
  return dataclasses.astuple(Pair(x, [x]))
"""
  assert reason(code, [{"fn": "f", "args": [1], "result": [1, [1]]}]) == (
    "correct"
  )


@pytest.mark.parametrize(
  ("limits", "code", "expected"),
  [
    ({"cpu_seconds": 0.5}, "while True: pass", "timed_out"),
    ({"wall_seconds": 0.5}, "import time; time.sleep(60)", "timed_out"),
    ({"memory_bytes": 100 << 20}, "bytes(1 << 27)", "out_of_memory"),
    ({"memory_bytes": 300 << 20}, "bytes(1 << 27); print(8)", "correct"),
    ({"output_bytes": 100}, "print('8' * 200)", "too_much_output"),
    ({"file_bytes": 4096}, "open('a', 'wb').write(bytes(9999))", "error"),
    ({"file_bytes": 8192}, "open('a', 'w').write('a'); print(8)", "correct"),
  ],
)
def test_limits(limits, code, expected):
  tests = [{"input": "4\n", "output": "8"}]
  assert reason(code, tests, limits=limits) == expected


@needs_compiler
@pytest.mark.parametrize(
  ("code", "expected"),
  [
    ("int x; std::cin >> x; std::cout << 2 * x << std::endl;", "correct"),
    ("std::cout << 8;", "wrong"),
    ("std::cout << y;", "does_not_compile"),
    ("throw 1;", "crashed"),
    ("return *(volatile int*)8;", "crashed"),
    ("for (volatile int i = 0;; i = i + 1);", "timed_out"),
    # The optimiser leaves out an allocation that nobody looks at.
    ("char* volatile p = new char[1ul << 40];", "out_of_memory"),
  ],
)
def test_cpp(code, expected):
  program = f"#include <iostream>\nint main() {{ {code} }}\n"
  limits = {"cpu_seconds": 1}
  assert reason(program, DOUBLE, language="cpp", limits=limits) == expected


def problem(**data):
  return Problem("p3", "code", "?", "", "en", {"tests": DOUBLE, **data})


def block(code, mark="python"):
  return f"```{mark}\n{code}\n```\n"


GOOD, BAD = "print(2 * int(input()))", "print(3)"


@pytest.mark.parametrize(
  ("completion", "expected"),
  [
    (f"<think> </think> So:\n{block(GOOD)}It doubles.", "correct"),
    (block(GOOD, ""), "correct"),
    (block(BAD) + block(GOOD), "correct"),
    (block(GOOD) + block(BAD), "wrong"),
    (block(GOOD) + block("4", "text"), "correct"),
    (f"<think> {block(GOOD)} </think> {GOOD}", "no_answer"),
    (f"<think> {block(BAD)} </think> {block(GOOD)}", "correct"),
    (block(GOOD, "python3"), "correct"),
    # Tags on the lines of the fences, as a template's example has it.
    (f"<think> </think> <answer> ```python\n{GOOD}\n``` </answer>", "correct"),
    (f"<answer>```\n{GOOD}\n```</answer>", "correct"),
    (f"{block(GOOD)}<answer>```python\n{BAD}\n```</answer>", "wrong"),
    (f"<answer>{GOOD} # ```</answer>", "correct"),
    (f"```python\n{GOOD}", "no_answer"),
    (GOOD, "no_answer"),
    (block(GOOD, "cpp"), "no_answer"),
    ("", "no_answer"),
  ],
)
def test_the_fenced_code_counts(completion, expected):
  verdict = code_tests.verify(problem(), completion)
  correct = expected == "correct"
  assert verdict == Verdict(correct, float(correct), expected)


# What a pattern or a loop could read many times.
PUMPS = [
  *("```python\n", "`", "~", "~~~\n", "```", "``` ", "``\n", " ", "\t", "> "),
  *(
    "- ",
    "1. ",
    "1",
    "```python ",
    "``` python",
    "```python x```\n",
    "<answer>",
  ),
  *("<answer> ", "```</answer>", "``` </answer>", "````md\n```py\n", "\r", "{"),
  *("    ```\n", "  ```python\n", "a```\n", "```\n```python\n", "```c+", "{."),
]


@pytest.mark.parametrize("pump", PUMPS)
@pytest.mark.parametrize("frame", ["{}", "```python\n{}\n```", "```{}!`"])
def test_fences_are_read_in_linear_time(pump, frame):
  def seconds(size):
    text = frame.format(pump * (size // len(pump)))
    start = time.process_time()
    code_tests.fenced_code(text, "python")
    return time.process_time() - start

  # Ten times the text takes ten times as long, and a fixed part.
  assert seconds(400_000) < 30 * seconds(40_000) + 0.2


@pytest.mark.parametrize("pump", ["1", "1.", "-", "1e", ".", "0", "1 ", "e1"])
def test_outputs_are_compared_in_linear_time(pump):
  start = time.process_time()
  for end in ("", "x"):
    text = (pump * 200_000 + end).encode()
    assert not compare.same_output(text, b"1.5" + text, None, False)
    assert not compare.same_result(text, [1.5], 1e-6)
  assert time.process_time() - start < 2


@pytest.mark.parametrize(
  ("data", "message"),
  [
    ({"tests": []}, "p3: tests must be a list with at least one"),
    ({"tests": None}, "tests must be a list"),
    ({"tests": [*DOUBLE, {"input": "1"}]}, "test 2 must be input and output"),
    ({"tests": [{"input": 1, "output": ""}]}, "test 0 must be"),
    ({"tests": [{"input": "\ud800", "output": ""}]}, "test 0 must be"),
    ({"tests": [{"fn": "f", "args": 1, "result": 1}]}, "args .a list"),
    ({"tests": [{"fn": "f x", "args": [], "result": 1}]}, "fn .a name"),
    ({"tests": [{"fn": "f", "args": [{1}], "result": 1}]}, "test 0"),
    ({"tests": [{"fn": "f", "args": [], "result": {1: 2}}]}, "test 0"),
    ({"tests": [{"fn": "f", "args": [], "result": 1e999}]}, "test 0"),
    ({"tests": [{"assert": " "}]}, "test 0 must be"),
    ({"tests": [{"assert": "f()", "fn": "a b"}]}, "test 0 must be"),
    ({"tests": [{"assert": "f()", "code": ""}]}, "test 0 must be"),
    ({"compare": "words"}, "compare='words' must be one of tokens, lines"),
    ({"tolerance": -1}, "tolerance must be a number of at least 0, not -1"),
    ({"tolerance": "1e-6"}, "tolerance must be a number"),
    ({"tolerance": 1, "compare": "lines"}, 'tolerance needs compare="tokens"'),
    ({"checker": 1}, "checker must be text, not 1"),
    ({"checker": "lambda *a: True"}, "begins a line with .def check"),
    ({"preamble": ["import os"]}, "preamble must be text"),
    ({"packages": "numpy"}, "packages must be a list of names.*known: numpy"),
    ({"packages": ["torch"]}, "packages must be.*torch.*known: numpy"),
    ({"packages": ["numpy"], "language": "cpp"}, "are for python, not for cpp"),
    ({"language": "cobol"}, '"cobol" is unknown; known: python, cpp'),
    ({"language": ["python"]}, "is unknown; known: python, cpp"),
    ({"limits": [1]}, r"limits must map names to numbers, not be \[1\]"),
    ({"limits": {"seconds": 1}}, '"seconds" is unknown; known: cpu_seconds'),
    ({"limits": {"cpu_seconds": 0}}, "cpu_seconds must be float above 0"),
    ({"limits": {"memory_bytes": 1e9}}, "memory_bytes must be int above 0"),
    ({"limits": {"threads": True}}, "threads must be int above 0"),
  ],
)
def test_malformed_problems_are_refused(data, message):
  code_tests.check_problem(problem())
  with pytest.raises(UserError, match=message):
    code_tests.check_problem(problem(**data))


@needs_compiler
def test_functions_of_cpp_are_refused():
  data = {"language": "cpp", "tests": [{"fn": "f", "args": [], "result": 1}]}
  with pytest.raises(UserError, match="functions of cpp cannot be called"):
    code_tests.check_problem(problem(**data))


@pytest.mark.parametrize(
  "text",
  [
    "</think><answer>print(int(input()) + 1)</answer>",
    "</think><answer>\n```python\nprint(int(input()) + 1)\n```\n</answer>",
    "</think>```\nprint(int(input()) + 1)\n```\nwhich <answer>2</answer>",
  ],
)
def test_programs_stand_in_blocks_or_tags(text):
  tests = [{"input": "1", "output": "2"}]
  problem = Problem("p", "code", "?", "", "en", {"tests": tests})
  assert code_tests.verify(problem, text).correct


def test_numpy_by_config():
  code = """
import numpy as np
def f(n):
  return np.arange(n) @ np.arange(n), np.linalg.inv(np.eye(2) * 2)
"""
  tests = [{"fn": "f", "args": [4], "result": [14, [[0.5, 0], [0, 0.5]]]}]
  completion = block(code)
  assert code_tests.verify(problem(tests=tests), completion).reason == "error"
  with_it = problem(tests=tests, packages=["numpy"])
  assert code_tests.verify(with_it, completion).correct
  # Nothing else of its directory is there.
  others = block("import sympy")
  assert code_tests.verify(with_it, others).reason == "error"


def test_columns_without_a_value_are_absent():
  names = ("language", "limits", "compare", "tolerance", "checker", "packages")
  empty = problem(**dict.fromkeys((*names, "preamble")))
  assert code_tests.verify(empty, block(GOOD)).correct


def test_output_as_long_as_expected():
  code = "print('7 ' * int(input()))"
  long = {"input": "700000", "output": "7 " * 700_000}
  assert reason(code, [long]) == "correct"
  short = {"input": "700000", "output": "7 " * 10}
  assert reason(code, [short]) == "too_much_output"
  result = {"fn": "f", "args": [], "result": "é" * 400_000}
  assert reason("def f(): return 'é' * 400_000", [result]) == "correct"


def test_one_box_that_fails_is_no_verdict(monkeypatch):
  def fails(*_, **__):
    raise code_tests.sandbox.Broken("no memory")

  assert code_tests.verify(problem(), block(GOOD)).correct
  monkeypatch.setattr(code_tests.sandbox, "run", fails)
  verdict = code_tests.verify(problem(), block(GOOD))
  assert verdict == Verdict(False, 0.0, "sandbox_failed", judged=False)


def test_numpy_for_all_problems_of_a_task(tmp_path):
  answer = "import numpy as np\nprint(2 * np.int64(input()))"
  row = {"prompt": "?", "kind": "code", "answer": answer}
  row["data"] = {"tests": DOUBLE}
  path = tmp_path / "a.jsonl"
  path.write_text(json.dumps(row))
  with pytest.raises(UserError, match="finds the answer .* error"):
    problem_files.read(path)
  (read,) = problem_files.read(path, shared_data=dict(packages=["numpy"]))
  assert read.data == {"packages": ["numpy"], "tests": DOUBLE}
  with pytest.raises(UserError, match="known: numpy"):
    problem_files.read(path, shared_data=dict(packages=["torch"]))


def test_numpy_on_the_command_line():
  args = ["--checkpoint=a", "--data=b", "--template=none", "--shared_data"]
  args = evaluate.parse([*args, 'packages=["numpy"]', "compare=lines"])
  found = evaluate._task(args, None).shared_data
  assert found == {"packages": ["numpy"], "compare": "lines"}
