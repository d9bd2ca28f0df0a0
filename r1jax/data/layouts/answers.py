"""Layouts of benchmarks of mathematics, of choices and of instructions."""

import random
import re
from typing import Any

from r1jax.data import golds
from r1jax.data.layouts import cells
from r1jax.errors import UserError
from r1jax.verifiers import instructions

# What DAPO-17k puts before and after each question.
_DAPO = (
  re.compile(r"\ASolve the following math problem step by step\.[^\n]*\n\n"),
  re.compile(r"\n\nRemember to put your answer on its own line[^\n]*\Z"),
)
_LETTER = "Answer with the letter of the right option."


def gpqa(row: dict[str, Any]) -> dict[str, Any]:
  """GPQA: the right answer and three wrong ones, in an order of the id.

  Source: Rein et al. 2023, arXiv 2311.12022.

  Args:
    row: the values of a row.
  """
  question, right = cells.asked(row["Question"]), row["Correct Answer"].strip()
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
  names, arguments = row["instruction_id_list"], cells.value(row, "kwargs")
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
    "prompt": cells.asked(question),
    "answer": row["reward_model"]["ground_truth"],
  }
