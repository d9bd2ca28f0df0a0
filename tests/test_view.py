"""Words wrapped at the width of a terminal."""

import io
import random
import textwrap

import pytest

from tools import view


class Terminal(io.StringIO):
  def isatty(self):
    return True


def wrapped(text, width, pieces=1):
  wrap = view.Wrap(width)
  parts = [text[i : i + pieces] for i in range(0, len(text), pieces)]
  return "".join(wrap.push(part) for part in parts) + wrap.flush()


@pytest.mark.parametrize("pieces", [1, 3, 1000])
def test_lines_end_between_words(pieces):
  rng = random.Random(0)
  words = ["x" * rng.randint(1, 9) for _ in range(200)]
  text = " ".join(words)
  lines = wrapped(text, 20, pieces).split("\n")
  assert all(len(line) <= 20 for line in lines)
  assert " ".join(line.strip() for line in lines).split() == words
  # As many lines as the library needs, which sees all of the text at once.
  assert len(lines) == len(textwrap.wrap(text, 20))


def test_lines_of_the_text_and_their_indents_stay():
  text = "a list:\n\n  - one\n  - two\n"
  assert wrapped(text, 40) == text


def test_a_word_longer_than_a_line_is_not_lost():
  text = "ab " + "c" * 25 + " de"
  assert wrapped(text, 10).replace("\n", "").replace(" ", "") == (
    "ab" + "c" * 25 + "de"
  )


def test_wide_characters_take_two_columns():
  lines = wrapped("对" * 12, 10).split("\n")
  assert [len(line) for line in lines] == [5, 5, 2]
  assert view.columns("对a\u0301") == 3


def test_what_moves_the_cursor_is_not_printed():
  out = Terminal()
  shown = view.View(out)
  shown.show("a\x1b]0;title\x07 b\rc")
  shown.end()
  text = out.getvalue().replace(view.PLAIN, "")
  assert "\x1b" not in text and "\r" not in text and "title" in text


def test_a_note_goes_when_the_answer_comes():
  out = Terminal()
  shown = view.View(out)
  shown.note("compiling ...")
  shown.show("hi")
  shown.end("2 tokens")
  text = out.getvalue()
  assert text.startswith("compiling ...\r\x1b[Khi")
  assert "2 tokens" in text
  plain = io.StringIO()
  shown = view.View(plain)
  shown.note("compiling ...")
  shown.show("hi")
  shown.end("2 tokens")
  assert plain.getvalue() == "hi\n"
