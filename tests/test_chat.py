"""A conversation, with a model that is told what to say."""

import io
import os
import select
import subprocess
import sys
import time

import pytest
import tiny_models

from tools import chat, view


class Words:
  """A tokenizer of characters; 0 ends a turn."""

  end_ids = (0,)

  def encode(self, text):
    return [ord(c) for c in text]

  encode_rest = encode

  def decode(self, ids):
    return "".join(map(chr, ids))

  def template(self):
    return self

  def render(self, messages, think=False):
    self.seen = messages
    return "".join(f"[{m['content']}]" for m in messages) + "<think>" * think


class Terminal(io.StringIO):
  def isatty(self):
    return True


class Plain(Words):
  """The same without a chat template."""

  has_template = False


def converse(monkeypatch, script, lines, *flags, out=None, words=None):
  """Runs a chat whose model says the next text of `script` each turn."""
  script, lines = iter(script), iter(lines)

  def stream(model, params, prompt, *args, **kwargs):
    words.prompts.append("".join(map(chr, prompt)))
    for step in next(script):
      if step is KeyboardInterrupt:
        raise KeyboardInterrupt
      token = ord(step)
      while (other := (yield token)) is not None:
        token = other

  def read(prompt):
    line = next(lines, None)
    if line is None:
      raise EOFError
    return line

  monkeypatch.setattr(chat, "stream", stream)
  monkeypatch.setattr("builtins.input", read)
  words, out = words or Words(), out or io.StringIO()
  words.prompts = []
  args = chat.parse(["--checkpoint=x", *flags])
  chat.Chat(args, None, None, words, out).run()
  return words.seen, out.getvalue()


def test_an_answer_ends_at_its_token_and_is_remembered(monkeypatch):
  seen, text = converse(monkeypatch, ["hello\0more", "b\0"], ["hi", "again"])
  assert text == "hello\nb\n\n"
  assert [m["content"] for m in seen] == ["hi", "hello", "again"]


def test_history_keeps_what_follows_the_thinking(monkeypatch):
  script = ["<think>long</think>\n\nshort\0", "b\0"]
  seen, text = converse(monkeypatch, script, ["hi", "again"])
  assert "long" in text
  assert [m["content"] for m in seen] == ["hi", "short", "again"]


def test_new_forgets_and_exit_ends(monkeypatch):
  seen, _ = converse(
    monkeypatch, ["a\0", "b\0"], ["one", "/new", "two", "/exit", "three"],
    "--system=s",
  )  # fmt: skip
  assert [m["content"] for m in seen] == ["s", "two"]


def test_ctrl_c_stops_the_answer_only(monkeypatch):
  script = [["h", "a", KeyboardInterrupt], "b\0"]
  seen, text = converse(monkeypatch, script, ["one", "two"])
  assert text == "ha\nb\n\n"
  assert [m["content"] for m in seen] == ["one", "ha", "two"]


def test_thinking_is_dimmed_in_a_terminal(monkeypatch):
  _, text = converse(
    monkeypatch, ["<think>t</think>a\0"], ["hi"], out=Terminal()
  )
  dim = text.index(view.DIM)
  assert (
    dim
    <= text.index("t</think>")
    < text.index(view.PLAIN)
    < text.index("a\x1b")
  )
  _, text = converse(
    monkeypatch, ["t</think>a\0"], ["hi"], "--think", out=Terminal()
  )
  assert text.startswith(view.DIM) and text.index("t</") < text.index(
    view.PLAIN
  )


@pytest.mark.parametrize("think", [True, False])
def test_the_budget_closes_the_thinking(monkeypatch, think):
  script = ["" if think else "<think>"]
  script[0] += "thinking on and on and on and on and on\0"
  flags = ["--think"] if think else []
  _, text = converse(monkeypatch, script, ["hi"], "--think_budget=12", *flags)
  said = script[0][:12]
  assert text.startswith(f"{said}\n</think>\n\n")
  # Said is what was put in place, and after it the model goes on.
  assert text.rstrip().endswith("on") and text.count("</think>") == 1


@pytest.mark.parametrize("think", [True, False])
@pytest.mark.parametrize("end", ["", KeyboardInterrupt])
def test_thinking_that_is_cut_answers_nothing(monkeypatch, think, end):
  """By the limit, or by Ctrl-C: the model never came to an answer."""
  muses = [*("" if think else "<think>"), *"I muse and muse"]
  flags = ["--think"] if think else []
  seen, text = converse(
    monkeypatch, [muses + [end] * bool(end), "Hi\0"], ["one", "two"], *flags
  )
  assert [m["content"] for m in seen] == ["two"]
  assert "I muse and muse" in text and chat.NOT_KEPT in text


def test_thinking_that_ended_is_not_part_of_the_answer(monkeypatch):
  seen, text = converse(
    monkeypatch,
    ["I muse</think>Hi\0", "</think>b\0"],
    ["one", "two"],
    "--think",
  )
  assert [m["content"] for m in seen] == ["one", "Hi", "two"]
  assert chat.NOT_KEPT not in text


def test_commands_are_not_said_to_the_model(monkeypatch):
  words = Words()
  _, text = converse(
    monkeypatch, ["a\0"], ["/help", "/hepl", "/etc/hosts is what?"],
    words=words,
  )  # fmt: skip
  assert text.startswith(chat.HELP) and "/hepl is no command" in text
  assert words.prompts == ["[/etc/hosts is what?]"]


def test_without_a_template_each_line_is_continued(monkeypatch):
  words = Plain()
  words.seen = None
  _, text = converse(
    monkeypatch, [" there\0", " d\0"], ["hello", "a b c"], words=words
  )
  assert words.prompts == ["hello", "a b c"] and " there\n" in text


def test_a_terminal_shows_the_speed_and_that_it_compiles(monkeypatch):
  _, text = converse(
    monkeypatch, ["one\0", "two\0"], ["hi", "again"], out=Terminal()
  )
  assert text.count("compiling") == 1
  assert text.count("tokens/s") == 2 and "4 tokens, " in text


def test_an_error_of_one_turn_does_not_end_the_chat(monkeypatch):
  from r1jax.errors import UserError

  calls = iter([UserError("too long"), None])

  class Fails(Words):
    def render(self, messages, think=False):
      error = next(calls)
      if error:
        raise error
      return super().render(messages, think)

  monkeypatch.setattr(__import__(__name__), "Words", Fails)
  _, text = converse(monkeypatch, ["fine\0"], ["one", "two"])
  assert text == "error: too long\nfine\n\n"


class Pty:
  """A program in a terminal of 40 columns."""

  # In a process of its own: JAX has threads, which a fork does not take along.
  SPAWN = (
    "import os, pty, sys;"
    "sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))"
  )

  def __init__(self, *command):
    self._process = subprocess.Popen(
      [sys.executable, "-c", self.SPAWN, *command],
      stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0,
      env=os.environ | {"COLUMNS": "40"},
    )  # fmt: skip
    self._read = b""

  def write(self, text):
    self._process.stdin.write(text.encode())

  def until(self, text, seconds=240):
    """What it prints until a text comes, and that text."""
    end = time.monotonic() + seconds
    while text.encode() not in self._read:
      assert time.monotonic() < end, self._read
      if select.select([self._process.stdout], [], [], 1)[0]:
        self._read += os.read(self._process.stdout.fileno(), 4096)
    out, _, self._read = self._read.partition(text.encode())
    return out.decode(errors="replace") + text

  def close(self):
    """Its exit status."""
    with self._process as process:
      return process.wait(60)


@pytest.mark.slow
def test_a_chat_in_a_terminal(tmp_path):
  """Lines are edited, answers wrapped, Ctrl-C stops the answer only."""
  model = tiny_models.hf_directory(tmp_path / "model")
  chat_ = Pty(
    sys.executable, "-m", "tools.chat", f"--checkpoint=hf:{model}",
    "--max_new_tokens=40",
  )  # fmt: skip
  chat_.until("> ")
  # Backspace and Ctrl-A: the line that counts is "/help".
  chat_.write("helpx\x7f\x01/\n")
  assert "Ctrl-C  stops an answer" in chat_.until("earlier ones.")
  chat_.until("> ")
  chat_.write("a word\n")
  said = chat_.until("tokens/s")
  assert "compiling ..." in said
  answer = said.partition("\x1b[K")[2].partition("\x1b[")[0]
  lines = answer.replace("\r", "").split("\n")
  assert all(view.columns(line) <= 40 for line in lines if " " in line)
  chat_.until("> ")
  # Ctrl-C at the prompt, then the line before comes back and is replaced.
  chat_.write("\x03")
  assert "/exit ends" in chat_.until("> ")
  chat_.write("\x1b[A\x15/exit\n")
  chat_.until("/exit")
  assert chat_.close() == 0
