"""Files in the layouts of public benchmarks, read by the lines of the docs.

The problems in tests/data/layouts are our own.
"""

import base64
import csv
import json
import pickle
import re
import zlib
from pathlib import Path

import pytest

from r1jax import files
from r1jax.data import problem_files
from r1jax.data.layouts import answers, cells
from r1jax.errors import UserError
from r1jax.rewards import judges

ROOT = Path(__file__).parents[1]
DATA = ROOT / "tests/data/layouts"
# Benchmark, as the table of docs/tasks.md names it -> our files of its layout.
FILES = {
  "GSM8K": ("gsm8k.jsonl", "gsm8k/main:train", "gsm8k:main/test"),
  "MATH": ("math.jsonl", "MATH/train/*/*.json"),
  "MATH-500": ("math500.jsonl",),
  "AIME 2024": ("aime.parquet",),
  "AIME 2025": ("aime2025.jsonl",),
  "DAPO-17k": ("dapo.parquet",),
  "NuminaMath-CoT": ("numinamath_cot.parquet",),
  "NuminaMath 1.5": ("numinamath15.parquet",),
  "LiveCodeBench": ("livecodebench.jsonl",),
  "APPS": ("apps.jsonl",),
  "HumanEval": ("HumanEval.jsonl.gz",),
  "MBPP": ("mbpp.jsonl", "sanitized-mbpp.json"),
  "GPQA": ("gpqa_diamond.csv",),
  "IFEval": ("ifeval.jsonl",),
}
# Kinds of problems whose files hold no answer.
UNANSWERED = {"livecodebench.jsonl", "ifeval.jsonl"}


def documented():
  """Benchmark -> its keys, from the table in docs/tasks.md."""
  page = (ROOT / "docs/tasks.md").read_text()
  table = page.partition("### Benchmarks")[2].partition("\n\nThe options")[0]
  rows = re.findall(r"^\| ([^|]+?) \| .* \| `(.*)` \|$", table, re.M)
  return {name: eval(f"dict({keys})") for name, keys in rows}


KEYS = documented()
CASES = [(name, file) for name, found in FILES.items() for file in found]


@pytest.fixture(scope="module")
def completions():
  """Question -> a right completion and a wrong one."""
  rows = files.read(DATA / "completions.jsonl")
  return {row["begins"]: (row["right"], row["wrong"]) for row in rows}


def of(problem, completions):
  """The right and the wrong completion of a problem."""
  if problem.kind == "choice":
    other = {"A": "B"}.get(problem.answer, "A")
    return f"The answer is {problem.answer}.", f"The answer is {other}."
  found = [c for text, c in completions.items() if text in problem.prompt]
  assert len(found) == 1, problem.prompt
  return found[0]


def read(name, file):
  if Path(file).suffix == ".parquet":
    pytest.importorskip("pyarrow")
  if file.startswith("gsm8k/") or ":" in file:
    pytest.importorskip("datasets")
  return problem_files.read(DATA / file, **KEYS[name])


def test_every_benchmark_is_documented():
  assert set(KEYS) == set(FILES)


@pytest.mark.parametrize(("name", "file"), CASES)
def test_its_golds_pass_its_verifier(name, file, completions):
  problems = read(name, file)  # judges each answer of the file
  assert problems
  for problem in problems:
    assert bool(problem.answer) != (file in UNANSWERED) or (
      problem.id == "9003" and name == "APPS"
    )
    right, wrong = of(problem, completions)
    pool = judges.shared()
    assert pool.submit(problem, right).result().correct, problem.id
    verdict = pool.submit(problem, wrong).result()
    assert not verdict.correct and verdict.judged, problem.id


def test_ids_are_those_of_the_benchmark():
  ids = {file: [p.id for p in read(name, file)] for name, file in CASES}
  assert ids["aime.parquet"] == ["2099-I-1", "2099-I-2", "2099-II-7"]
  assert ids["HumanEval.jsonl.gz"] == ["HumanEval/900", "HumanEval/901"]
  assert ids["gsm8k.jsonl"] == [f"gsm8k.jsonl:{i}" for i in (1, 2, 3)]
  assert ids["math500.jsonl"][0] == "test/counting_and_probability/9001.json"
  assert ids["dapo.parquet"][0].endswith("000000000001")


def test_rows_without_a_gold_are_left_out():
  ids = [p.id for p in read("NuminaMath 1.5", "numinamath15.parquet")]
  assert [i[-1] for i in ids] == ["1", "3"]
  ids = [p.id for p in read("APPS", "apps.jsonl")]
  assert ids == ["9000", "9001", "9002", "9003"]


def test_words_around_a_question_are_taken_off():
  prompts = [p.prompt for p in read("DAPO-17k", "dapo.parquet")]
  assert prompts == [
    "How many positive divisors has 36?", "What is $7\\cdot 13-100$?",
  ]  # fmt: skip


def test_options_are_shuffled_the_same_everywhere(tmp_path):
  with open(DATA / "gpqa_diamond.csv", newline="") as file:
    rows = list(csv.DictReader(file))
  found = read("GPQA", "gpqa_diamond.csv")
  for problem, row in zip(found, rows, strict=True):
    options = problem.data["options"]
    right = row["Correct Answer"].strip()
    assert options["ABCD".index(problem.answer)] == right
    assert sorted(options) == sorted(
      row[name].strip() for name in row if "Answer" in name
    )
    for letter, option in zip("ABCD", options):
      assert f"{letter}) {option}" in problem.prompt
  # Of another order of rows: the order of options is that of the id.
  files.write_rows(tmp_path / "x.jsonl", rows[::-1])
  again = problem_files.read(tmp_path / "x.jsonl", layout="gpqa")
  assert again[::-1] == found
  many = [
    row | {"Record ID": f"rec{i}"} for i in range(400) for row in rows[:1]
  ]
  letters = [answers.gpqa(row)["answer"] for row in many]
  # 100 of each are expected, with a deviation of 8.7.
  assert all(60 < letters.count(letter) < 140 for letter in "ABCD")


def packed(pickled):
  return base64.b64encode(zlib.compress(pickled)).decode()


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("text", ["", "[]", "é试" * 99, "x" * 99_999, "\n"])
def test_texts_are_unpacked_without_unpickling(protocol, text):
  assert cells.unpacked(packed(pickle.dumps(text, protocol))) == text


class Bad:
  """Runs a program where it is unpickled."""

  def __reduce__(self):
    return (pytest.fail, ("it was unpickled",))


@pytest.mark.parametrize(
  ("text", "message"),
  [
    (packed(pickle.dumps(Bad())), "must be the pickle of one text"),
    (packed(pickle.dumps(["a", Bad()])), "must be the pickle of one text"),
    (packed(pickle.dumps(["[]"])), "must be the pickle of one text"),
    (packed(pickle.dumps(("a", "b"))), "must be the pickle of one text"),
    (packed(pickle.dumps(3)), "must be the pickle of one text"),
    (packed(b"[]"), "no pickle|must be the pickle"),
    (packed(b""), "no pickle"),
    (packed(pickle.dumps("abc")[:-3]), "no pickle"),
    (packed(pickle.dumps("abc"))[:-8], "cut short|cannot be unpacked"),
    ("no base64!", "cannot be unpacked"),
    (base64.b64encode(b"no zlib").decode(), "cannot be unpacked"),
    (packed(bytes(cells.MOST + 1)), "unpack to more than"),
  ],
)  # fmt: skip
def test_what_is_no_packed_text(text, message):
  with pytest.raises(UserError, match=message):
    cells.unpacked(text)


ROWS = {
  "apps": [
    (dict(input_output="{"), "not JSON"),
    (dict(input_output='{"inputs": ["1"], "outputs": []}'), "has 1 inputs"),
    (dict(input_output=...), "needs a column 'input_output'; columns"),
    (dict(question=...), "needs a column 'question'"),
    (dict(question=" "), "the question is empty"),
  ],
  "livecodebench": [
    (dict(private_test_cases="%"), "packed tests cannot be unpacked"),
    (dict(public_test_cases="[}"), "not JSON"),
    (dict(question_content=...), "needs a column 'question_content'"),
  ],
  "ifeval": [
    (dict(instruction_id_list=["a:b"]), "1 instructions, but 2 groups"),
    (dict(instruction_id_list=["a:b"], kwargs=[{}]), '"a:b" is unknown'),
    (dict(kwargs=...), "needs a column 'kwargs'"),
  ],
  "gpqa": [({"Correct Answer": ...}, "needs a column 'Correct Answer'")],
  "mbpp": [(dict(test_list=[]), "assert"), (dict(test_list=3), "TypeError")],
}  # fmt: skip
SOURCE = dict(mbpp="mbpp.jsonl", gpqa="gpqa_diamond.csv")


@pytest.mark.parametrize(
  ("layout", "change", "message"),
  [(name, *case) for name, cases in ROWS.items() for case in cases],
)
def test_faults_of_a_layout_have_lines(tmp_path, layout, change, message):
  source = DATA / SOURCE.get(layout, f"{layout}.jsonl")
  if source.suffix == ".csv":
    rows = list(csv.DictReader(source.open(newline="")))
  else:
    rows = [json.loads(line) for line in source.open()]
  row = {k: v for k, v in (rows[0] | change).items() if v is not ...}
  files.write_rows(tmp_path / "x.jsonl", [rows[1], row])
  with pytest.raises(UserError, match=rf"x\.jsonl:2: .*{message}"):
    problem_files.read(tmp_path / "x.jsonl", layout=layout)
