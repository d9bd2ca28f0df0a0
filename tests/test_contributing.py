"""The recipes of CONTRIBUTING.md work: applied to a copy, their tests pass."""

import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FENCE = re.compile(r"^( *)```(\w+)\n(.*?)^ *```$", re.M | re.S)


def recipes():
  """Title -> the code blocks of a recipe, as (language, text)."""
  text = (ROOT / "CONTRIBUTING.md").read_text()
  found = {}
  for section in text.split("\n## ")[1:]:
    blocks = [
      (language, textwrap.dedent(code))
      for _, language, code in FENCE.findall(section)
    ]
    found[section.splitlines()[0]] = blocks
  return found


RECIPES = recipes()


def apply(copy, language, text):
  """Does to a copy of the repository what a block says; returns new tests."""
  first, _, rest = text.partition("\n")
  if language == "diff":
    path = copy / first.removeprefix("--- ")
    lines = rest.splitlines()
    old = "".join(f"{x[1:]}\n" for x in lines if not x.startswith("+"))
    new = "".join(f"{x[1:]}\n" for x in lines if not x.startswith("-"))
    whole = path.read_text()
    assert whole.count(old) == 1, f"{path.name} has not:\n{old}"
    path.write_text(whole.replace(old, new))
    return []
  named = re.match(r"# (\S+\.py)( \+)?$", first)
  if not named:
    return []
  path = copy / named[1]
  if named[2]:
    path.write_text(f"{path.read_text()}\n\n{rest}")
    return []
  assert not path.exists(), f"{named[1]} is there already"
  path.write_text(rest)
  return [named[1]] if named[1].startswith("tests/") else []


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
  path = tmp_path_factory.mktemp("copy")
  for name in ("r1jax", "tests", "experiments", "configs", "tools"):
    ignore = shutil.ignore_patterns("__pycache__", "*.jsonl")
    shutil.copytree(ROOT / name, path / name, ignore=ignore)
  shutil.copy(ROOT / "pyproject.toml", path)
  return path


def test_there_are_recipes():
  assert len(RECIPES) == 5 and all(RECIPES.values())


def test_recipes(copy):
  """All at once: what one of them changes must not hinder another."""
  tests = [
    test
    for blocks in RECIPES.values()
    for block in blocks
    for test in apply(copy, *block)
  ]
  assert len(tests) == len(RECIPES)
  done = subprocess.run(
    [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests],
    cwd=copy, env={"PYTHONPATH": str(copy), "PATH": "/usr/bin:/bin"},
    capture_output=True, text=True,
  )  # fmt: skip
  assert done.returncode == 0, done.stdout[-3000:]
  help_ = [sys.executable, "-m", "experiments.launch", "--help-config=soup"]
  said = subprocess.run(help_, cwd=copy, capture_output=True, text=True)
  assert "share: a finite number = 0.5" in said.stdout, said.stderr
