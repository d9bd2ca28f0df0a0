"""Problems in files of every format and with any names of columns."""

import csv
import dataclasses
import gzip
import json
import random
import types

import hf_files
import pytest

from configs import quickstart
from experiments import launch
from r1jax import files
from r1jax.data import columns, examples, formats, golds, problem_files, sources
from r1jax.data.problem_files import Files
from r1jax.errors import UserError
from r1jax.phases import PHASES
from r1jax.text.tokenizer import HFTokenizer
from r1jax.types import Problem

ROWS = [
  {"question": f"What is {i} + {i}? Größe 试", "target": str(2 * i)}
  for i in range(5)
]
FIELDS = dict(prompt="question", answer="target")


def read(path, **keys):
  return problem_files.read(path, **({"verifier": "math"} | keys))


def asked(problems):
  return [{"question": p.prompt, "target": p.answer} for p in problems]


def write_csv(path):
  with open(path, "w", newline="", encoding="utf-8") as file:
    writer = csv.DictWriter(
      file, list(ROWS[0]), delimiter="\t" if path.suffix == ".tsv" else ","
    )
    writer.writeheader()
    writer.writerows(ROWS)


def write_table(path, rows=ROWS):
  arrow = pytest.importorskip("pyarrow")
  pytest.importorskip("pyarrow.parquet").write_table(
    arrow.Table.from_pylist(rows), path
  )


def write_records(path, rows=ROWS):
  from array_record.python import array_record_module

  writer = array_record_module.ArrayRecordWriter(str(path), "group_size:1")
  for row in rows:
    writer.write(json.dumps(row).encode())
  writer.close()


def write_zipped(path):
  lines = [json.dumps(row) + "\n" for row in ROWS]
  path.write_bytes(gzip.compress("".join(lines).encode()))


WRITERS = {
  "x.jsonl": lambda path: files.write_rows(path, ROWS),
  "x.ndjson": lambda path: files.write_rows(path, ROWS),
  "x.jsonl.gz": write_zipped,
  "x.json": lambda path: path.write_text(json.dumps(ROWS, indent=1)),
  "lines.json": lambda path: files.write_rows(path, ROWS),
  "x.csv": write_csv,
  "x.tsv": write_csv,
  "x.parquet": write_table,
  "x.array_record": write_records,
}


@pytest.mark.parametrize("name", WRITERS)
def test_every_format_gives_the_same_problems(tmp_path, name):
  WRITERS[name](tmp_path / name)
  found = read(tmp_path / name, fields=FIELDS)
  assert asked(found) == ROWS
  assert [p.id.partition(":")[0] for p in found] == [name] * 5
  assert len({p.id for p in found}) == 5
  assert found == read(tmp_path / name, fields=FIELDS)
  assert all(p.language == "en" and p.data == {} for p in found)


def test_a_pattern_of_files(tmp_path):
  for i, row in enumerate(ROWS):
    files.write_rows(tmp_path / f"x{i}.jsonl", [row])
  found = read(f"{tmp_path}/*.jsonl", fields=FIELDS)
  assert asked(found) == ROWS
  assert [p.id for p in found] == [f"x{i}.jsonl:1" for i in range(5)]
  task = Files(test=f"{tmp_path}/x[34].jsonl", fields=FIELDS, verifier="math")
  assert len(task.questions("test")) == 2
  files.write_rows(tmp_path / "x4.jsonl", ROWS[:2])
  assert len(task.questions("test")) == 3
  with pytest.raises(UserError, match="no file has such a name"):
    read(f"{tmp_path}/*.parquet", fields=FIELDS)


def damaged(good, rng):
  """Bytes with one to four changes, gaps, additions or cuts."""
  data = bytearray(good)
  for _ in range(rng.randint(1, 4)):
    at = rng.randrange(len(data) + 1)
    change = rng.randrange(4)
    if change == 0:
      data[at : at + 1] = rng.randbytes(1)
    elif change == 1:
      del data[at : at + rng.randint(1, 30)]
    elif change == 2:
      data[at:at] = rng.randbytes(rng.randint(1, 9))
    else:
      del data[at:]
  return bytes(data)


@pytest.mark.parametrize("name", WRITERS)
def test_damage_is_an_error_or_another_text(tmp_path, name):
  """No damage leads to an exception of another kind, or to a long message."""
  path = tmp_path / name
  WRITERS[name](path)
  good, rng, refused = path.read_bytes(), random.Random(name), 0
  for _ in range(30):
    path.write_bytes(damaged(good, rng))
    try:
      read(path, fields=FIELDS, verifier="exact")
    except UserError as e:
      refused += 1
      assert str(path) in str(e)
      assert all(len(line) <= 600 for line in str(e).split("\n"))
      str(e).encode()
  assert refused > 15


def test_rows_are_numbered_as_lines(tmp_path):
  WRITERS["x.jsonl"](tmp_path / "x.jsonl")
  write_csv(tmp_path / "x.csv")
  write_table(tmp_path / "x.parquet")
  first = [
    read(tmp_path / f"x.{end}", fields=FIELDS)[0].id
    for end in ("jsonl", "csv", "parquet")
  ]
  assert first == ["x.jsonl:1", "x.csv:2", "x.parquet:1"]


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"", b"\n\n \r\n"])
@pytest.mark.parametrize("start", [b"", b"\xef\xbb\xbf"])
def test_line_ends_and_byte_order_marks(tmp_path, end, start):
  row = json.dumps({"prompt": "a\u2028b", "answer": "2"}, ensure_ascii=False)
  middle = b"\r\n" if end == b"\r\n" else b"\n"
  text = start + row.encode() + middle + row.encode() + end
  (tmp_path / "x.jsonl").write_bytes(text)
  assert [p.prompt for p in read(tmp_path / "x.jsonl")] == ["a\u2028b"] * 2
  (tmp_path / "x.csv").write_bytes(
    start + b"prompt,answer" + middle + b'"a\nb",2' + end
  )
  assert [p.prompt for p in read(tmp_path / "x.csv")] == ["a\nb"]


@pytest.mark.parametrize(
  ("value", "text"),
  [
    (42, "42"), (-7, "-7"), (3.5, "3.5"), (42.0, "42"), (1e20, "1" + "0" * 20),
    (2.5e-7, "0.00000025"), (True, "true"), (False, "false"), ("042", "042"),
    (10**30, "1" + "0" * 30),
  ],
)  # fmt: skip
def test_numbers_as_answers(tmp_path, value, text):
  files.write_rows(tmp_path / "x.jsonl", [{"prompt": "?", "answer": value}])
  kind = "math" if not isinstance(value, bool) else "exact"
  (problem,) = read(tmp_path / "x.jsonl", verifier=kind)
  assert problem.answer == text


def test_numbers_of_32_bits(tmp_path):
  arrow = pytest.importorskip("pyarrow")
  values = arrow.array([0.1, 3.0, 1e-3], arrow.float32())
  table = arrow.table({"prompt": ["a", "b", "c"], "answer": values})
  pytest.importorskip("pyarrow.parquet").write_table(
    table, tmp_path / "x.parquet"
  )
  found = read(tmp_path / "x.parquet")
  assert [p.answer for p in found] == ["0.1", "3", "0.001"]


@pytest.mark.parametrize(
  ("gold", "text", "answer"),
  [
    ("after_hashes", "3+4 = <<3+4=7>>7 apples.\n#### 7", "7"),
    ("after_hashes", "#### 1\nno, #### 1,234 \n", "1,234"),
    ("boxed", "so $\\boxed{\\frac{1}{2}}$.", "\\frac{1}{2}"),
    ("boxed", "\\boxed{1} but \\fbox{ \\{2\\} } .", "\\{2\\}"),
    ("boxed", "\\boxed 7.", "7"),
    ("boxed", "$\\boxed7$", "7"),
    ("boxed", "\\boxed\\frac12.", "\\frac12"),
    ("boxed", "\\boxed{\\text{a {nested} b}} c", "\\text{a {nested} b}"),
    ("plain", " so 7\n", " so 7\n"),
  ],
)
def test_golds_at_the_end_of_solutions(gold, text, answer):
  assert golds.answer(text, gold) == answer


def test_a_box_is_found_in_linear_time():
  text = "\\boxed{" * 40_000
  with pytest.raises(UserError, match="never closes"):
    golds.answer(text, "boxed")


def test_paths_inside_of_columns(tmp_path):
  row = {
    "extra": {"gt": ["7", "8"]}, "a.b": "with a dot", "text": '{"id": 5}',
    "tests": [{"input": "1", "output": "2"}],
  }  # fmt: skip
  files.write_rows(tmp_path / "x.jsonl", [row])
  fields = {
    "prompt": "a.b", "answer": "extra.gt.1", "id": "text.id",
    "data.tests": "tests", "data.more": "extra.gt",
  }  # fmt: skip
  (problem,) = read(tmp_path / "x.jsonl", fields=fields)
  assert problem == Problem(
    "5", "math", "with a dot", "8", "en",
    {"tests": row["tests"], "more": ["7", "8"]},
  )  # fmt: skip
  for path in ("extra.gt.2", "extra.no", "a.b.c", "extra.gt.-1"):
    with pytest.raises(UserError, match=f'no column "{path}"'):
      read(tmp_path / "x.jsonl", fields=fields | dict(answer=path))


def test_columns_that_mean_something_else(tmp_path):
  row = dict(
    prompt="a", answer="2", id=3, language="Python", data="raw", kind=1
  )
  files.write_rows(tmp_path / "x.jsonl", [row, row])
  with pytest.raises(UserError):
    read(tmp_path / "x.jsonl")
  fields = dict(id="", language="", data="")
  found = read(tmp_path / "x.jsonl", fields=fields)
  assert [p.id for p in found] == ["x.jsonl:1", "x.jsonl:2"]
  assert found[0].data == {} and found[0].language == "en"


@pytest.mark.parametrize(
  ("question", "language"),
  [
    ("What is 2?", "en"), ("", "en"), ("求 $x$ 的值。", "zh"),
    ("答えを求めなさい。", "ja"), ("x의 값을 구하시오", "ko"),
    ("Найдите число", "ru"), ("ما هو العدد", "ar"),
  ],
)  # fmt: skip
def test_the_language_of_a_question(tmp_path, question, language):
  row = {"prompt": question or "2 + 2 =", "answer": "2"}
  files.write_rows(tmp_path / "x.jsonl", [row])
  assert read(tmp_path / "x.jsonl")[0].language == language
  assert read(tmp_path / "x.jsonl", language="de")[0].language == "de"


TURNS = [
  {"role": "system", "content": "Be brief."},
  {"role": "user", "content": "1+1?"},
  {"role": "assistant", "content": "2"},
  {"role": "user", "content": "and 2+2?"},
  {"role": "assistant", "content": "It is 4."},
]


def as_share_gpt(turns):
  roles = {"user": "human", "assistant": "gpt"}
  return [
    {"from": roles.get(t["role"], t["role"]), "value": t["content"]}
    for t in turns
  ]


LAYOUTS_OF_TURNS = {
  "messages": dict(messages=TURNS),
  "prompt": dict(prompt=TURNS[:4]),
  "sharegpt": dict(conversations=as_share_gpt(TURNS)),
  "lists": dict(
    messages={k: [t[k] for t in TURNS] for k in ("role", "content")}
  ),
  "parts": dict(
    messages=[
      t | {"content": [{"type": "text", "text": t["content"]}]} for t in TURNS
    ]
  ),
}


@pytest.mark.parametrize("name", LAYOUTS_OF_TURNS)
def test_messages(tmp_path, name):
  row = LAYOUTS_OF_TURNS[name]
  files.write_rows(tmp_path / "x.jsonl", [row | {"answer": 4}])
  fields = dict(prompt="conversations") if name == "sharegpt" else {}
  task = Files(
    test=str(tmp_path / "x.jsonl"), verifier="math", template="chat",
    fields=fields,
  )  # fmt: skip
  hf_files.write_tokenizer(tmp_path / "t")
  (problem,) = task.load(None, HFTokenizer(tmp_path / "t"))["test"]
  assert (
    problem.prompt
    == "".join(
      f"<|im_start|>{t['role']}\n{t['content']}<|im_end|>\n" for t in TURNS[:4]
    )
    + "<|im_start|>assistant\n"
  )
  asks = dataclasses.replace(task, instruction="Box {it}.")
  (other,) = asks.load(None, HFTokenizer(tmp_path / "t"))["test"]
  assert other.prompt == problem.prompt.replace(
    "user\nand 2+2?<", "user\nand 2+2?\n\nBox {it}.<"
  )
  assert other.prompt != problem.prompt
  (question,) = task.questions("test")
  assert question.problem.prompt == "and 2+2?" and len(question.before) == 3
  bare = dataclasses.replace(task, template="none")
  with pytest.raises(UserError, match=r"^task.test: \S*x.jsonl:1: .*messages"):
    bare.load(None, None)
  files.write_rows(tmp_path / "x.jsonl", [{"prompt": TURNS[1:2], "answer": 2}])
  bare = dataclasses.replace(bare, fields={})
  assert bare.load(None, None)["test"][0].prompt == "1+1?"


def test_a_task_with_a_test_file_alone(tmp_path):
  files.write_rows(tmp_path / "x.jsonl", [{"prompt": "a", "answer": 2}])
  task = Files(test=str(tmp_path / "x.jsonl"), verifier="math")
  sets = task.load(None, None)
  assert len(sets["test"]) == 1 and not sets["train"]


def test_an_instruction_follows_the_question(tmp_path):
  path = str(tmp_path / "x.jsonl")
  files.write_rows(path, [{"prompt": "1+1?", "answer": 2}])
  text = "Put the final answer in \\boxed{}."
  task = Files(train=path, verifier="math", instruction=text)
  (problem,) = task.load(None, None)["train"]
  assert problem.prompt == "1+1?\n\nPut the final answer in \\boxed{}."
  paper = dataclasses.replace(task, template="r1_zero")
  (problem,) = paper.load(None, None)["train"]
  assert f"User: 1+1?\n\n{text}. Assistant:" in problem.prompt
  with pytest.raises(UserError, match="^instruction has half of a surrogate"):
    dataclasses.replace(task, instruction="a\ud83d")


def test_problems_of_both_sets_are_counted_once(tmp_path, capsys):
  train, test = str(tmp_path / "train.jsonl"), str(tmp_path / "test.jsonl")
  rows = [{"prompt": f"{i} + 1?", "answer": i + 1} for i in range(9)]
  files.write_rows(train, rows[:5])
  files.write_rows(test, [*rows[5:], {"prompt": " 3 +\n1?", "answer": 4}])
  task = Files(train=train, test=test, verifier="math")
  said = (
    f"warning: 1 of 5 problems of task.test={test} are in"
    f" task.train={train} too: the evaluation will look too good\n"
  )
  task.load(None, None)
  assert capsys.readouterr().err == said
  dataclasses.replace(task, template="r1_zero").load(None, None)
  assert not capsys.readouterr().err
  files.write_rows(test, rows[5:])
  task.load(None, None)
  assert not capsys.readouterr().err
  # The same last turn in another conversation is another problem.
  turns = [{"role": "system", "content": "a"}]
  turns.append({"role": "user", "content": "0 + 1?"})
  files.write_rows(test, [{"prompt": turns, "answer": 1}])
  hf_files.write_tokenizer(tmp_path / "t")
  chat = dataclasses.replace(task, template="chat")
  chat.load(None, HFTokenizer(tmp_path / "t"))
  assert not capsys.readouterr().err


def test_what_was_read_is_shared_until_the_file_changes(tmp_path):
  path = tmp_path / "x.jsonl"
  files.write_rows(path, [{"prompt": "a", "answer": 2}])
  task = Files(train=str(path), test=str(path), verifier="math")
  assert task.questions("train") is task.questions("train")
  files.write_rows(path, [{"prompt": "a", "answer": 2}] * 2)
  assert len(task.questions("train")) == 2
  other = dataclasses.replace(task, verifier="exact")
  assert other.questions("train")[0].problem.kind == "exact"


def test_only_some_golds_are_judged(tmp_path):
  rows = [{"prompt": "a", "answer": "A"} for _ in range(9)]
  rows[5]["answer"] = "x"
  path = tmp_path / "x.jsonl"
  files.write_rows(path, rows)
  keys = dict(verifier="own", kinds={"own": f"{__name__}:only_a"})
  assert len(read(path, golds=2, **keys)) == 9  # rows 1 and 5
  with pytest.raises(UserError, match="x.jsonl:6: .* finds the answer"):
    read(path, golds=9, **keys)


def only_a(problem, completion):
  from r1jax.types import Verdict

  right = "A" in completion
  return Verdict(right, float(right), "said")


def halves(row):
  """A layout of one's own."""
  if row["n"] < 0:
    return None
  return dict(
    id=f"half {row['n']}", kind="math", prompt=f"half of {row['n']}?",
    answer=row["n"] / 2,
  )  # fmt: skip


def test_rows_with_faults_may_be_left_out(tmp_path, capsys):
  path = tmp_path / "x.jsonl"
  rows = [
    dict(id="a", prompt="a", answer="2"), dict(id="b", prompt="", answer="2"),
    dict(id="a", prompt="a", answer="2"), dict(id="c", prompt="c", answer=3),
    dict(id="d", prompt="d", answer="\\frac{"),
  ]  # fmt: skip
  text = "".join(json.dumps(row) + "\n" for row in rows)
  path.write_text(text + "{\n")
  found = read(path, faults="leave_out")
  assert [p.id for p in found] == ["a", "c"]
  said = capsys.readouterr().err.splitlines()
  assert said[0] == f"{path}: 4 of 6 rows are left out:" and len(said) == 5
  # What none of the rows can mend is an error all the same.
  with pytest.raises(UserError, match='no column "q"'):
    read(path, faults="leave_out", fields=dict(prompt="q"))
  path.write_text("{\n{\n")
  with pytest.raises(UserError, match="x.jsonl:1: .*\n.*x.jsonl:2: "):
    read(path, faults="leave_out")
  keys = dict(verifier="own", kinds={"own": f"{__name__}:only_a"})
  files.write_rows(path, [dict(prompt="a", answer=x) for x in "AxA"])
  assert len(read(path, faults="leave_out", **keys)) == 2


def test_files_of_the_same_name(tmp_path):
  for folder in ("algebra", "geometry/plane"):
    (tmp_path / folder).mkdir(parents=True)
    path = tmp_path / folder / "1.json"
    path.write_text(json.dumps(ROWS[0], indent=2))
  found = read(f"{tmp_path}/**/*.json", fields=FIELDS)
  assert [p.id for p in found] == [
    "algebra/1.json:1",
    "geometry/plane/1.json:1",
  ]


def test_a_layout_of_ones_own(tmp_path):
  path = tmp_path / "x.jsonl"
  files.write_rows(path, [{"n": 3}, {"n": -1}, {"n": 8}])
  keys = dict(layout=f"{__name__}:halves", verifier="")
  assert [p.answer for p in read(path, **keys)] == ["1.5", "4"]
  files.write_rows(path, [{"n": 3}, {"m": 3}])
  with pytest.raises(
    UserError, match="x.jsonl:2: the layout needs a column 'n'"
  ):
    read(path, **keys)
  files.write_rows(path, [{"n": 3}, {"n": "x"}])
  with pytest.raises(UserError, match="x.jsonl:2: .*TypeError"):
    read(path, **keys)


def test_examples_of_any_format(tmp_path):
  rows = [dict(question="a", reply="b"), dict(question="c", reply="d")]
  write_table(tmp_path / "x.parquet", rows)
  fields = dict(prompt="question", completion="reply", answer="no")
  task = Files(fields=fields)
  path = str(tmp_path / "x.parquet")
  assert sources.is_file(task, path) and not sources.is_file(task, "corpus")
  phase = types.SimpleNamespace(name="sft", seed=0, task=task)
  found = sources.examples(phase, path, None, None)(0, 2)
  assert {(e.prompt, e.completion) for e in found} == {("a", "b"), ("c", "d")}
  files.write_rows(tmp_path / "m.jsonl", [dict(messages=TURNS)])
  (example,) = examples.read(tmp_path / "m.jsonl", fields)
  assert example.completion == "It is 4." and len(example.turns.before) == 3
  # What a phase wrote is read whatever the columns of the task are.
  files.write_rows(tmp_path / "x.jsonl", [dict(prompt="", completion="b")])
  assert examples.read(tmp_path / "x.jsonl", fields)[0].completion == "b"
  files.write_rows(tmp_path / "x.jsonl", [dict(prompt="a"), dict(prompt="b")])
  with pytest.raises(UserError, match='x.jsonl: .*"completion" is missing'):
    examples.read(tmp_path / "x.jsonl")


def never(*_):
  raise AssertionError("a phase ran")


def evaluation(path):
  """A config that evaluates on a file, and has nothing to train on."""
  c = quickstart.get_config("smoke")
  c.phases = ("base", "eval_base")
  c.eval_base.task = dict(
    kind="files", test=str(path), fields=dict(prompt="q"), verifier="exact"
  )
  return c


def test_a_run_with_a_test_file_alone(tmp_path):
  """All checks of a run, up to its first phase."""
  kinds = {kind: (cls, never) for kind, (cls, _) in PHASES.items()}
  files.write_rows(tmp_path / "x.jsonl", [{"q": "try 3", "answer": "3"}])
  with pytest.raises(AssertionError, match="a phase ran"):
    launch.run(evaluation(tmp_path / "x.jsonl"), tmp_path / "good", kinds)
  write_table(
    tmp_path / "x.parquet",
    [{"q": "try 3", "answer": "3"}, {"q": "", "answer": "3"}],
  )
  with pytest.raises(
    UserError, match=r"^eval_base\.task\.test: .*row 2: the pr"
  ):
    launch.run(evaluation(tmp_path / "x.parquet"), tmp_path / "run", kinds)
  assert not (tmp_path / "run").exists()


# Cases with the area "data" that were reported, and what is expected.
CASES = (
  ('{"problem": "1+1", "solution": "...", "answer": "2"}', None),
  ('{"prompt": "how fast?", "answer": "60 per hour"}', None),
  ('{"prompt": "a\\ud83d", "answer": "2"}', "x.jsonl:1: .*surrogate"),
  ('{"prompt": "", "answer": "2"}', "x.jsonl:1: .*is empty"),
)


@pytest.mark.parametrize(("line", "message"), CASES)
def test_reported_cases(tmp_path, line, message):
  path = tmp_path / "x.jsonl"
  path.write_text(line)
  if message:
    with pytest.raises(UserError, match=message):
      read(path)
    return
  if "problem" in line:
    with pytest.raises(UserError, match=r'fields=dict\(prompt="problem"\)'):
      read(path)
  fields = dict(prompt="problem") if "problem" in line else {}
  assert read(path, fields=fields)[0].answer == json.loads(line)["answer"]


def test_paths_of_the_longest_name_win():
  values = {"a": {"b": 1}, "a.b": 2}
  assert columns.at(values, "a.b") == 2 and columns.at(values, "a") == {"b": 1}
  assert formats.split_of("no/such:place") == ("no/such:place", "")
