"""README, CONTRIBUTING and docs/: whatever they say can be done."""

import importlib
import itertools
import json
import re
import shlex
import tomllib
from pathlib import Path

import jax
import pytest
from absl import flags
from hf_files import write_tokenizer

from experiments import commandline, overrides, plan
from r1jax import config, hf
from r1jax import model as model_lib
from r1jax.data import sources
from r1jax.extras import EXTRAS
from r1jax.meshes import MeshConfig
from r1jax.model import ModelConfig
from r1jax.phases import PHASES
from r1jax.rewards import score
from tools import docs

ROOT = Path(__file__).parents[1]
PAGES = sorted(
  [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")]
)
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.M | re.S)
# What an indented or a fenced line of a shell begins with.
COMMAND = re.compile(r"^    ((?:python|experiments/)\S* (?:.*\\\n)*.*)", re.M)
NAMED = re.compile(r"# (\S+\.py)\n")
PROBLEM = {
  "id": "1", "kind": "countdown", "language": "en", "answer": "3 * 7 + 8",
  "prompt": "User : make 29 from 3 7 8 . Assistant :",
  "data": {"numbers": [3, 7, 8], "target": 29},
}  # fmt: skip


def name_of(path):
  return str(path.relative_to(ROOT))


def blocks(path, *languages):
  """The fenced blocks of a page in one of the languages."""
  found = FENCE.findall(path.read_text())
  return [text for language, text in found if language in languages]


def commands(path):
  """Each command of a page, as a list of words."""
  lines = blocks(path, "sh", "bash") + COMMAND.findall(path.read_text())
  for line in "\n".join(lines).replace("\\\n", " ").splitlines():
    for both, command in itertools.groupby(
      shlex.split(line, comments=True), lambda word: word == "&&"
    ):
      if not both:
        yield list(command)


COMMANDS = [
  pytest.param(command, id=f"{path.stem}-{' '.join(command)[:60]}")
  for path in PAGES
  for command in commands(path)
]


def write_table(path):
  questions = [f"What is {i} + {i}?" for i in range(300)]
  rows = {"question": questions, "answer": [2 * i for i in range(300)]}
  arrow = importlib.import_module("pyarrow")
  importlib.import_module("pyarrow.parquet").write_table(
    arrow.table(rows), path
  )


@pytest.fixture(scope="module")
def place(tmp_path_factory):
  """A directory with the files that the examples read."""
  path = tmp_path_factory.mktemp("docs")
  model = ModelConfig(
    vocab_size=640, d_model=16, n_layers=1, n_heads=2, n_kv_heads=1,
    head_dim=8, d_ff=16, max_length=2048,
  )  # fmt: skip
  hf.save(path / "smollm2", model, model_lib.init(model, jax.random.key(0)))
  write_tokenizer(path / "smollm2")
  words = [f"word{i % 97} is {i} ." for i in range(999)]
  (path / "my.txt").write_text("\n".join(words))
  for split in ("train", "test"):
    (path / f"{split}.jsonl").write_text(json.dumps(PROBLEM) + "\n")
  write_table(path / "all.parquet")
  for page in PAGES:
    for text in blocks(page, "python"):
      if named := NAMED.match(text):
        file = path / named[1]
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
  with pytest.MonkeyPatch.context() as patch:
    patch.chdir(path)
    exec(blocks(ROOT / "docs/start.md", "python")[0], {})  # makes my.model
    patch.syspath_prepend(str(path))
    patch.syspath_prepend(str(ROOT))
    yield path


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_python_blocks_run(page, place):
  namespace = {"__name__": "__main__"}
  for number, text in enumerate(blocks(page, "python"), 1):
    exec(compile(text, f"{page.name}, block {number}", "exec"), namespace)
  if "task" in namespace:
    keys = namespace["task"]
    assert config.convert(sources.Tasks, keys, "task").kind == keys["kind"]
  if "mesh" in namespace:
    config.build(MeshConfig, namespace["mesh"])
  if page.stem == "rewards":
    score.check_weights(namespace["rewards"], {"open"})


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_exist(command, place, capsys):
  check(command, capsys)


def check(command, capsys):
  """Checks that a program understands a command, without doing it."""
  head, *rest = command
  if head == "pip":
    assert rest[0] == "install"
    for extras in re.findall(r"\[(.*?)\]", " ".join(rest)):
      if "jax[" not in " ".join(rest):
        assert set(extras.split(",")) <= set(PROJECT["optional-dependencies"])
  elif head == "experiments/tpu.sh":
    assert (ROOT / head).exists()
    check(rest[2:], capsys)  # after NAME and ZONE
  elif head == "bash":
    assert rest[0] == ".ci/run" and (ROOT / rest[0]).exists()
    assert set(rest[1:]) <= parts_of_ci()
  elif head in ("python", "python3") and rest[:1] == ["-m"]:
    check_module(rest[1], rest[2:], capsys)
  elif head == "python":
    assert (ROOT / rest[0]).exists()
  else:
    assert head in (".", "git", "pre-commit"), head


def check_module(module, arguments, capsys):
  """Checks that `python -m module` knows its flags, files and config."""
  given = {a.partition("=")[0] for a in arguments if a.startswith("--")}
  if module == "venv":
    return
  if module == "pytest":
    files = [a for a in arguments if a.startswith("tests/")]
    assert all((ROOT / f.partition("::")[0]).exists() for f in files)
    return
  program = importlib.import_module(module)
  if module.startswith("experiments."):
    check_run(arguments)
  else:
    if not hasattr(program, "main"):
      program = importlib.import_module(f"{module}.__main__")
    words = list(itertools.takewhile(lambda a: a[0] != "-", arguments))
    with pytest.raises(SystemExit) as ended:
      program.main([*words, "--help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    assert all(flag in text for flag in given), text


def check_run(arguments):
  """Checks the flags, the config and the overrides of a run."""
  rest, keys = overrides.split(arguments)
  given = dict(
    argument.lstrip("-").split("=") for argument in rest if "=" in argument
  )
  for name in {a.lstrip("-").partition("=")[0] for a in rest}:
    assert name in flags.FLAGS or f"--{name}" == commandline.HELP
  if "config" in given and "N" not in keys.values():
    path = given["config"]
    root = ROOT if (ROOT / path.partition(":")[0]).exists() else Path()
    values = commandline.read(str(root / path), keys)
    assert plan.resolve(values, PHASES)


def everything():
  return "\n".join(page.read_text() for page in PAGES)


def parts_of_ci():
  """The names of the parts of .ci/run."""
  (line,) = re.findall(
    r"^parts=\((.*)\)$", (ROOT / ".ci" / "run").read_text(), re.M
  )
  return set(line.split())


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page):
  text = FENCE.sub("", page.read_text())
  for target in re.findall(r"\]\(([^)\s]+)\)", text):
    if target.startswith("https://"):
      continue
    file, _, anchor = target.partition("#")
    path = (page.parent / file).resolve() if file else page
    assert path.exists(), f"{page.name}: {target}"
    if anchor:
      assert anchor in anchors(path), f"{page.name}: {target}"


def anchors(path):
  """The anchors of a page's headings."""
  titles = re.findall(r"^#+ (.*)$", FENCE.sub("", path.read_text()), re.M)
  return {
    re.sub(r"[^\w -]", "", title).strip().lower().replace(" ", "-")
    for title in titles
  }


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_named_files_exist(page):
  text = FENCE.sub("", page.read_text())
  for path in re.findall(
    r"`((?:r1jax|tests|tools|configs|experiments)/[\w/.]*)", text
  ):
    # Names in capitals stand for any name.
    known = (ROOT / re.sub(r"/[A-Z]+\.py$", "", path)).exists()
    known = known or f"# {path}\n" in everything()
    assert known, f"{page.name}: {path}"


def test_generated_pages_are_up_to_date():
  for name, text in docs.pages().items():
    path = ROOT / "docs" / name
    assert path.read_text() == text, "run `python -m tools.docs`"


def test_readme_is_short():
  lines = (ROOT / "README.md").read_text().splitlines()
  assert len(lines) <= 150
  assert re.search(r"\d\.\d\d", "\n".join(lines[:10])), "a headline number"


def test_readme_has_the_table_of_the_results():
  (table,) = [b for b in blocks(ROOT / "README.md", "") if "pass@1" in b]
  results = (ROOT / "docs" / "results.md").read_text()
  assert "".join(f"    {line}\n" for line in table.splitlines()) in results


def test_every_page_is_in_the_site():
  index = (ROOT / "docs" / "index.rst").read_text()
  listed = re.findall(r"^   (\w+)$", index, re.M)
  assert sorted(listed) == sorted(p.stem for p in (ROOT / "docs").glob("*.md"))


def test_versions_are_pinned_once():
  extras = PROJECT["optional-dependencies"]
  (ruff,) = extras["lint"]
  hooks = (ROOT / ".pre-commit-config.yaml").read_text()
  assert re.findall(r'"(ruff==.*?)"', hooks) == [ruff, ruff]
  for name in ("lint", "types", "docs"):
    assert all("==" in requirement for requirement in extras[name])
  for package, extra in EXTRAS.items():
    (requirement,) = extras[extra]
    assert requirement.replace("-", "_").startswith(package)


def test_the_glossary_has_the_letters_of_the_code():
  said = re.findall(
    r"^  ([A-Z])  (\S.*)$", (ROOT / "r1jax/types.py").read_text(), re.M
  )
  rows = (ROOT / "docs/glossary.md").read_text()
  assert said
  for letter, axis in said:
    assert f"| {letter} | {axis} |" in rows


def test_the_workflow_runs_every_part():
  workflow = (ROOT / ".github/workflows/ci.yml").read_text()
  (matrix,) = re.findall(r"part: \[(.*)\]", workflow)
  assert set(matrix.split(", ")) == parts_of_ci()
