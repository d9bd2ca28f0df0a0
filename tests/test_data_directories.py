"""Directories of data: Hugging Face, a hub's, TFDS, array_record."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest

from r1jax.data import problem_files, store
from r1jax.data.problem_files import Files
from r1jax.errors import UserError
from r1jax.types import Problem

SPLITS = {
  "train": [dict(q=f"{i}+1?", a=i + 1, extra=[i]) for i in range(4)],
  "test": [dict(q="9+1?", a=10, extra=[9])],
}
KEYS = dict(fields=dict(prompt="q", answer="a"), verifier="math")


def task(train="", test="", **keys):
  return Files(train=str(train), test=str(test), **(KEYS | keys))


def answers(t, split):
  return [q.problem.answer for q in t.questions(split)]


def check(place):
  """That both splits of a directory are read, by name and by default."""
  t = task(place, place)
  assert answers(t, "train") == ["1", "2", "3", "4"]
  assert answers(t, "test") == ["10"]
  other = task(f"{place}:test", f"{place}:train")
  assert answers(other, "train") == ["10"]
  assert answers(other, "test") == ["1", "2", "3", "4"]
  ids = [q.problem.id for q in t.questions("train")]
  assert len(set(ids)) == 4 and not any("/" in i for i in ids)
  with pytest.raises(UserError, match='no split "dev" here; splits: '):
    task(f"{place}:dev").questions("train")


@pytest.fixture(scope="module")
def datasets():
  return pytest.importorskip("datasets")


@pytest.fixture(scope="module")
def saved(datasets, tmp_path_factory):
  place = tmp_path_factory.mktemp("saved") / "sums"
  datasets.DatasetDict(
    {k: datasets.Dataset.from_list(v) for k, v in SPLITS.items()}
  ).save_to_disk(str(place))
  return place


def test_what_datasets_saved(saved):
  check(saved)
  # A directory of one split, as `Dataset.save_to_disk` writes it.
  assert answers(task(saved / "train", saved / "test"), "test") == ["10"]
  with pytest.raises(UserError, match='has no splits; leave ":x" out'):
    task(f"{saved / 'train'}:x").questions("train")


def test_rows_that_were_selected(datasets, tmp_path):
  rows = datasets.Dataset.from_list(SPLITS["train"]).select([3, 1])
  rows.save_to_disk(str(tmp_path / "d"))
  assert answers(task(tmp_path / "d"), "train") == ["4", "2"]


def test_labels_have_names(datasets, tmp_path):
  names = datasets.ClassLabel(names=["A", "B", "C"])
  features = {"q": datasets.Value("string"), "a": names}
  rows = [dict(q="which?", a=1), dict(q="which?", a=2)]
  datasets.Dataset.from_list(
    rows, features=datasets.Features(features)
  ).save_to_disk(str(tmp_path / "d"))
  t = task(tmp_path / "d", verifier="choice")
  assert answers(t, "train") == ["B", "C"]


def test_faults_of_a_saved_set(datasets, saved, tmp_path):
  broken = tmp_path / "broken"
  shutil.copytree(saved, broken)
  for file in (broken / "train").glob("*.arrow"):
    file.write_bytes(file.read_bytes()[:100])
  with pytest.raises(UserError, match=f"{broken}.*: cannot be read") as e:
    task(broken).questions("train")
  assert "\n" not in str(e.value)
  rows = [dict(q="1+1?", a="2"), dict(q="", a="2"), dict(q="x", a=None)]
  datasets.Dataset.from_list(rows).save_to_disk(str(tmp_path / "rows"))
  with pytest.raises(UserError) as e:
    task(tmp_path / "rows").questions("train")
  first, second = str(e.value).split("\n")
  assert "rows: row 2: the prompt" in first and "rows: row 3: " in second
  with pytest.raises(UserError, match='no column "b"; columns: q, a, extra'):
    task(saved, fields=dict(prompt="q", answer="b")).questions("train")


@pytest.fixture(scope="module")
def write_table():
  arrow = pytest.importorskip("pyarrow")
  parquet = pytest.importorskip("pyarrow.parquet")

  def write(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(arrow.Table.from_pylist(rows), path)

  return write


def test_a_directory_of_a_hub(datasets, write_table, tmp_path):
  train = SPLITS["train"]
  for part, rows in enumerate((train[:2], train[2:])):
    write_table(tmp_path / f"data/train-0000{part}-of-00002.parquet", rows)
  write_table(tmp_path / "data/test-00000-of-00001.parquet", SPLITS["test"])
  check(tmp_path)


def test_a_directory_of_lines(datasets, tmp_path):
  for split, rows in SPLITS.items():
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (tmp_path / f"{split}.jsonl").write_text(text)
  check(tmp_path)


def test_subsets(datasets, write_table, tmp_path):
  for subset in ("main", "other"):
    for split, rows in SPLITS.items():
      name = f"{subset}/{split}-00000-of-00001.parquet"
      write_table(tmp_path / name, rows)
  (tmp_path / "README.md").write_text(
    "---\nconfigs:\n"
    + "".join(
      f"- config_name: {subset}\n  data_files:\n"
      f"  - split: train\n    path: {subset}/train-*\n"
      f"  - split: test\n    path: {subset}/test-*\n"
      for subset in ("main", "other")
    )
    + "---\n"
  )
  check(tmp_path / "main")
  t = task(f"{tmp_path}:main", f"{tmp_path}:other/test")
  assert len(answers(t, "train")) == 4 and answers(t, "test") == ["10"]
  with pytest.raises(UserError, match="name one of its subsets.*main, other"):
    task(tmp_path).questions("train")


def test_one_split_is_not_both(datasets, write_table, tmp_path):
  write_table(tmp_path / "train-00000-of-00001.parquet", SPLITS["train"])
  assert len(answers(task("", tmp_path), "test")) == 4
  with pytest.raises(UserError, match="task.test: .* has one split"):
    task(tmp_path, tmp_path).load(None, None)


def test_an_empty_directory(datasets, tmp_path):
  with pytest.raises(UserError, match=f"{tmp_path}: "):
    task(tmp_path).questions("train")


def test_the_sets_of_a_run(tmp_path):
  problems = {
    split: [
      Problem(f"{split} {i}", "math", row["q"], str(row["a"]), "en", {"i": i})
      for i, row in enumerate(rows)
    ]
    for split, rows in SPLITS.items()
  }
  store.write_problems(tmp_path, "sums", problems)
  t = Files(train=str(tmp_path / "sums"), test=str(tmp_path / "sums"))
  for split, wanted in problems.items():
    assert [q.problem for q in t.questions(split)] == wanted
  file = tmp_path / "sums" / "train.array_record"
  assert problem_files.read(file) == problems["train"]


@pytest.fixture(scope="module")
def tfds_set(tmp_path_factory):
  """A set as TFDS writes it, without TensorFlow."""
  tfds = pytest.importorskip("tensorflow_datasets")
  root = tmp_path_factory.mktemp("tfds")

  class Sums(tfds.core.GeneratorBasedBuilder):
    """Sums."""

    VERSION = tfds.core.Version("1.0.0")
    # Else they are looked for in the package of this class.
    pkg_dir_path = root
    url_infos = {}

    def _info(self):
      text = tfds.features.Text()
      turns = tfds.features.Sequence({"role": text, "content": text})
      features = {"q": text, "a": np.int64, "turns": turns}
      return tfds.core.DatasetInfo(
        builder=self, features=tfds.features.FeaturesDict(features)
      )

    def _split_generators(self, manager):
      return {k: self._generate_examples(v) for k, v in SPLITS.items()}

    def _generate_examples(self, rows):
      for i, row in enumerate(rows):
        turn = {"role": "user", "content": f"{row['q']} ö"}
        yield i, {"q": row["q"], "a": row["a"], "turns": [turn]}

  Sums(data_dir=str(root), file_format="array_record").download_and_prepare()
  return root / "sums" / "1.0.0"


def test_a_set_of_tfds(tfds_set):
  t = task(tfds_set, tfds_set)
  # TFDS shuffles what it writes.
  assert sorted(answers(t, "train")) == ["1", "2", "3", "4"]
  assert answers(t, "test") == ["10"]
  above = task(tfds_set.parent, tfds_set.parent)
  assert answers(above, "test") == ["10"]
  with pytest.raises(UserError, match='no split "dev" here; splits: t'):
    task(f"{tfds_set}:dev").questions("train")
  with pytest.raises(UserError, match='no column "p"; columns: .*turns'):
    task(tfds_set, fields=dict(prompt="p")).questions("train")
  turns = task(tfds_set, fields=dict(prompt="turns", answer="a"))
  assert {q.problem.prompt for q in turns.questions("train")} == {
    f"{i}+1? ö" for i in range(4)
  }


def test_reading_tfds_needs_no_tensorflow(tfds_set):
  code = f"""
import sys
from r1jax.data import problem_files
found = problem_files.read(
  "{tfds_set}:test", fields=dict(prompt="q", answer="a"), verifier="exact"
)
assert [p.answer for p in found] == ["10"]
assert "tensorflow" not in sys.modules
"""
  subprocess.run([sys.executable, "-c", code], check=True)


def test_faults_of_a_set_of_tfds(tfds_set, tmp_path):
  broken = tmp_path / "sums" / "1.0.0"
  shutil.copytree(tfds_set, broken)
  for file in broken.glob("*train.array_record*"):
    file.write_bytes(file.read_bytes()[:100])
  with pytest.raises(UserError, match=f"{broken}.*: cannot be read") as e:
    task(broken).questions("train")
  assert "\n" not in str(e.value)
  (broken / "features.json").write_text("{")
  with pytest.raises(UserError, match=f"{broken}.*: cannot be read"):
    task(broken).questions("train")
