"""Letters out of completions, by hand."""

import json
import time
from pathlib import Path

import pytest

from r1jax import verifiers
from r1jax.errors import BadProblem
from r1jax.types import Problem

SIBLINGS = Path(__file__).parent / "data" / "choice_siblings.jsonl"
OPTIONS = ["12 m", "15 m", "18 m", "a plane"]


def problem(answer="C", **data):
  return Problem("p7", "choice", "?", answer, "en", data)


@pytest.mark.parametrize(
  ("text", "letter"),
  [
    ("<answer> C </answer>", "C"),
    ("<answer>(C)</answer>", "C"),
    ("<answer>C.</answer>", "C"),
    ("<answer>C) 18 m</answer>", "C"),
    ("<answer>\\boxed{C}</answer>", "C"),
    ("<answer>**C**</answer>", "C"),
    ("so \\boxed{C}", "C"),
    ("so \\boxed{\\text{C}}", "C"),
    ("so \\boxed{\\textbf{(C)}}", "C"),
    ("\\boxed{A}, no, \\boxed{C}", "C"),
    ("The answer is C.", "C"),
    ("The correct answer is: **C**", "C"),
    ("Answer: C", "C"),
    ("the answer is (C), as A has no mass", "C"),
    ("<answer>C because B is a plane</answer>", None),
    ("<answer>A or C</answer>", None),
    ("<answer>A, B, C, D</answer>", None),
    ("<answer>Carbon</answer>", None),
    ("<answer>c</answer>", "C"),
    ("<answer>(c)</answer>", "C"),
    ("<answer>[C]</answer>", "C"),
    ('<answer>"C"</answer>', "C"),
    ("<answer>\uff08C\uff09\u3002</answer>", "C"),
    ("<answer>The answer is C</answer>", "C"),
    ("<answer>A good answer is C</answer>", "C"),
    ("<answer>C because I think so</answer>", "C"),
    ("<answer>A, B, C: the answer is C</answer>", "C"),
    ("<answer>B</answer> no, <answer>C</answer>", "C"),
    ("<answer>C or A</answer>", None),
    ("<answer>C, A</answer>", None),
    ("<answer>C/A</answer>", None),
    ("<answer>C and I</answer>", None),
    ("<answer>not C</answer>", None),
    ("so \\boxed {C}", "C"),
    ("so \\boxed{c}", "C"),
    ("so \\boxed{\\mathbf{C}}", "C"),
    ("so \\boxed{\\textbf{(C) } 12}", "C"),
    ("so \\boxed{C, D}", None),
    ("so \\boxed{C \\text{ or } A}", None),
    ("**Answer:** C", "C"),
    ("**Answer**: (C)", "C"),
    ("Answer:\n\nC\n\nas A and B are not", "C"),
    ("the answer is (c)", "C"),
    ("the answer is c.", "C"),
    ("The answer is $\\text{(C)}$.", "C"),
    ("The answer is \\(C\\).", "C"),
    ("The correct answer is option C.", "C"),
    ("So I choose option (C).", "C"),
    ("The answer is C. Option B is wrong.", "C"),
    ("The answer is C.\nI give this answer because B is a plane", "C"),
    ("First answer: A. Final answer: C", "C"),
    ("\u7b54\u6848\u662fC", "C"),  # the answer is C
    ("\u7b54\u6848\uff1a\uff08C\uff09\u3002", "C"),
    ("\u6545\u9009C", "C"),  # so choose C
    ("\u56e0\u6b64\u9009\u62e9 C\u3002", "C"),
    ("\u7b54\u6848\u662f A \u6216 C", None),  # A or C
    ("the answer is A or C", None),
    ("the answer is not C", None),
    ("the answer is a matter of taste", None),
    ("the answer is because", None),
    ("<answer></answer>", None),
    ("<answer>K</answer>", None),
    ("C", None),
    ("I think that C", None),
    ("", None),
  ],
)
def test_letters(text, letter):
  assert verifiers.final_answer(problem(), f"<think>B</think>{text}") == letter
  verdict = verifiers.verify(problem("C"), f"<think>B</think>{text}")
  reason = {"C": "correct", None: "no_answer"}.get(letter, "wrong")
  assert verdict.reason == reason
  assert verdict.correct == (letter == "C") == (verdict.score == 1.0)


@pytest.mark.parametrize(
  "case", map(json.loads, SIBLINGS.read_text().splitlines())
)
def test_siblings(case):
  """Kinds of answers that people have reported, in other words."""
  data = {"options": case["options"]} if "options" in case else {}
  gold = case.get("gold", "C")
  p = Problem("p", "choice", case.get("prompt", "?"), gold, "en", data)
  expected = case["expected"]
  assert verifiers.final_answer(p, case["input"]) == expected
  right = expected and set(expected) == set(gold.replace("and", "")) - set(", ")
  assert verifiers.verify(p, case["input"]).correct == bool(right)


def test_the_thinking_does_not_answer():
  verdict = verifiers.verify(problem(), "<think>the answer is C</think> hm")
  assert verdict.reason == "no_answer"


@pytest.mark.parametrize(
  ("text", "correct"),
  [
    ("18 m", True), ("18m", True), ("C", True), ("C: 18 m", True),
    ("C. 18 m", True), ("(C) 18 m", True), ("$18 \\text{ m}$", True),
    ("12 m", False), ("a plane", False), ("180 m", False),
  ],
)  # fmt: skip
def test_an_options_text_stands_for_its_letter(text, correct):
  p = problem(options=OPTIONS)
  said = verifiers.verify(p, f"</think> \\boxed{{{text}}}")
  assert said.correct == correct


def test_options_with_letters_in_them():
  p = problem(options=["vitamin A", "B", "vitamin C", "A"])
  for text in ("C. vitamin C", "vitamin C", "C", "the answer is vitamin C"):
    assert verifiers.final_answer(p, f"<answer>{text}</answer>") == "C", text
  # What is an option and a letter is the letter.
  assert verifiers.final_answer(p, "<answer>A</answer>") == "A"


@pytest.mark.usefixtures("own_garbage")
@pytest.mark.parametrize(
  "piece",
  [
    "answer" + " " * 5000,
    "answer is the ",
    "(",
    "A ",
    "\\boxed{",
    "\\boxed{{}",
    "A, ",
    "B is",
    "\u7b54\u6848",
    "[",
    "*",
  ],
)
def test_no_text_takes_long(piece):
  begin = time.thread_time()
  verifiers.verify(problem(), piece * (50_000 // len(piece)))
  assert time.thread_time() - begin < 1


@pytest.mark.parametrize("answer", ["", "CC", "K", "18 m", "A or B", "CK"])
def test_gold_must_be_a_letter(answer):
  with pytest.raises(BadProblem, match="p7.*none of the letters"):
    verifiers.check_problem(problem(answer))
  with pytest.raises(BadProblem, match="letters ABCD$"):
    verifiers.check_problem(problem("E", options=OPTIONS))
  with pytest.raises(BadProblem, match="letters ABCD$"):
    verifiers.check_problem(problem("AE", options=OPTIONS))
  for several in ("e", "CD", "A, C", "A and C", "(B)"):
    verifiers.check_problem(problem(several))
