"""Layouts of benchmarks whose answers are programs.

`docs/verifiers.md` has the tests that their rows become.
"""

import ast
from typing import Any

from r1jax.data.layouts import cells
from r1jax.errors import UserError

_STDIN = (
  "Write a Python program that reads standard input and prints the answer to"
  " standard output. Put it in one block that begins with ```python."
)
_FUNCTION = (
  "Complete this Python code. Put all of it in one block that begins with"
  " ```python."
)


def apps(row: dict[str, Any]) -> dict[str, Any] | None:
  """APPS: tests as JSON in `input_output`, solutions as a list of JSON.

  Source: Hendrycks et al. 2021, arXiv 2105.09938.

  Args:
    row: the values of a row; a row without tests is left out.
  """
  tests = cells.value(row, "input_output") or {}
  inputs, outputs = tests.get("inputs", []), tests.get("outputs", [])
  if not inputs:
    return None
  if len(inputs) != len(outputs):
    raise UserError(
      f'"input_output" has {len(inputs)} inputs, but {len(outputs)} outputs'
    )
  starter = row.get("starter_code") or ""
  fn = tests.get("fn_name")
  if fn:
    # Functions of LeetCode, methods of a class, have the bare results; of all
    # others each result is in a list.
    bare = "class Solution" in starter
    found = [
      _call(fn, args, result if bare else _only(result))
      for args, result in zip(inputs, outputs)
    ]
  else:
    found = [
      {"input": _lines(given), "output": _lines(wanted)}
      for given, wanted in zip(inputs, outputs)
    ]
  return {
    "id": row["problem_id"],
    "kind": "code",
    "prompt": _program_prompt(row["question"], starter, bool(fn)),
    "answer": _first_program(cells.value(row, "solutions") or []),
    "data": {"tests": found},
  }


def livecodebench(row: dict[str, Any]) -> dict[str, Any]:
  """LiveCodeBench: public tests as JSON, private ones packed.

  Source: Jain et al. 2024, arXiv 2403.07974; code_generation_lite.

  Args:
    row: the values of a row.
  """
  cases = cells.value(row, "public_test_cases") + _private(row)
  fn = (cells.value(row, "metadata") or {}).get("func_name")
  found = []
  for case in cases:
    if case.get("testtype") == "functional":
      args = [
        cells.parsed(line) for line in case["input"].split("\n") if line.strip()
      ]
      found.append(_call(fn, args, cells.parsed(case["output"])))
    else:
      found.append({"input": case["input"], "output": case["output"]})
  starter = row.get("starter_code") or ""
  return {
    "id": row["question_id"],
    "kind": "code",
    "prompt": _program_prompt(row["question_content"], starter, bool(starter)),
    "data": {"tests": found},
  }


def humaneval(row: dict[str, Any]) -> dict[str, Any]:
  """HumanEval: a function to complete, and a function that checks it.

  Source: Chen et al. 2021, arXiv 2107.03374.

  Args:
    row: the values of a row.
  """
  name = row["entry_point"]
  test = {
    "assert": f"{row['test']}\ncheck({name})\n",
    "setup": row["prompt"],
    "fn": name,
  }
  return {
    "id": row["task_id"],
    "kind": "code",
    "prompt": f"{_FUNCTION}\n\n```python\n{cells.asked(row['prompt'])}\n```",
    "answer": row["prompt"] + (row.get("canonical_solution") or "    pass\n"),
    # A completion may leave out what the prompt imports or defines.
    "data": {"tests": [test], "preamble": row["prompt"]},
  }


def mbpp(row: dict[str, Any]) -> dict[str, Any]:
  """MBPP, the full and the sanitized one: a text and assertions.

  Source: Austin et al. 2021, arXiv 2108.07732.

  Args:
    row: the values of a row.
  """
  tests = row["test_list"]
  imports = "\n".join(row.get("test_imports") or [])
  before = "\n".join(filter(None, (imports, row.get("test_setup_code"))))
  question = cells.asked(row["text"] if "text" in row else row["prompt"])
  shown = "\n".join(tests)
  test = {"assert": shown} | ({"setup": before} if before else {})
  return {
    "id": row["task_id"],
    "kind": "code",
    "prompt": (
      f"{question}\n\nYour code must pass these tests:\n\n```python\n{shown}\n"
      "```\n\nPut it in one block that begins with ```python."
    ),
    "answer": row.get("code") or "",
    "data": {"tests": [test]},
  }


def _private(row):
  packed = row.get("private_test_cases")
  if not packed:
    return []
  if isinstance(packed, str) and not packed.lstrip().startswith("["):
    packed = cells.unpacked(packed)
  return cells.parsed(packed) if isinstance(packed, str) else packed


def _call(fn, args, result):
  return {"fn": fn, "args": args, "result": result}


def _only(result):
  """The item of a list of one."""
  single = isinstance(result, list) and len(result) == 1
  return result[0] if single else result


def _lines(value):
  return value if isinstance(value, str) else "\n".join(map(str, value))


def _first_program(programs):
  """The first program that is Python 3; "" without one."""
  for program in programs:
    try:
      ast.parse(program)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
      continue
    return program
  return ""


def _program_prompt(question, starter, function):
  question = cells.asked(question)
  if not function:
    return f"{question}\n\n{_STDIN}"
  code = f"\n\n```python\n{starter.strip()}\n```" if starter.strip() else ""
  return f"{question}\n\n{_FUNCTION}{code}"
