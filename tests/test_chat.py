"""A conversation, with a model that is told what to say."""

import io

import pytest

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

  template = None


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
