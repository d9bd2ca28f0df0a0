"""Layouts of benchmarks that need more than a map of columns.

A layout is a function from the values of a row to those of a problem's fields.
It may return None, which leaves the row out, and raise a `UserError`.
"""

import ast
import base64
import binascii
import importlib
import json
import pickletools
import random
import re
import zlib
from collections.abc import Callable
from typing import Any

from r1jax.data import golds, jsonl
from r1jax.errors import UserError, nearest
from r1jax.verifiers import instructions

# X from r1jax.verifiers import instructions

Layout = Callable[[dict[str, Any]], dict[str, Any] | None]

# Bytes to which the tests of one problem may unpack.
MOST = 1 << 28
_STDIN = (
  "Write a Python program that reads standard input and prints the answer to"
  " standard output. Put it in one block that begins with ```python."
)
_FUNCTION = (
  "Complete this Python code. Put all of it in one block that begins with"
  " ```python."
)
# What DAPO-17k puts before and after each question.
_DAPO = (
  re.compile(r"\ASolve the following math problem step by step\.[^\n]*\n\n"),
  re.compile(r"\n\nRemember to put your answer on its own line[^\n]*\Z"),
)
_LETTER = "Answer with the letter of the right option."


def apps(row: dict[str, Any]) -> dict[str, Any] | None:
  """APPS: tests as JSON in `input_output`, solutions as a list of JSON.

  Source: Hendrycks et al. 2021, arXiv 2105.09938.

  Args:
    row: the values of a row; a row without tests is left out.
  """
  tests = _value(row, "input_output") or {}
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
    "answer": _first_program(_value(row, "solutions") or []),
    "data": {"tests": found},
  }


def livecodebench(row: dict[str, Any]) -> dict[str, Any]:
  """LiveCodeBench: public tests as JSON, private ones packed.

  Source: Jain et al. 2024, arXiv 2403.07974; code_generation_lite.

  Args:
    row: the values of a row.
  """
  cases = _value(row, "public_test_cases") + _private(row)
  fn = (_value(row, "metadata") or {}).get("func_name")
  found = []
  for case in cases:
    if case.get("testtype") == "functional":
      args = [_json(line) for line in case["input"].split("\n") if line.strip()]
      found.append(_call(fn, args, _json(case["output"])))
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
    "prompt": f"{_FUNCTION}\n\n```python\n{_asked(row['prompt'])}\n```",
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
  question = _asked(row["text"] if "text" in row else row["prompt"])
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


def gpqa(row: dict[str, Any]) -> dict[str, Any]:
  """GPQA: the right answer and three wrong ones, in an order of the id.

  Source: Rein et al. 2023, arXiv 2311.12022.

  Args:
    row: the values of a row.
  """
  question, right = _asked(row["Question"]), row["Correct Answer"].strip()
  options = [right] + [row[f"Incorrect Answer {i}"].strip() for i in (1, 2, 3)]
  name = str(row.get("Record ID") or row["Question"])
  # The same order on every machine and in every subset of the file.
  random.Random(f"gpqa {name}").shuffle(options)
  listed = "\n".join(f"{c}) {text}" for c, text in zip("ABCD", options))
  return {
    "id": row.get("Record ID"),
    "kind": "choice",
    "prompt": f"{question}\n\n{listed}\n\n{_LETTER}",
    "answer": "ABCD"[options.index(right)],
    "data": {"options": options},
  }


def ifeval(row: dict[str, Any]) -> dict[str, Any]:
  """IFEval: instructions that a program can check.

  Source: Zhou et al. 2023, arXiv 2311.07911.

  Args:
    row: the values of a row.
  """
  names, arguments = row["instruction_id_list"], _value(row, "kwargs")
  if len(names) != len(arguments or ()):
    raise UserError(
      f"{len(names)} instructions, but {len(arguments or ())} groups of"
      ' arguments in "kwargs"'
    )
  return {
    "id": row["key"],
    "kind": "instructions",
    "prompt": row["prompt"],
    "data": {"instructions": instructions.layout(names, arguments)},
  }


def numinamath(row: dict[str, Any]) -> dict[str, Any] | None:
  """NuminaMath: 1.5 has a column of answers, CoT has them in solutions.

  Args:
    row: the values of a row; proofs and problems without an answer are left
      out.
  """
  if "answer" in row:
    answer = row["answer"] or ""
  else:
    try:
      answer = golds.answer(row["solution"], "boxed")
    except UserError:
      return None
  if answer.strip() in ("", "proof", "notfound"):
    return None
  return {
    "id": row.get("uuid"),
    "kind": "math",
    "prompt": row["problem"],
    "answer": answer,
  }


def dapo(row: dict[str, Any]) -> dict[str, Any]:
  """DAPO-17k: the question without the words that ask for "Answer: ...".

  A task's own template says how to answer.

  Source: Yu et al. 2025, arXiv 2503.14476.

  Args:
    row: the values of a row.
  """
  turns = row["prompt"]
  question = turns if isinstance(turns, str) else turns[-1]["content"]
  for words in _DAPO:
    question = words.sub("", question)
  return {
    "id": row["extra_info"]["index"],
    "kind": "math",
    "prompt": _asked(question),
    "answer": row["reward_model"]["ground_truth"],
  }


LAYOUTS: dict[str, Layout] = {
  f.__name__: f
  for f in (
    apps,
    dapo,
    gpqa,
    humaneval,
    ifeval,
    livecodebench,
    mbpp,
    numinamath,
  )  # fmt: skip
}


def check_name(layout: str) -> None:
  """Raises a `UserError` if a name is none of `LAYOUTS` and no function's."""
  if layout and layout not in LAYOUTS and ":" not in layout:
    close = nearest(layout, LAYOUTS)
    raise UserError(
      f'layout="{layout}" is unknown;'
      + (f' did you mean "{close}"?' if close else "")
      + f' known: {", ".join(LAYOUTS)}, or "package.module:function" for your'
      " own"
    )


def find(layout: str) -> Layout:
  """A layout.

  Args:
    layout: one of `LAYOUTS`, or "package.module:function" of your own.

  Raises:
    UserError: there is no such layout.
  """
  check_name(layout)
  if layout in LAYOUTS:
    return LAYOUTS[layout]
  name, _, function = layout.partition(":")
  try:
    return getattr(importlib.import_module(name), function)
  except (ImportError, AttributeError, ValueError) as e:
    raise UserError(f'layout="{layout}" cannot be imported: {e}') from None


def unpacked(text: str) -> str:
  """The text in base64 of zlib of a pickle of one text.

  Nothing is unpickled: a pickle can run any program. Only the operations that
  a pickle of one text has are accepted, and none of them is executed.

  Args:
    text: of base64.

  Raises:
    UserError: it is anything else, or unpacks to more than `MOST` bytes.
  """
  try:
    unzip = zlib.decompressobj()
    data = unzip.decompress(base64.b64decode(text, validate=True), MOST)
  except (binascii.Error, ValueError, zlib.error) as e:
    raise UserError(f"packed tests cannot be unpacked: {e}") from None
  if not unzip.eof:
    raise UserError(
      f"packed tests are cut short, or unpack to more than {MOST} bytes"
    )
  found = []
  try:
    for operation, value, _ in pickletools.genops(data):
      if operation.name in ("BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"):
        found.append(value)
      elif operation.name not in (
        "PROTO", "FRAME", "MEMOIZE", "BINPUT", "LONG_BINPUT", "STOP",
      ):  # fmt: skip
        found.append(None)
  except Exception as e:  # the library raises many kinds for broken data
    raise UserError(f"packed tests are no pickle: {e}") from None
  if len(found) != 1 or found[0] is None:
    raise UserError("packed tests must be the pickle of one text, no more")
  return found[0]


def _private(row):
  packed = row.get("private_test_cases")
  if not packed:
    return []
  if isinstance(packed, str) and not packed.lstrip().startswith("["):
    packed = unpacked(packed)
  return _json(packed) if isinstance(packed, str) else packed


def _value(row, column):
  """The value of a column that may be text of JSON."""
  value = row[column]
  if isinstance(value, str):
    return _json(value) if value.strip() else None
  return value


def _json(text):
  try:
    return jsonl.loads(text)
  except UserError as e:
    raise UserError(f"{e}, in {json.dumps(text[:60])}") from None


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


def _asked(question):
  """A question without white space around it."""
  if not isinstance(question, str) or not question.strip():
    raise UserError("the question is empty")
  return question.strip()


def _program_prompt(question, starter, function):
  question = _asked(question)
  if not function:
    return f"{question}\n\n{_STDIN}"
  code = f"\n\n```python\n{starter.strip()}\n```" if starter.strip() else ""
  return f"{question}\n\n{_FUNCTION}{code}"
