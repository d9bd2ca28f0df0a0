"""Every public function says the types of its arguments and its result."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = sorted((ROOT / "r1jax").rglob("*.py"))


def untyped(body, prefix=""):
  """The names of public functions and methods that lack a type."""
  for node in body:
    if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
      yield from untyped(node.body, f"{node.name}.")
    special = getattr(node, "name", "") in ("__init__", "__call__")
    if isinstance(node, ast.FunctionDef) and (
      special or not node.name.startswith("_")
    ):
      args = node.args.posonlyargs + node.args.args + node.args.kwonlyargs
      bare = [
        a.arg
        for a in args
        if a.annotation is None and a.arg not in ("self", "cls")
      ]
      # The result of __init__ is always None.
      if bare or (node.returns is None and node.name != "__init__"):
        yield f"{prefix}{node.name}({', '.join(bare)})"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_public_functions_are_typed(path):
  assert not list(untyped(ast.parse(path.read_text()).body))
