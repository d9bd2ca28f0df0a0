"""Broken files of every kind: one clear error, with file and line."""

import gzip
import json

import pytest

from r1jax.data import problem_files
from r1jax.errors import UserError
from r1jax.types import Verdict

GOOD = {"prompt": "1+1?", "answer": "2"}
HALF = "\ud83d"


def line(**changes):
  row = GOOD | changes
  return json.dumps({k: v for k, v in row.items() if v is not Ellipsis})


def read(path, **keys):
  return problem_files.read(path, **({"verifier": "math"} | keys))


def error(path, **keys):
  with pytest.raises(UserError) as e:
    read(path, **keys)
  return str(e.value)


# What the third line of a file of JSON lines is -> what the error says of it.
LINES = {
  "cut": ('{"prompt": "a", "ans', "not JSON: Unterminated string.*column 17"),
  "array": ("[1, 2]", "a JSON object was expected, not list"),
  "text": ('"prompt"', "a JSON object was expected, not str"),
  "number": ("3", "a JSON object was expected, not int"),
  "null": ("null", "a JSON object was expected, not NoneType"),
  "single quotes": ("{'prompt': 'a'}", "not JSON: Expecting property name"),
  "comma": ('{"prompt": "a",}', "not JSON"),
  "two objects": (line() + line(), "not JSON: Extra data"),
  "array's item": (line() + ",", "not JSON: Extra data"),
  "comment": ("// a comment", "not JSON: Expecting value"),
  "control character": ('{"prompt": "a\tb"}', "not JSON: Invalid control"),
  "bad escape": (r'{"prompt": "\frac \x"}', r"not JSON: Invalid \\escape"),
  "NaN": ('{"prompt": "a", "answer": NaN}', "NaN is no number of JSON"),
  "inf": ('{"prompt": "a", "answer": -Infinity}', "-Infinity is no number"),
  "1e999": ('{"prompt": "a", "answer": 1e999}', "inf"),
  "digits": ('{"prompt": "a", "answer": 1' + "0" * 5000 + "}", "not JSON"),
  "deep": ('{"prompt": ' + "[" * 100000, "nested too deep"),
  "key twice": ('{"prompt": "a", "prompt": "b"}', '"prompt" is there twice'),
  "empty prompt": (line(prompt=""), r'the prompt \("prompt"\) is empty'),
  "blank prompt": (line(prompt=" \n\t"), "is empty"),
  "null prompt": (line(prompt=None), "must be text or a list of messages, not"),
  "number as prompt": (line(prompt=5), "must be text or a list.*not int"),
  "no prompt": (
    line(prompt=..., question="a"),
    '"prompt" is missing.*columns: answer, question; fields=dict'
    r'\(prompt="question"\)',
  ),
  "other case": (
    line(prompt=..., Prompt="a"),
    'no column "prompt".*did you mean "Prompt"',
  ),
  "half a pair": (line(prompt=f"a{HALF}"), "half of a surrogate pair at.* 2 "),
  "half in answer": (line(answer=HALF), '"answer" has half of a surrogate'),
  "half in data": (line(data={"a": [HALF]}), '"data" has half of a surrogate'),
  "half in id": (line(id=HALF), '"id" has half of a surrogate'),
  "half in messages": (
    line(prompt=[
      {"role": "system", "content": HALF}, {"role": "user", "content": "a"},
    ]),
    '"messages" has half of a surrogate',
  ),
  "no answer": (line(answer=...), '"answer" is missing.*columns: prompt'),
  "null answer": (line(answer=None), 'the answer is empty.*"math" needs one'),
  "empty answer": (line(answer=" "), 'the answer is empty.*"math" needs one'),
  "list as answer": (line(answer=["2"]), 'not list; "answer.0" is its only'),
  "lists as answer": (line(answer=["2", "3"]), 'must be text or a num'),
  "object as answer": (line(answer={"v": 2}), 'not dict; "answer.v" is an'),
  "answer of no sense": (line(answer="\\frac{"), "frac"),
  "list as id": (line(id=[1]), '"id" must be text or a number, not list'),
  "id twice": (line(id="first"), 'the id "first" is also at .*x.jsonl:1;'),
  "language": (
    line(language="Python"),
    r'language "Python" is unknown.*fields=dict\(language=""\)',
  ),
  "deep data": (
    line(data={"a": json.loads("[" * 150 + "]" * 150)}),
    '"data" has more than 100 levels of lists',
  ),
  "list as data": (line(data=[1]), '"data".* must be an object, not list'),
  "text as data": (line(data="tests"), "not JSON"),
  "no turns": (line(prompt=[]), '"prompt" has no turn of the user'),
  "turns without user": (
    line(prompt=[{"role": "assistant", "content": "a"}]),
    "has no turn of the user",
  ),
  "empty turn": (
    line(prompt=[{"role": "user", "content": " "}]), "the prompt.*is empty",
  ),
  "turn without role": (
    line(prompt=[{"content": "a"}]), "message 1 must have the keys role and",
  ),
  "text as turn": (line(prompt=["a"]), "message 1 must be an object.*not str"),
  "turn with an image": (
    line(prompt=[{"role": "user", "content": [{"type": "image"}]}]),
    "message 1 has parts that are no text",
  ),
}  # fmt: skip


@pytest.mark.parametrize("name", LINES)
def test_a_broken_line_is_numbered(tmp_path, name):
  broken, message = LINES[name]
  path = tmp_path / "x.jsonl"
  path.write_text("\n".join([line(id="first"), "", broken, line()]) + "\n")
  with pytest.raises(UserError, match=rf"^\S*x\.jsonl:3: .*{message}") as e:
    read(path)
  assert "\n" not in str(e.value)
  str(e.value).encode()  # a terminal can show it


KINDS = {
  "unknown": (dict(kind="sudoku"), 'kind "sudoku" has no verifier'),
  "none": (dict(), '"kind" is missing: .*verifier="math".*columns: prompt'),
  "exact": (dict(kind="exact", answer=""), "the answer is empty"),
  "letter": (dict(kind="choice", answer="Z"), "none of the letters"),
  "no tests": (dict(kind="code", answer="", data={}), "tests must be a list"),
  "numbers": (dict(kind="countdown", answer=""), 'data needs "numbers"'),
  "module": (dict(kind="no_such_module:verify"), "cannot be imported"),
}


@pytest.mark.parametrize("name", KINDS)
def test_what_a_kind_needs(tmp_path, name):
  changes, message = KINDS[name]
  path = tmp_path / "x.jsonl"
  good = line(kind="math")
  path.write_text("\n".join([good, line(**changes), good]) + "\n")
  with pytest.raises(UserError, match=rf"^\S*x\.jsonl:2: .*{message}"):
    read(path, verifier="")


def test_all_faults_are_listed_at_once(tmp_path):
  path = tmp_path / "x.jsonl"
  rows = [
    line(), line(prompt=""), "{", line(prompt=HALF), line(answer="\\frac{"),
    line(id="a"), line(id="a"), line(),
  ]  # fmt: skip
  path.write_text("\n".join(rows))
  lines = error(path).split("\n")
  assert [x.split(": ")[0].rpartition(":")[2] for x in lines] == [
    "2", "3", "4", "5", "7",
  ]  # fmt: skip


def test_faults_are_in_the_order_of_lines(tmp_path):
  path = tmp_path / "x.jsonl"
  rows = [line() for _ in range(12)]
  rows[1], rows[10] = line(answer="3 \\text{or} 4", kind="math"), "{"
  rows[8] = line(prompt="")
  path.write_text("\n".join(rows))
  lines = error(path, verifier=f"{__name__}:only_two").split("\n")
  assert [x.split(": ")[0].rpartition(":")[2] for x in lines] == [
    "2", "9", "11",
  ]  # fmt: skip


def only_two(problem, completion):
  """A verifier that finds 2 right."""
  right = "> 2 <" in completion
  return Verdict(right, float(right), "said")


def test_a_long_list_is_cut_and_counted(tmp_path):
  path = tmp_path / "x.jsonl"
  path.write_text("\n".join([line()] + [line(prompt="")] * 50))
  lines = error(path).split("\n")
  assert len(lines) == 21 and "x.jsonl:21: " in lines[-2]
  assert lines[-1] == "... and 30 more, 50 faults in all"


def test_a_fault_of_all_rows_is_said_once(tmp_path):
  path = tmp_path / "x.jsonl"
  path.write_text("\n".join([line(prompt=..., question="a")] * 50))
  assert error(path) == (
    f'{path}: the field "prompt" is missing: there is no column "prompt";'
    ' columns: answer, question; fields=dict(prompt="question") reads'
    ' "question"'
  )
  assert "did you mean" in error(path, fields=dict(prompt="qestion"))
  assert '"a.b"' in error(path, fields=dict(prompt="question", answer="a.b"))


# Whole files that are broken, and what is said of them.
FILES = {
  "x.json": (b"[{", "x.json: not JSON: Expecting property name"),
  "item.json": (b'[{"prompt": "a", "answer": 2}, 3]', "row 2: a JSON object"),
  "half.json": (
    b'[{"prompt": "\\ud83d", "answer": 2}]', "row 1: .*half of a surrogate",
  ),
  "lines.json": (b'{"prompt": "a", "answer": 2}\n{"', "lines.json:2: broken"),
  "utf16.jsonl": ("x\n".encode("utf-16"), "utf16.jsonl: UTF-16; save"),
  "latin.jsonl": ('{"prompt": "é"}'.encode("latin-1"), ":1: .*not UTF-8: byte"),
  "cut.jsonl.gz": (
    gzip.compress(b'{"prompt": "a", "answer": 2}\n' * 99)[:-9],
    "cut.jsonl.gz: cannot be unpacked",
  ),
  "plain.jsonl.gz": (b'{"prompt": "a"}', "plain.jsonl.gz: cannot be unpacked"),
  "x.csv": (b"prompt,answer\na,2\nb,3,4\n", "x.csv:3: 3 cells, .* 2 columns"),
  "few.csv": (b"prompt,answer\na\n", "few.csv:2: 1 cells"),
  "quote.csv": (b'prompt,answer\na,2\n"b,3\n', "quote.csv:3: not .csv: unex"),
  "twice.csv": (b"prompt,prompt\na,b\n", "twice.csv:1: two columns have the"),
  "latin.csv": (b"prompt,answer\na,2\n\xe9,3\n", "latin.csv:3: not UTF-8"),
  "empty.csv": (b"prompt,answer\na,2\n,3\n", r'empty.csv:3: the prompt'),
  "x.parquet": (b"PAR1 no parquet PAR1", "x.parquet: "),
  "none.parquet": (b"", "none.parquet: "),
  "x.array_record": (b"?" * 99, "x.array_record: no array_record file"),
  "x.xlsx": (b"PK", "x.xlsx: the end of the name is of no known format; known"),
}  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_a_broken_file(tmp_path, name):
  if name.endswith("parquet"):
    pytest.importorskip("pyarrow")
  data, message = FILES[name]
  (tmp_path / name).write_bytes(data)
  with pytest.raises(UserError, match=message) as e:
    read(tmp_path / name)
  assert "\n" not in str(e.value) and name in str(e.value)


@pytest.mark.parametrize("end", ["jsonl", "json", "csv", "parquet"])
def test_a_file_that_is_not_there(tmp_path, end):
  if end == "parquet":
    pytest.importorskip("pyarrow")
  with pytest.raises(UserError, match=f"none.{end}: cannot be read: No such"):
    read(tmp_path / f"none.{end}")
  (tmp_path / f"dir.{end}").mkdir()
  with pytest.raises(UserError, match="no data is in|cannot be read"):
    read(tmp_path / f"dir.{end}")


# Rows of a table -> what is said of the third.
TABLE = {
  "empty": (dict(prompt=""), "is empty"),
  "null": (dict(prompt=None), "must be text or a list of messages, not null"),
  "no answer": (dict(answer=None), "the answer is empty"),
  "NaN": (dict(answer=float("nan")), '"answer" is nan, which is no number'),
  "id": (dict(id="1"), r'the id "1" is also at \S*x.parquet: row 1'),
}


@pytest.mark.parametrize("name", TABLE)
def test_a_broken_row_of_a_table(tmp_path, name):
  arrow = pytest.importorskip("pyarrow")
  change, message = TABLE[name]
  number = isinstance(change.get("answer"), float)
  rows = [
    dict(id=str(i), prompt="a", answer=2.0 if number else "2")
    for i in (1, 2, 3, 4)
  ]
  rows[2] |= change
  path = tmp_path / "x.parquet"
  pytest.importorskip("pyarrow.parquet").write_table(
    arrow.Table.from_pylist(rows), path
  )
  with pytest.raises(UserError, match=rf"^\S*x\.parquet: row 3: .*{message}"):
    read(path)


def test_a_damaged_table(tmp_path):
  arrow = pytest.importorskip("pyarrow")
  path = tmp_path / "x.parquet"
  rows = [dict(prompt=f"question {i}", answer=str(i)) for i in range(3000)]
  pytest.importorskip("pyarrow.parquet").write_table(
    arrow.Table.from_pylist(rows), path, compression="none"
  )
  whole = path.read_bytes()
  assert len(read(path, golds=5)) == 3000
  for damage in (whole[:-10], whole[: len(whole) // 2], whole[1000:]):
    path.write_bytes(damage)
    assert str(path) in error(path)


@pytest.mark.parametrize(
  ("keys", "message"),
  [
    (dict(fields=dict(prompts="a")), 'fields.prompts is no field; did you mea'),
    (dict(fields={"data.": "a"}), "fields.data. is no field"),
    (dict(gold="boxes"), 'gold="boxes" is unknown; did you mean "boxed"'),
    (dict(layout="aps"), 'layout="aps" is unknown; did you mean "apps"'),
    (dict(layout="apps"), 'verifier and layout="apps" exclude each other'),
    (dict(layout="a:b", verifier=""), 'layout="a:b" cannot be imported'),
    (dict(language="xx"), 'language "xx" is unknown'),
    (dict(golds=0), "golds=0 must be at least 1"),
    (dict(verifier="maths"), 'verifier="maths" is unknown; known: choice'),
    (dict(fields=dict(kind="type")), 'verifier="math" and fields.kind exclude'),
  ],
)  # fmt: skip
def test_wrong_keys(tmp_path, keys, message):
  path = tmp_path / "x.jsonl"
  path.write_text(line())
  assert message in error(path, **keys)


@pytest.mark.parametrize(
  ("gold", "answer", "message"),
  [
    ("after_hashes", "so 42", 'x.jsonl:1: no "####" in the text'),
    ("after_hashes", "so 42 ####", "x.jsonl:1: the text of the answer ends"),
    ("boxed", "so 42", r'x.jsonl:1: no "\boxed{...}" in the text'),
    ("boxed", "so \\boxed{4\\}", "x.jsonl:1: the last .* never closes"),
    ("boxed", "so \\boxed{ }", "x.jsonl:1: the text of the answer ends"),
    ("boxed", "so \\boxed", "x.jsonl:1: the text of the answer ends"),
    ("boxed", "so \\boxedd{3}", 'x.jsonl:1: no "\\boxed{...}"'),
  ],
)
def test_golds_that_are_not_there(tmp_path, gold, answer, message):
  path = tmp_path / "x.jsonl"
  path.write_text(line(answer=answer))
  found = error(path, gold=gold)
  for part in message.split(" .* "):
    assert part in found
