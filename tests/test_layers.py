"""Imports run downward only; this walks them."""

import ast
from pathlib import Path

import pytest

from r1jax.text import think_format

ROOT = Path(__file__).parents[1]

# From the bottom up. A module may import what is below it, and what shares
# its layer where that is not circular.
LAYERS = (
  (
    "r1jax.arguments",
    "r1jax.checks",
    "r1jax.config",
    "r1jax.disk",
    "r1jax.errors",
    "r1jax.extras",
    "r1jax.types",
  ),
  (
    "r1jax.corrections",
    "r1jax.files",
    "r1jax.hosts",
    "r1jax.kept",
    "r1jax.losses",
    "r1jax.means",
    "r1jax.meshes",
    "r1jax.objects",
    "r1jax.scores",
    "r1jax.sharding",
    "r1jax.stopping",
    "r1jax.text",
    "r1jax.variants",
  ),
  ("r1jax.verifiers",),
  ("r1jax.model", "r1jax.rewards"),
  (
    "r1jax.data",
    "r1jax.hf",
    "r1jax.origin",
    "r1jax.run",
    "r1jax.sampling",
    "r1jax.training",
  ),
  ("r1jax.language_model", "r1jax.phases"),
  ("r1jax.cli", "r1jax.describe"),
  ("experiments", "tools"),
)
# Wings of one floor between which there is no door.
APART = (("r1jax.sampling", "r1jax.training"),)
FILES = sorted(
  path
  for top in ("r1jax", "experiments", "tools", "configs")
  for path in (ROOT / top).rglob("*.py")
)


def module_name(path):
  """r1jax/training/packing.py -> r1jax.training.packing."""
  parts = path.relative_to(ROOT).with_suffix("").parts
  return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(p): p for p in FILES}


def layer(module):
  """Index and entry of the layer of a module; None for the bare package."""
  for i, entries in enumerate(LAYERS):
    for entry in entries:
      if module == entry or module.startswith(entry + "."):
        return i, entry
  return None


def imports(path):
  """The modules that a file imports anywhere, functions included."""
  found = set()
  for node in ast.walk(ast.parse(path.read_text())):
    if isinstance(node, ast.Import):
      found |= {alias.name for alias in node.names}
    elif isinstance(node, ast.ImportFrom):
      assert node.level == 0, f"{path}: relative import"
      for alias in node.names:
        inner = f"{node.module}.{alias.name}"
        # `from r1jax.data import packing` names a module, not a symbol.
        found.add(inner if inner in MODULES else node.module)
  return found


def ours(path):
  """Of `imports`, those of this repository."""
  tops = ("r1jax", "experiments", "tools", "configs")
  return {m for m in imports(path) if m.split(".")[0] in tops}


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_imports_run_downward(path):
  name = module_name(path)
  if name == "r1jax" or name.startswith("configs"):
    return
  assert layer(name), f"{name} has no layer; give it one in LAYERS"
  level, entry = layer(name)
  for other in ours(path):
    assert other != "r1jax", f"{name}: import the module, not the package"
    assert layer(other), f"{name} imports {other}, which has no layer"
    other_level, other_entry = layer(other)
    assert other_level <= level, f"{name} imports {other}, from above"
    for pair in APART:
      assert {entry, other_entry} != set(pair), f"{name} imports {other}"


def test_no_import_is_circular():
  graph = {name: ours(path) & set(MODULES) for name, path in MODULES.items()}
  done, trail = set(), []

  def visit(name):
    assert name not in trail, " -> ".join([*trail, name])
    if name in done:
      return
    trail.append(name)
    for other in graph[name]:
      visit(other)
    trail.pop()
    done.add(name)

  for name in graph:
    visit(name)


def test_config_dicts_are_read_in_one_place():
  """There they become dataclasses; nothing else sees one."""
  readers = {
    name
    for name, path in MODULES.items()
    if not name.startswith("configs")
    and ("ConfigDict" in path.read_text() or "ml_collections" in imports(path))
  }
  assert readers == {"experiments.plan"}


def test_configs_import_nothing_of_the_project():
  for name, path in MODULES.items():
    if name.startswith("configs"):
      project = {m for m in ours(path) if not m.startswith("configs")}
      assert not project, f"{name} imports {project}"


def test_text_verifiers_and_rewards_are_plain_python():
  for name, path in MODULES.items():
    if name.startswith(("r1jax.text", "r1jax.verifiers", "r1jax.rewards")):
      tops = {m.split(".")[0] for m in imports(path)}
      assert not tops & {"jax", "flax", "optax", "tensorflow"}, name


def test_only_text_spells_the_tags():
  for name, path in MODULES.items():
    if not name.startswith("r1jax.text"):
      text = path.read_text()
      said = [tag for tag in think_format.TAGS if tag in text]
      assert not said, f"{name} spells {said}; ask r1jax.text.think_format"


def test_losses_see_no_model_config_or_mesh():
  equations = {"r1jax.corrections", "r1jax.losses", "r1jax.means"}
  checks = {"r1jax.arguments", "r1jax.errors"}
  for name in equations:
    assert ours(MODULES[name]) <= checks
  assert ours(MODULES["r1jax.variants"]) == equations | checks
  for name in (*equations, "r1jax.variants"):
    assert "ml_collections" not in imports(MODULES[name])


def test_only_hosts_asks_which_process_this_is():
  words = ("process_index", "process_count", "multihost_utils")
  for name, path in MODULES.items():
    if name != "r1jax.hosts":
      text = path.read_text()
      assert not [w for w in words if w in text], f"{name}: use r1jax.hosts"


def test_there_is_no_drawer_for_odds_and_ends():
  assert not [p for p in FILES if p.stem in ("utils", "util", "misc")]
