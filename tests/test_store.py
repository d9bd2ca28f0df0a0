"""Problem sets and JSONL: what is written is read, what is broken is named."""

import collections
import os
import subprocess
import sys

import pytest

from r1jax import files, verifiers
from r1jax.data import examples, jsonl, problem_files
from r1jax.data import store as lib
from r1jax.data.order import order
from r1jax.errors import UserError
from r1jax.types import Example, Problem, Verdict


def make(count, name="p"):
  return [
    Problem(
      id=f"{name}{i}",
      kind="countdown",
      prompt=f"用户 ： {i} make\n“{i}”",
      answer="3 * 7 + 8",
      language=("en", "zh")[i % 2],
      data={"numbers": [3, 7, 8], "target": 29, "note": "数"},
    )
    for i in range(count)
  ]


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
  path = tmp_path_factory.mktemp("data")
  splits = {"train": make(250), "test": make(3, "t")}
  lib.write_problems(path, "sums", splits)
  return path


def test_random_access(directory):
  train = lib.load_problems(directory, "sums", "train")
  assert len(train) == 250
  assert list(train) == train[:] == make(250)
  assert train[-1] == make(250)[-1] and train[7:9] == make(250)[7:9]
  assert list(lib.load_problems(directory, "sums", "test")) == make(3, "t")
  with pytest.raises(IndexError):
    train[250]


def test_importing_is_cheap():
  code = (
    "import sys, r1jax.data.store, r1jax.data.countdown\n"
    "assert not {'array_record', 'reasoning_gym', 'sympy'} & {*sys.modules}\n"
  )
  subprocess.run([sys.executable, "-c", code], check=True)


def test_a_written_set_is_left_alone(directory):
  lib.write_problems(directory, "sums", {"train": make(1)})
  assert len(lib.load_problems(directory, "sums", "train")) == 250


def test_an_interrupted_write_leaves_nothing(tmp_path):
  def torn():
    yield make(1)[0]
    raise KeyboardInterrupt

  class Torn:
    """Breaks off while it is written, not while it is listed."""

    def __getattr__(self, name):
      raise KeyboardInterrupt

  for problems in (torn(), [make(1)[0], Torn()]):
    with pytest.raises(KeyboardInterrupt):
      lib.write_problems(tmp_path, "sums", {"train": problems})
    assert not lib.exists(tmp_path, "sums") and not os.listdir(tmp_path)
  lib.write_problems(tmp_path, "sums", {"train": make(2)})
  assert len(lib.load_problems(tmp_path, "sums", "train")) == 2
  assert os.listdir(tmp_path) == ["sums"]


def test_take_is_a_function_of_the_step(directory):
  train = lib.load_problems(directory, "sums", "train")
  again = lib.load_problems(directory, "sums", "train")
  late = again.take(40, 16, 7)  # without the steps before
  steps = [train.take(k, 16, 7) for k in range(41)]
  assert steps[40] == late
  assert train.take(0, 16, 8) != steps[0]
  assert train.take(3, 1, 7) == [train[order(250, 3, 1, 7)[0]]]


def test_each_problem_once_an_epoch():
  drawn = [i for step in range(50) for i in order(100, step, 6, seed=3)]
  for epoch in range(3):
    part = drawn[100 * epoch : 100 * (epoch + 1)]
    assert sorted(part) == list(range(100))
  assert drawn[:100] != drawn[100:200] != list(range(100))
  # A set smaller than a step goes round within the step.
  counts = collections.Counter(order(3, 0, 9, seed=0))
  assert counts == {0: 3, 1: 3, 2: 3}


def test_order_does_not_drift():
  # A checkpoint of last year must resume on the same data.
  assert order(10, 0, 5, seed=0) == [4, 6, 2, 7, 3]
  assert order(10, 3, 5, seed=1) == [0, 3, 5, 9, 8]


def test_faults_of_a_problem_set(tmp_path):
  with pytest.raises(UserError, match="no problem set sums"):
    lib.load_problems(tmp_path, "sums", "train")
  lib.write_problems(tmp_path, "sums", {"train": make(50)})
  with pytest.raises(UserError, match="no split test; splits: train"):
    lib.load_problems(tmp_path, "sums", "test")
  path = tmp_path / "sums" / "train.array_record"
  whole = path.read_bytes()
  for damage in (b"", whole[:70000], whole[:500] + b"?" * 900 + whole[1400:]):
    path.write_bytes(damage)
    with pytest.raises(UserError, match="sums/train.*: the problem set is dam"):
      list(lib.load_problems(tmp_path, "sums", "train"))
    assert path.read_bytes() == damage  # left for its owner to look at
  path.write_bytes(whole)
  assert list(lib.load_problems(tmp_path, "sums", "train")) == make(50)
  with pytest.raises(UserError, match="empty"):
    order(0, 0, 1, seed=0)


def test_a_missing_library_is_no_damage(directory, monkeypatch):
  # To delete good data would not bring a library back.
  monkeypatch.setitem(sys.modules, "array_record.python", None)
  with pytest.raises(ImportError):
    lib.load_problems(directory, "sums", "train")


def test_jsonl_round_trip(tmp_path):
  path = tmp_path / "x.jsonl"
  rows = [{"a": "试\u2028\n"}, {"b": [1, 2.5, None]}]
  files.write_rows(path, rows)
  assert jsonl.read_jsonl(path) == rows
  written = [Example("q 试", "a\n"), Example("", "b")]
  files.write_rows(path, written)
  assert examples.read_written(path) == written
  files.write_rows(path, make(3))
  assert problem_files.read(path) == make(3)
  path.write_bytes(b'\xef\xbb\xbf{"a": 1}\r\n\r\n{"a": 2}')
  assert jsonl.read_jsonl(path) == [{"a": 1}, {"a": 2}]


def test_jsonl_is_written_whole_or_not(tmp_path):
  path = tmp_path / "x.jsonl"
  files.write_rows(path, [{"a": 1}])

  def torn():
    yield {"a": 2}
    raise KeyboardInterrupt

  with pytest.raises(KeyboardInterrupt):
    files.write_rows(path, torn())
  assert jsonl.read_jsonl(path) == [{"a": 1}]
  assert os.listdir(tmp_path) == ["x.jsonl"]


@pytest.mark.parametrize(
  ("line", "message"),
  [
    (b'{"prompt": "a", "compl', "not JSON: Unterminated string.*column 17"),
    (b"[1, 2]", "JSON object was expected, not list"),
    (b'{"prompt": "\xff"}', "not UTF-8: byte 13"),
    (b"[" * 100000, "nested too deep"),
    (b'{"prompt": "a"}', 'field "completion" is missing'),
    (b'{"prompt": "a", "completion": 3}', '"completion" must be text, not int'),
  ],
)
def test_broken_line_is_numbered(tmp_path, line, message):
  path = tmp_path / "x.jsonl"
  good = b'{"prompt": "a", "completion": "b"}\n'
  path.write_bytes(good + b"\n" + good + line + b"\n" + good)
  with pytest.raises(UserError, match=rf"x\.jsonl:4: .*{message}") as e:
    examples.read(path)
  assert "\n" not in str(e.value)


def test_unreadable_file(tmp_path):
  with pytest.raises(UserError, match="none.jsonl: cannot be read: No such"):
    jsonl.read_jsonl(tmp_path / "none.jsonl")


@pytest.mark.parametrize(
  ("change", "message"),
  [
    ({"kind": "sudoku"}, 'x.jsonl:2: .*kind "sudoku" has no verifier'),
    ({"answer": "3 + 7"}, 'x.jsonl:2: .*answer "3 \\+ 7" wrong_numbers'),
    ({"data": {}}, 'x.jsonl:2: .*data needs "numbers"'),
    ({"data": {"numbers": [3], "target": "3"}}, 'x.jsonl:2: .*"target"'),
    ({"data": []}, 'x.jsonl:2: .*"data".* must be an object, not list'),
    ({"id": "p0"}, 'x.jsonl:2: the id "p0" is also at .*x.jsonl:1'),
    ({"language": []}, 'x.jsonl:2: .*"language" must be text'),
    ({"language": "xx"}, 'x.jsonl:2: language "xx" is unknown; known: en'),
  ],
)
def test_own_problems_are_checked(tmp_path, change, message):
  rows = [vars(p) for p in make(3)]
  rows[1] = rows[1] | change
  path = tmp_path / "x.jsonl"
  files.write_rows(path, rows)
  with pytest.raises(UserError, match=message):
    problem_files.read(path)


def test_a_problem_without_id_gets_its_line(tmp_path):
  rows = [{k: v for k, v in vars(p).items() if k != "id"} for p in make(2)]
  files.write_rows(tmp_path / "x.jsonl", rows)
  ids = [p.id for p in problem_files.read(tmp_path / "x.jsonl")]
  assert ids == ["x.jsonl:1", "x.jsonl:2"]


def right(problem, completion):
  """A verifier of one's own."""
  return Verdict("yes" in completion, float("yes" in completion), "said")


def test_kinds_of_ones_own(tmp_path):
  row = dict(
    kind="polite", prompt="?", answer="yes", language="en", data={}
  )  # fmt: skip
  files.write_rows(tmp_path / "x.jsonl", [row])
  kinds = {"polite": f"{__name__}:right"}
  (problem,) = problem_files.read(tmp_path / "x.jsonl", kinds)
  assert verifiers.verify(problem, "oh yes").correct
  # Its rewards may be asked for by the name that the file has.
  assert problem.kind == "polite"
  with pytest.raises(UserError, match='x.jsonl:1: .*"polite" has no verifier'):
    problem_files.read(tmp_path / "x.jsonl")
  with pytest.raises(UserError, match='kinds.polite="a.b" must name'):
    problem_files.read(tmp_path / "x.jsonl", {"polite": "a.b"})


def test_an_open_question_may_have_an_answer_for_its_reward_model(tmp_path):
  row = dict(kind="open", prompt="?", answer="so", language="en", data={})
  files.write_rows(tmp_path / "x.jsonl", [row])
  [problem] = problem_files.read(tmp_path / "x.jsonl")
  assert problem.answer == "so"


@pytest.mark.parametrize(
  ("row", "message"),
  [
    (dict(kind="math", answer="\\frac{"), "x.jsonl:1: .*frac.*cannot be read"),
    (dict(kind="choice", answer="Q"), "x.jsonl:1: .*none of the letters"),
    (
      dict(kind="choice", answer="A", data={"options": {"A": "x"}}),
      "x.jsonl:1: .*list of texts",
    ),
    (dict(kind="bad_verifiers:verify", answer="x"), "x.jsonl:1: .*x.* wrong"),
    (
      dict(kind="bad_verifiers:breaks", answer="x"),
      "x.jsonl:1: .*verifier_failed",
    ),
    (dict(kind="bad_verifiers:ends", answer="x"), "x.jsonl:1: .*verifier_died"),
    (dict(kind="code", answer="", data={"tests": []}), "x.jsonl:1: .*tests"),
    (dict(kind="exact", answer=" "), "x.jsonl:1: .*answer is empty"),
    (
      dict(kind="code", answer="", data={"tests": [], "limits": [1]}),
      "x.jsonl:1: .*limits must map",
    ),
    (dict(kind="logic", answer="1"), 'x.jsonl:1: .*no "dataset"'),
  ],
)
def test_gold_that_cannot_be_judged_is_told_beforehand(tmp_path, row, message):
  whole = dict(prompt="?", language="en", data={}) | row
  files.write_rows(tmp_path / "x.jsonl", [whole])
  with pytest.raises(UserError, match=message):
    problem_files.read(tmp_path / "x.jsonl")
