"""Programs of many kinds, right and wrong, and completions that hold them."""

import json
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from r1jax.types import Problem
from r1jax.verifiers.code import tests as code_tests

PATH = Path(__file__).parent / "data" / "code_siblings.jsonl"
ROWS = [json.loads(line) for line in PATH.read_text().splitlines()]
RUNS = [row for row in ROWS if row["kind"] == "run"]
BLOCKS = [row for row in ROWS if row["kind"] == "block"]
WORKERS = len(os.sched_getaffinity(0))


ATTACKS = [
  json.loads(line)
  for line in PATH.with_name("code_attacks.jsonl").read_text().splitlines()
]


def of(data):
  return Problem("s", "code", "?", "", "en", data)


def judge(row):
  """The verdict's reason, for a completion with the program in a block."""
  data = row["data"]
  for test in data["tests"]:
    if test.get("output") == "RANGE 200000":  # too long for a line of the file
      test["output"] = " ".join(map(str, range(1, 200_001)))
  mark = data.get("language", "python")
  if mark == "cpp" and not shutil.which("/usr/bin/g++"):
    return row["reason"]
  completion = f"<think> </think>\n````{mark}\n{row['code']}\n````\n"
  verdict = code_tests.verify(of(data), completion)
  assert verdict.correct == (verdict.reason == "correct")
  return verdict.reason


def judged(rows, one=judge):
  """{name: reason} of all rows, several at a time."""
  with ThreadPoolExecutor(WORKERS) as pool:
    found = pool.map(one, rows)
    return {row["name"]: reason for row, reason in zip(rows, found)}


def test_names_are_unique():
  names = [row["name"] for row in ROWS]
  assert len(set(names)) == len(names) and len(RUNS) >= 80


@pytest.mark.parametrize("part", range(4))
def test_programs(part):
  rows = RUNS[part::4]
  assert judged(rows) == {row["name"]: row["reason"] for row in rows}


@pytest.mark.parametrize("row", BLOCKS, ids=lambda row: row["name"])
def test_blocks(row):
  language = row.get("language", "python")
  code = code_tests.fenced_code(row["text"], language)
  assert (code and code.rstrip("\n")) == row["code"]


def passes(row):
  language = row.get("language", "python")
  if language == "cpp" and not shutil.which("/usr/bin/g++"):
    return row["pass"]
  code, tests = row["code"], row["tests"]
  return code_tests.run(
    code, tests, row.get("limits"), language=language
  ).correct


@pytest.mark.parametrize("part", range(4))
def test_attacks(part):
  rows = [row for row in ATTACKS if not row.get("slow")][part::4]
  expected = {row["name"]: row["pass"] for row in rows}
  assert judged(rows, passes) == expected


@pytest.mark.slow
def test_slow_attacks():
  rows = [row for row in ATTACKS if row.get("slow")]
  assert judged(rows, passes) == {row["name"]: row["pass"] for row in rows}
