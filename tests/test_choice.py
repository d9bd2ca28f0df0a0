"""Letters out of completions, by hand."""

import pytest

from r1jax import verifiers
from r1jax.errors import BadProblem
from r1jax.types import Problem

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
    ("<answer>c</answer>", None),
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


def test_the_thinking_does_not_answer():
  verdict = verifiers.verify(problem(), "<think>the answer is C</think> hm")
  assert verdict.reason == "no_answer"


@pytest.mark.parametrize(
  ("text", "correct"),
  [
    ("18 m", True), ("18m", True), ("C", True), ("C: 18 m", True),
    ("12 m", False), ("a plane", False), ("180 m", False),
  ],
)  # fmt: skip
def test_an_options_text_stands_for_its_letter(text, correct):
  p = problem(options=OPTIONS)
  said = verifiers.verify(p, f"</think> \\boxed{{{text}}}")
  assert said.correct == correct


@pytest.mark.parametrize("answer", ["", "CD", "K", "18 m"])
def test_gold_must_be_a_letter(answer):
  with pytest.raises(BadProblem, match="p7.*none of the letters"):
    verifiers.check(problem(answer))
  with pytest.raises(BadProblem, match="letters ABCD$"):
    verifiers.check(problem("E", options=OPTIONS))
  verifiers.check(problem("e"))
