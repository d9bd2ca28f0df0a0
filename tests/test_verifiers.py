"""Verifiers against reasoning-gym's scorer, Python's own and hand work."""

import ast
import itertools
import json
import random
import time
from fractions import Fraction
from pathlib import Path

import pytest

from r1jax.data import countdown_chains as task
from r1jax.errors import BadProblem, UserError
from r1jax.text import think_format
from r1jax.types import Problem, Verdict
from r1jax.verifiers import (
  check_problem,
  countdown,
  final_answer,
  language,
  repetition,
  verify,
)


def problem(numbers=(3, 7, 8), target=29):
  return Problem(
    "p", "countdown", "?", "", "en",
    {"numbers": list(numbers), "target": target},
  )  # fmt: skip


def answered(expression):
  return f"<think> so </think> <answer> {expression} </answer>"


def reason(expression, **kwargs):
  return countdown.verify(problem(**kwargs), answered(expression)).reason


@pytest.mark.parametrize(
  ("expression", "expected"),
  [
    ("3 * 7 + 8", "correct"),
    ("8+(7*3)", "correct"),
    ("((8)) + 7 * 3", "correct"),
    ("3 * 8 + 7", "wrong"),
    ("29", "wrong_numbers"),
    ("3 * 7 + 8 + 3 - 3", "wrong_numbers"),
    ("3 * 7", "wrong_numbers"),
    ("37 - 8", "wrong_numbers"),
    ("3 * 7 + 8 = 29", "unparsable"),
    ("- 3 + 7 * 8", "unparsable"),
    ("3 7 8", "unparsable"),
    ("( 3 * 7 + 8", "unparsable"),
    ("3 * 7 + 8 )", "unparsable"),
    ("3 * 7 + 08", "unparsable"),
    ("3 * 7 + 8.0", "unparsable"),
    ("３ * 7 + 8", "unparsable"),
    ("٣ * 7 + 8", "unparsable"),
    ("3 ** 7 + 8", "unparsable"),
    ("3 // 7 + 8", "unparsable"),
    ("3 * 7 + 8 / ( 3 - 3 )", "unparsable"),
    ("__import__('os').getpid()", "unparsable"),
    ("9" * 5000, "unparsable"),
    ("(" * 100 + "3" + ")" * 100, "unparsable"),
    ("(" * 90 + "3" + ")" * 90, "unparsable"),
    ("3 * 7 + 8" + " " * 300, "correct"),
    ("", "no_answer"),
  ],
)
def test_countdown_reasons(expression, expected):
  assert reason(expression) == expected


@pytest.mark.parametrize(
  "text",
  [
    "3 * 7 + 8\x00", "\ud8003 * 7 + 8", "\u202e3 * 7 + 8", "3 \u00d7 7 + 8",
    "\uff13 * \uff17 + \uff18", "\u0663 * 7 + 8", "3\u00b2 * 7 + 8",
    "(" * 10_000 + "3 * 7 + 8", "3 * 7 + 8" + ")" * 10_000, "3 * 7 + 8 \u200b",
    "9" * 1_000_000, "3 * 7 + 8 </answer <answer> x", "0x3 * 7 + 8", "3e0*7+8",
    "3_ * 7 + 8", "3 * 7 + 8 if 1 else 0", "[3 * 7 + 8]", "3 * 7 + 8;",
    "+" * 199,
  ],
)  # fmt: skip
def test_countdown_pays_no_hostile_text(text):
  said = countdown.verify(problem(), answered(text))
  assert not said.correct and said.reason == "unparsable"
  assert countdown.final_answer(problem(), answered(text)) is None


@pytest.mark.parametrize(
  "data",
  [
    {}, {"numbers": [], "target": 1}, {"numbers": [1.0], "target": 1},
    {"numbers": [True], "target": 1}, {"numbers": [10**9], "target": 1},
    {"numbers": [-1], "target": 1}, {"numbers": "12", "target": 1},
    {"numbers": [1], "target": None}, {"numbers": [1], "target": "1"},
  ],
)  # fmt: skip
def test_countdown_problems_that_nobody_can_solve(data):
  with pytest.raises(BadProblem, match="p7: data needs"):
    check_problem(Problem("p7", "countdown", "?", "", "en", data))


def test_countdown_is_exact():
  # 8 / 3 / 8 * 3 is 1 only in exact arithmetic.
  assert reason("3 * ( 8 / 3 / 8 )", numbers=(3, 8, 3, 8), target=1) == (
    "correct"
  )
  near = "29 + 1 / 10000"
  assert reason(near, numbers=(1, 29, 10000), target=29) == "wrong"


def by_python(text):
  """Value by Python's parser and a walk of its tree; None if not ours.

  A sign and a call, as in "3 ( 8 )", parse there; the walk refuses them.
  """
  ops = {
    ast.Add: Fraction.__add__,
    ast.Sub: Fraction.__sub__,
    ast.Mult: Fraction.__mul__,
    ast.Div: Fraction.__truediv__,
  }

  def walk(node):
    if isinstance(node, ast.BinOp) and type(node.op) in ops:
      return ops[type(node.op)](walk(node.left), walk(node.right))
    if isinstance(node, ast.Constant) and type(node.value) is int:
      return Fraction(node.value)
    raise SyntaxError

  try:
    return walk(ast.parse(text, mode="eval").body)
  except (SyntaxError, ZeroDivisionError, ValueError):
    return None


@pytest.mark.filterwarnings("ignore::SyntaxWarning")
def test_parser_against_python():
  rng = random.Random(0)
  pieces = ["3", "12", "8", "0", "+", "-", "*", "/", "(", ")"]

  def grow(depth):
    if depth == 0 or rng.random() < 0.3:
      return rng.choice(pieces[:4])
    text = f"{grow(depth - 1)} {rng.choice('+-*/')} {grow(depth - 1)}"
    return f"( {text} )" if rng.random() < 0.5 else text

  texts = [grow(3) for _ in range(2000)]
  texts += [
    " ".join(rng.choices(pieces, k=rng.randint(1, 9))) for _ in range(4000)
  ]
  parsed = 0
  for text in texts:
    expected = by_python(text)
    try:
      value = countdown.evaluate(text)[0]
    except countdown.Unparsable:
      value = None
    assert value == expected, text
    parsed += value is not None
  assert parsed > 1500


@pytest.fixture(scope="module")
def scorer():
  import reasoning_gym

  return reasoning_gym.create_dataset("countdown", seed=0, size=1)


def generated_answers(count):
  """(numbers, target, answer) of right, nearly right and broken answers."""
  rng = random.Random(1)
  for _ in range(count):
    numbers = [rng.randint(1, 13) for _ in range(3)]
    chain, _, result = rng.choice(task.chains(tuple(numbers)))
    target = result if rng.random() < 0.5 else rng.randint(14, 99)
    words = task.expression(chain).split()
    for _ in range(rng.choice((0, 0, 1, 2))):
      at = rng.randrange(len(words))
      change = rng.random()
      if change < 0.3:
        del words[at]
      elif change < 0.6:
        words[at] = rng.choice(["+", "-", "*", "/", "(", ")", "3", "11"])
      else:
        words.insert(at, rng.choice(["+", "*", "(", ")", "1", "7", "yes"]))
      if not words:
        break
    yield numbers, target, " ".join(words)


def test_countdown_against_reasoning_gym(scorer):
  """Their full score is our "correct", but for signs, ** and //."""
  right = wrong = 0
  for numbers, target, text in generated_answers(10_000):
    entry = {"metadata": {"numbers": numbers, "target": target}}
    theirs = scorer.score_answer(text, entry) == 1.0
    ours = verify(problem(numbers, target), answered(text)).correct
    if theirs != ours:
      # sympy takes a sign before a number or a parenthesis, and two stars
      # or strokes apart for one operator of Python; we do not.
      tokens = ["(", *text.split()]
      assert theirs and any(
        (a in "+-*/(" and b in "+-") or (a == b and a in "*/")
        for a, b in itertools.pairwise(tokens)
      ), text
      continue
    right, wrong = right + ours, wrong + (not ours)
  assert right > 500 and wrong > 500


@pytest.mark.parametrize(
  ("numbers", "target", "text"),
  [
    # sympy's parse_expr runs what it parses: this one calls len().
    ([3, 7, 8], 29, "3 * 7 + 8 + len('')"),
    # It counts decimal literals only, so that any other number is free.
    ([3, 7, 8], 29, "3 + 7 + 8 + 0xb"),
    # Names that cancel, and comments.
    ([3, 7, 8], 29, "3 * 7 + 8 + x - x"),
    ([3, 7, 8], 29, "3 * 7 + 8 # done"),
    ([3, 7, 8], 29, "3 * 7 + 8."),
    # A tolerance of 1e-5 of the target.
    ([1, 29, 10000], 29, "29 + 1 / 10000"),
    # Signs.
    ([3, 7, 8], 29, "+ 3 * 7 + 8"),
    ([3, 7, 8], 29, "3 * 7 - - 8"),
  ],
)
def test_where_reasoning_gym_is_laxer(scorer, numbers, target, text):
  entry = {"metadata": {"numbers": numbers, "target": target}}
  assert scorer.score_answer(text, entry) == 1.0
  assert not verify(problem(numbers, target), answered(text)).correct


def test_final_answer_is_what_a_vote_counts():
  p = problem()
  same = [answered("3 * 7 + 8"), answered("8 + 7 * 3")]
  assert [countdown.final_answer(p, c) for c in same] == ["29", "29"]
  assert countdown.final_answer(p, answered("3 * 8 / 7")) == "24/7"
  for nothing in ("29", "3 *", "9" * 999):
    assert countdown.final_answer(p, answered(nothing)) is None
  assert countdown.final_answer(p, "<think> 3") is None


@pytest.mark.parametrize(
  ("gold", "text", "right"),
  [
    ("12 m", "12\n  m", True), ("12 m", "12\u00a0m", True),
    ("12 m", "12m", False), ("12", "12.0", False),
    ("12", "\uff11\uff12", False),
    ("caf\u00e9", "cafe\u0301", True), ("a", "a\x00", False),
    ("a", "\u200fa", False), ("a", "A", False), ("a", "a\ud800", False),
    ("\ud55c", "\u1112\u1161\u11ab", True), ("a", "\u0430", False),
  ],
)  # fmt: skip
def test_exact_texts(gold, text, right):
  p = Problem("p", "exact", "?", gold, "en", {})
  assert verify(p, f"</think><answer>{text}</answer>").correct == right
  # A box or the text alone is no answer of this kind.
  assert verify(p, f"</think>{text}").reason == "no_answer"


def test_unknown_kind_is_named():
  p = Problem("p7", "sudoku", "", "", "en", {})
  with pytest.raises(UserError, match='p7: kind "sudoku".*known: .*countdown'):
    verify(p, "")


def mine(problem, completion):
  return Verdict(True, 1.0, "correct")


def test_a_verifier_of_ones_own():
  own = Problem("p", f"{__name__}:mine", "", "", "en", {})
  assert verify(own, "").correct
  assert final_answer(own, "<answer> 3 </answer>") == "3"
  check_problem(own)
  for kind in (f"{__name__}:yours", "nowhere:mine"):
    with pytest.raises(UserError, match=f"p8: .*{kind}.*imported"):
      verify(Problem("p8", kind, "", "", "en", {}), "")


@pytest.mark.parametrize(
  ("completion", "expected"),
  [
    ("<think> a </think> <answer> 1 </answer>", True),
    ("\n<think>a\nb</think>\n\n<answer>1</answer>\n", True),
    ("<think> a </think> <answer> 1", False),
    ("<think> a <answer> 1 </answer>", False),
    ("a </think> <answer> 1 </answer>", False),
    ("<think> a </think> 1", False),
    ("<answer> 1 </answer> <think> a </think>", False),
    ("<think> a <answer> 1 </answer> </think>", False),
    ("hm <think> a </think> <answer> 1 </answer>", False),
    ("<think> a </think> hm <answer> 1 </answer>", False),
    ("<think> a </think> <answer> 1 </answer> hm", False),
    ("<think> </think> <answer> 1 </answer>", False),
    ("<think> a </think> <answer> </answer>", False),
    ("<think> a <think> b </think> <answer> 1 </answer>", False),
    ("<think> `</think>` </think> <answer> 1 </answer>", False),
    ("<think> a </think> <answer> `</answer>` 1 </answer>", False),
    ("<Think> a </Think> <Answer> 1 </Answer>", False),
    ("<think > a </think> <answer> 1 </answer>", False),
    ("<think> a </think> <answer> 1 </answer> <answer> 1 </answer>", False),
    ("", False),
  ],
)
def test_well_formed(completion, expected):
  assert think_format.well_formed(completion) is expected


def test_prefilled_tag():
  rest = " a </think> <answer> 1 </answer>"
  assert think_format.well_formed(rest, prefilled=True)
  assert not think_format.well_formed("<think>" + rest, prefilled=True)


@pytest.mark.parametrize(
  ("completion", "thinking", "answer"),
  [
    ("<think> a </think> <answer> 1 </answer>", "a", "1"),
    ("a </think> <answer> 1 </answer>", "a", "1"),
    # Thinking that never closes answers nothing.
    ("<think> a <answer> 1 </answer>", "a", None),
    ("<think> a", "a", None),
    ("<think> a </think> <answer> 1", "a", None),
    # An answer within the thinking is none.
    ("<think> <answer> 1 </answer> </think> 2", "", None),
    ("<think> a </think> <answer> 1 </answer> <answer> 2 </answer>", "a", "2"),
    ("</answer> <answer> 1", "</answer>", None),
    ("<think> a </think> <answer> 1 </answer> or </answer>", "a", "1"),
    ("<think> a </think> <answer> 1 </answer> <answer> 2", "a", "1"),
    ("<think> a </think> <answer> 0 <answer> 1 </answer>", "a", "1"),
  ],
)
def test_parts(completion, thinking, answer):
  assert think_format.thinking(completion).strip() == thinking
  assert think_format.answer(completion) == answer


@pytest.mark.parametrize(
  ("text", "in_english", "in_chinese"),
  [
    ("try 3 * 7 = 21 wrong", 1.0, 0.0),
    ("试 3 * 7 = 21 错", 0.0, 1.0),
    ("try 试 wait 错", 0.5, 0.5),
    # A Han character is a word: four of them, and one of English.
    ("等等再来 ok", 1 / 5, 4 / 5),
    ("等等ok再来", 1 / 5, 4 / 5),
    # No language: numbers, operators, tags, code and formulas.
    ("wait <b> `试 错` $试$ ```\n错\n``` 12", 1.0, 0.0),
    ("да try", 0.5, 0.0),
    ("かな 试", 0.0, 1 / 3),
    ("try \\(试 错\\) \\[错\\] wait \\( 错", 2 / 3, 1 / 3),
    # Two prices are no formula, nor are two marks pages apart code.
    ("costs $5 and\n试试\nthen $6", 3 / 5, 2 / 5),
    # A letter alone is a variable in a language of another script.
    ("a `quote\n错 b` c", 0.8, 0.5),
    # Commands outside of formulas.
    ("\\boxed{3} \\begin{align*} 试 \\frac", 0.0, 1.0),
    ("人々 〇", 0.0, 1.0),
    ("3 * 7 = 21", 0.0, 0.0),
    ("", 0.0, 0.0),
  ],
)
def test_language(text, in_english, in_chinese):
  assert language.consistency(text, "en") == pytest.approx(in_english)
  assert language.consistency(text, "zh") == pytest.approx(in_chinese)


@pytest.mark.parametrize(
  ("code", "text", "share"),
  [
    ("ja", "漢字とカナ go", 5 / 6),
    ("ko", "한국어 go 漢", 3 / 5),
    ("ru", "да нет go", 2 / 3),
    ("fr", "été là 试", 2 / 3),
    ("en", "été go да", 2 / 3),
    ("ar", "نعم go", 1 / 2),
    ("hi", "हाँ", 1.0),
  ],
)
def test_languages_by_script(code, text, share):
  assert language.consistency(text, code) == pytest.approx(share)


PIECES = (
  "\\(", "\\\\(", "$$", "`", "```", "$", "\\[a", "\\begin{align}", "<a", "@",
  "www.", "\u0315\u0300", "a\u0301", "x_", "\\mathrm{", "~~~\n", "\\",
)  # fmt: skip


@pytest.mark.usefixtures("own_garbage")
@pytest.mark.parametrize("piece", PIECES)
def test_no_text_takes_the_language_long(piece):
  begin = time.thread_time()
  language.consistency(piece * (200_001 // len(piece)), "en")
  assert time.thread_time() - begin < 1.5


def siblings(area):
  path = Path(__file__).parent / "data" / f"{area}_siblings.jsonl"
  return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize("case", siblings("language"))
def test_siblings_of_the_language(case):
  share = language.consistency(case["text"], case["language"])
  assert share == pytest.approx(case["expected"])


@pytest.mark.parametrize("case", siblings("format"))
def test_siblings_of_the_format(case):
  prompt, text = case["prompt"], case["completion"]
  prefilled = think_format.is_prefilled(prompt)
  assert think_format.well_formed(text, prefilled) == case["well_formed"]
  whole = think_format.whole(prompt, text)
  assert think_format.answer(whole) == case["answer"]
  if "after" in case:
    assert think_format.after_thinking(whole) == case["after"]
  p = Problem("p", "exact", prompt, case["answer"] or "5", "en", {})
  assert verify(p, text).correct == (case["answer"] is not None)
  assert final_answer(p, text) == case["answer"]


def failing(problem, completion):
  raise KeyError("a fault")


def hungry(problem, completion):
  raise MemoryError


def test_no_exception_leaves_a_verifier(caplog):
  own = Problem("p7", f"{__name__}:failing", "", "", "en", {})
  assert verify(own, "x") == Verdict(False, 0.0, "verifier_failed")
  assert "p7: its verifier failed" in caplog.text
  own = Problem("p7", f"{__name__}:hungry", "", "", "en", {})
  assert verify(own, "x").reason == "out_of_memory"


def test_no_exception_leaves_the_built_in_ones(caplog):
  """Strings of what the verifiers look for, in any order."""
  pieces = [
    *think_format.TAGS, "answer", "Answer:", " is ", "(", ")", "[", "]", "{",
    "}", "\\boxed{", "\\text{", "A", "I", "b", " ", "\n", "**", "$", ",", "and",
    "\u7b54\u6848", "\x00", "\ud800", "\u200f", "\uff21", "e\u0301", "3", "*",
    "/", "^", "`", "```", "\\(", "\\)", "<b>", "http://", "***", "<<", ">>",
    '"',
  ]  # fmt: skip
  problems = [
    problem((3, 3), 9),
    Problem("p", "exact", "?", "x", "en", {}),
    Problem("p", "choice", "?<think>\n", "AB", "en", {"options": ["A", "{"]}),
    Problem("p", "open", "?", "", "en", {}),
  ]
  rng = random.Random(3)
  for _ in range(4000):
    text = "".join(rng.choices(pieces, k=rng.randint(1, 30)))
    for p in problems:
      verify(p, text)
      final_answer(p, text)
    for code in ("en", "zh", "ru"):
      assert 0.0 <= language.consistency(text, code) <= 1.0
  assert not caplog.text


def seen(problem, completion):
  return Verdict(False, 0.0, completion)


def test_a_verifier_sees_the_tag_that_the_prompt_prefilled():
  for prompt, text in (("Q", "a"), ("Q<think>\n", "<think>a")):
    own = Problem("p", f"{__name__}:seen", prompt, "", "en", {})
    assert verify(own, "a").reason == text


@pytest.mark.parametrize(
  ("text", "share"),
  [
    ("<think>a</think><answer>b</answer>", 1.0),
    ("<think>a</think>b", 0.5),
    ("<think>a<think></think><answer>b</answer>", 0.75),
    ("<answer>b</answer><think>a</think>", 0.5),
    ("a", 0.0),
  ],
)
def test_graded_form(text, share):
  assert think_format.share_of_tags(text) == share


def test_unknown_language_is_named():
  with pytest.raises(UserError, match='"xx" is unknown; known: en, .*zh'):
    language.consistency("a", "xx")


def test_repetition():
  assert repetition.share("a b c") == 0.0
  assert repetition.share("a b c d e") == 0.0
  # Bigrams ab ba ab ba: two of four stood before.
  assert repetition.share("a b a b a", n=2) == 0.5
  assert repetition.share("x " * 103) == pytest.approx(0.99)
  # Eight Han characters are eight words: 天天天天 stands twice.
  assert repetition.share("天" * 5) == 0.5
