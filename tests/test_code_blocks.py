"""Fenced code beside another implementation of CommonMark."""

import random

import pytest

from r1jax.verifiers.code import blocks

markdown_it = pytest.importorskip("markdown_it")

CODE = [
  "x = 1",
  "def f(x):\n  return x",
  "s = '''\n``\n'''",
  "print('```')\n\n\nprint(2)",
  "# ~~\nprint(1)",
  "if x:\n\tpass\n# end",
]
MARKS = ["", "python", "py", "text", "cpp", "Python3", "sh", "json title=1"]
PLACES = [("", ""), (" ", " "), ("   ", "   "), ("> ", "> "), ("- ", "  ")]
PLACES += [("1. ", "   "), ("- a\n\n  ", "  "), ("1. a\n   ", "   ")]


def document(rng):
  """A text of paragraphs and fenced code, and nothing unusual."""
  parts = []
  for _ in range(rng.randrange(1, 6)):
    sign, size = rng.choice("`~"), rng.choice((3, 3, 4, 6))
    code = rng.choice(CODE)
    if sign == "`" and "```" in code:
      size = max(size, 4)
    first, rest = rng.choice(PLACES)
    mark = rng.choice(MARKS)
    space = " " if mark and rng.random() < 0.3 else ""
    lines = [sign * size + space + mark, *code.split("\n")]
    lines.append(sign * (size + rng.choice((0, 0, 2))))
    text = "\n".join(
      (first if not i else rest) + x for i, x in enumerate(lines)
    )
    parts += [rng.choice(["Some `code`:", "So 1 ~ 2.", "# Title"]), text]
  return "\n\n".join(parts) + "\n\nDone.\n"


def expected(text, language):
  """The rule of `blocks.fenced_code`, applied to the other's blocks."""
  marked = plain = None
  for token in markdown_it.MarkdownIt().parse(text):
    if token.type == "fence":
      if blocks._language(token.info) == language:
        marked = token.content
      elif not token.info.strip():
        plain = token.content
  return plain if marked is None else marked


@pytest.mark.parametrize("language", ["python", "cpp"])
def test_blocks_are_those_of_commonmark(language):
  rng = random.Random(0)
  for _ in range(500):
    text = document(rng)
    assert blocks.fenced_code(text, language) == expected(text, language), text
