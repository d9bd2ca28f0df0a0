"""The view of an answer in a terminal: words wrapped, the thinking dimmed."""

import re
import shutil
import sys
import unicodedata

from r1jax.text import think_format

DIM, PLAIN = "\x1b[2m", "\x1b[0m"
# Carriage return, and the rest of the line cleared.
_CLEAR = "\r\x1b[K"
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


class View:
  """Prints a growing text. What is no terminal gets the text as it is.

  Args:
    out: where to print.
    thinking: whether the prompt ends with the opening think tag.

  Attributes:
    thinking: whether the text so far ends inside of the thinking.
  """

  def __init__(self, out=sys.stdout, thinking=False):
    self._out, self._shown, self._note = out, 0, ""
    self.thinking = thinking
    self._before = think_format.THINK if thinking else ""
    self._terminal = out.isatty()
    self._wrap = Wrap(shutil.get_terminal_size().columns)
    if thinking:
      self._code(DIM)

  def note(self, text):
    """Shows a text on a terminal until the answer begins."""
    if self._terminal:
      self._note = text
      self._out.write(text)
      self._out.flush()

  def show(self, text):
    """Prints what is new of a text that only grows."""
    self._unnote()
    # The end of a character that is not whole yet.
    text = text.rstrip("\ufffd")
    new, self._shown = text[self._shown :], max(self._shown, len(text))
    was = self.thinking
    self.thinking = think_format.is_open(self._before + text)
    if self.thinking and not was:
      self._code(DIM)
    if self._terminal:
      # What a model wrote must not move the cursor or do worse.
      new = self._wrap.push(_CONTROL.sub("\ufffd", new))
    self._out.write(new)
    if was and not self.thinking:
      self._flush_word()
      self._code(PLAIN)
    self._out.flush()

  def end(self, facts=""):
    """Ends the line and the colour.

    Args:
      facts: of the answer, which a terminal shows below it.
    """
    self._unnote()
    self._flush_word()
    self._code(PLAIN)
    self._out.write("\n")
    if facts and self._terminal:
      self._out.write(f"{DIM}{facts}{PLAIN}\n")
    self._out.flush()

  def _unnote(self):
    if self._note:
      self._out.write(_CLEAR)
    self._note = ""

  def _flush_word(self):
    if self._terminal:
      self._out.write(self._wrap.flush())

  def _code(self, code):
    if self._terminal:
      self._out.write(code)


class Wrap:
  """Breaks lines between words, for a text that comes in pieces.

  Args:
    width: columns of the terminal.
  """

  def __init__(self, width):
    # A terminal wraps by itself only after its last column.
    self._width, self._column, self._word = max(width, 2), 0, ""

  def push(self, text):
    """What to print of the text so far; the last word waits for its end."""
    out = []
    for part in re.findall(r"\n|[^\S\n]|[^\s]", text):
      if part == "\n":
        out += [self.flush(), part]
        self._column = 0
      elif part.isspace():
        out.append(self.flush())
        # At the end of a line a space is the line break.
        if self._column + 1 < self._width:
          out.append(" " if part == "\t" else part)
          self._column += 1
        else:
          out.append("\n")
          self._column = 0
      elif columns(part) > 1:
        # Between characters of two columns a line may break anywhere.
        out += [self.flush(), self._put(part)]
      else:
        self._word += part
    return "".join(out)

  def flush(self):
    """What to print of the word that waits."""
    word, self._word = self._word, ""
    return self._put(word)

  def _put(self, word):
    size = columns(word)
    before = ""
    if self._column and self._column + size > self._width:
      before, self._column = "\n", 0
    self._column += size
    if self._column > self._width:  # the terminal breaks such a word
      self._column %= self._width
    return before + word


def columns(text):
  """How many columns a text takes in a terminal."""
  wide = sum(unicodedata.east_asian_width(c) in "WF" for c in text)
  flat = sum(unicodedata.combining(c) > 0 for c in text)
  return len(text) + wide - flat
