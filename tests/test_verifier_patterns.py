"""Every regular expression of the verifiers takes linear time.

Each pattern gets strings made from itself: each of its parts, and what stands
before that part, repeated up to 4,000 and up to 40,000 characters. Ten times
the text may take 25 times the time; a quadratic pattern takes a hundred times.
"""

import ast
import importlib
import pkgutil
import re
import time
from pathlib import Path

import pytest

import r1jax.verifiers

parser = re._parser
# Small sizes first, since what is cubic or worse would never end.
SIZES, FACTOR = ((12, 24), (40, 400), (400, 4000), (4000, 40_000)), 25
# Seconds below which a time says nothing.
NOTHING = 0.02
FUNCTIONS = ("sub", "subn", "search", "match", "fullmatch", "findall",
             "finditer", "split", "compile")  # fmt: skip


def patterns():
  """{name: pattern} of constants, and of texts that functions are given."""
  found = {}
  for info in pkgutil.walk_packages(
    r1jax.verifiers.__path__, "r1jax.verifiers."
  ):
    module = importlib.import_module(info.name)
    for name, value in vars(module).items():
      for i, pattern in enumerate(inside(value)):
        if pattern.pattern not in {p.pattern for p in found.values()}:
          found[f"{info.name[16:]}.{name}[{i}]"] = pattern
    tree = ast.parse(Path(module.__file__).read_text())
    for node in ast.walk(tree):
      if is_call_of_re(node) and isinstance(node.args[0], ast.Constant):
        pattern = re.compile(node.args[0].value)
        if pattern.pattern not in {p.pattern for p in found.values()}:
          found[f"{info.name[16:]}:{node.lineno}"] = pattern
  return found


def is_call_of_re(node):
  return (
    isinstance(node, ast.Call) and node.args
    and isinstance(node.func, ast.Attribute) and node.func.attr in FUNCTIONS
    and isinstance(node.func.value, ast.Name) and node.func.value.id == "re"
  )  # fmt: skip


def inside(value):
  if isinstance(value, re.Pattern):
    return [value]
  if isinstance(value, dict):
    value = list(value.values())
  if isinstance(value, list | tuple):
    return [p for x in value for p in inside(x)]
  return []


def sample(nodes):
  """A string that a sequence of the parser's nodes matches, or almost."""
  return "".join(map(sample_of, nodes))


def sample_of(node):
  kind, value = node
  name = str(kind)
  if name == "LITERAL":
    return chr(value)
  if name == "NOT_LITERAL":
    return "x" if value != ord("x") else "y"
  if name == "ANY":
    return "x"
  if name == "IN":
    return member(value)
  if name in ("MAX_REPEAT", "MIN_REPEAT", "POSSESSIVE_REPEAT"):
    return sample(value[2]) * max(1, min(value[0], 5))
  if name == "SUBPATTERN":
    return sample(value[-1])
  if name == "ATOMIC_GROUP":
    return sample(value)
  if name == "BRANCH":
    return sample(value[1][0])
  return ""


def member(choices):
  """A character of a set."""
  candidates = " 1xA,.-\\{}()$^_a:=\n\"'\u3000" + "".join(
    chr(v if isinstance(v, int) else v[0])
    for kind, v in choices
    if str(kind) in ("LITERAL", "RANGE")
  )
  for c in candidates:
    if accepted(choices, c):
      return c
  return "x"


CATEGORIES = {
  "CATEGORY_DIGIT": str.isdigit, "CATEGORY_SPACE": str.isspace,
  "CATEGORY_WORD": lambda c: c.isalnum() or c == "_",
}  # fmt: skip


def accepted(choices, c):
  negated, found = False, False
  for kind, value in choices:
    name = str(kind)
    if name == "NEGATE":
      negated = True
    elif name == "LITERAL":
      found |= ord(c) == value
    elif name == "RANGE":
      found |= value[0] <= ord(c) <= value[1]
    elif name == "CATEGORY":
      category = str(value)
      if category in CATEGORIES:
        found |= CATEGORIES[category](c)
      else:
        found |= not CATEGORIES[category.replace("_NOT", "")](c)
  return found != negated


def units(nodes, before=""):
  """(what stands before, what is repeated) for each part of a pattern."""
  made = []
  for node in nodes:
    text = sample_of(node)
    made += [("", text), (before, text), ("", before + text)]
    name, value = str(node[0]), node[1]
    if "REPEAT" in name:
      made += units(value[2], before)
      made.append((before, sample(value[2])))
    elif name == "SUBPATTERN":
      made += units(value[-1], before)
    elif name == "ATOMIC_GROUP":
      made += units(value, before)
    elif name == "BRANCH":
      for branch in value[1]:
        made += units(branch, before)
        made.append((before, sample(branch)))
    before += text
  return list(dict.fromkeys(made))


def seconds(pattern, text):
  if isinstance(pattern.pattern, bytes):
    text = text.encode(errors="replace")
  begin = time.thread_time()
  for _ in pattern.finditer(text):
    pass
  return time.thread_time() - begin


def slow_text(pattern, most, sizes=SIZES):
  """(seconds short, seconds long, text) that takes more than linear time."""
  tree = parser.parse(pattern.pattern, pattern.flags & ~re.UNICODE)
  pairs = [(b, u) for b, u in units(tree) if u]
  step = max(1, len(pairs) // most)
  for before, unit in pairs[::step]:
    for tail in ("", "\0"):
      for short, long in sizes:
        times = [
          seconds(pattern, before + unit * max(1, n // len(unit)) + tail)
          for n in (short, long)
        ]
        if times[1] > max(NOTHING, times[0] * FACTOR * long / short / 10):
          return *times, before, unit, tail
  return None


def check(most, sizes):
  found = patterns()
  assert len(found) > 60
  slow = {
    name: text
    for name, pattern in found.items()
    if (text := slow_text(pattern, most, sizes))
  }
  assert not slow, "\n".join(f"{k}: {v}" for k, v in slow.items())


def test_the_check_finds_what_is_quadratic():
  for pattern in (r"\s+$", r"(?:x+)+y", r"\{[^}]*\}x", "a.*b"):
    assert slow_text(re.compile(pattern), 20), pattern
  for pattern in (r"\s{0,9}$", r"a b", r"[a-z]{1,20}\d"):
    assert not slow_text(re.compile(pattern), 5), pattern


def test_patterns_take_linear_time():
  check(8, SIZES[:3])


@pytest.mark.slow
def test_patterns_take_linear_time_on_long_texts():
  check(60, SIZES)
