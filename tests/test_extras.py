"""A missing extra is named, with the command that installs it."""

import sys

import pytest
from ml_collections import ConfigDict

from r1jax import extras, verifiers
from r1jax.data import gym, problem_files
from r1jax.errors import BadProblem, UserError
from r1jax.hf import gguf
from r1jax.run import report
from r1jax.types import Problem


@pytest.fixture
def missing(monkeypatch):
  """Makes a package look as if it were not installed."""

  def hide(package):
    for name in [n for n in sys.modules if n.split(".")[0] == package]:
      monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)

  return hide


def test_a_module_that_is_there():
  assert extras.need("reasoning_gym").create_dataset


def test_reasoning_gym(missing):
  missing("reasoning_gym")
  with pytest.raises(UserError, match=r'reasoning_gym is not.*"\.\[gym\]"'):
    gym.make_problems({"gcd": ConfigDict()}, 0, 1, 1, 0)
  data = {"dataset": "gcd", "parameters": {}, "metadata": {}}
  problem = Problem("1", "logic", "?", "1", "en", data)
  # Not a `BadProblem`, of which a run would leave out all.
  with pytest.raises(UserError, match=r'"\.\[gym\]"') as error:
    verifiers.verify(problem, "<answer> 1 </answer>")
  assert not isinstance(error.value, BadProblem)


def test_gguf(missing, tmp_path):
  missing("gguf")
  with pytest.raises(UserError, match=r'gguf is not installed.*"\.\[gguf\]"'):
    gguf.convert(tmp_path / "x.gguf", tmp_path / "out")


@pytest.mark.parametrize(
  ("package", "extra", "name"),
  [
    ("pyarrow", "parquet", "x.parquet"),
    ("datasets", "datasets", "saved/state.json"),
    ("datasets", "datasets", "hub/train.jsonl"),
    ("tensorflow_datasets", "tfds", "1.0.0/features.json"),
  ],
)
def test_formats_of_data(missing, tmp_path, package, extra, name):
  missing(package)
  path = tmp_path / name
  path.parent.mkdir(exist_ok=True)
  path.write_text("{}")
  place = path.parent if "/" in name else path
  with pytest.raises(UserError, match=rf'{package} is not.*"\.\[{extra}\]"'):
    problem_files.read(place, verifier="math")


def test_plot(missing, tmp_path):
  missing("matplotlib")
  with pytest.raises(UserError, match=r'matplotlib is not.*"\.\[plot\]"'):
    report.plot(tmp_path, ("zero",), tmp_path / "report.png")


def test_what_is_broken_is_not_missing(monkeypatch):
  def fail(name):
    raise ModuleNotFoundError("No module named 'six'", name="six")

  monkeypatch.setattr(extras.importlib, "import_module", fail)
  with pytest.raises(ModuleNotFoundError, match="six"):
    extras.need("matplotlib.figure")
