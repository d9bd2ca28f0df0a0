"""Talk to a model in a terminal.

  python -m tools.chat --checkpoint=DIR_OR_MODEL

DIR_OR_MODEL is a phase of a run, what tools.hf_import made, a Hugging Face
directory or a hub id. Ctrl-C stops the answer; Ctrl-D, or "/exit", ends the
conversation; "/new" begins another.
"""

import argparse
import sys

import jax

from r1jax import cli
from r1jax.errors import UserError
from r1jax.sampling.stream import stream
from r1jax.text import think_format
from tools import models

DIM, PLAIN = "\x1b[2m", "\x1b[0m"


def main(argv=None):
  """Reads a line, answers, and so on."""
  args = parse(argv)
  with cli.one_line_errors():
    cli.compilation_cache()
    model, params, tokenizer = models.load(args.checkpoint, args.dtype)
    if not hasattr(tokenizer, "template"):
      raise UserError(
        f"{args.checkpoint}: its tokenizer has no chat template; a chat needs"
        " the tokenizer of a Hugging Face directory"
      )
    Chat(args, model.config, params, tokenizer).run()


def parse(argv):
  """The arguments of the command line."""
  parser = argparse.ArgumentParser(
    prog="tools.chat",
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  add = parser.add_argument
  add("--checkpoint", required=True, help="whom to talk to")
  add("--dtype", help="of the parameters; default as stored")
  # The values that R1 ships with.
  add("--temperature", type=float, default=0.6, help="0 is greedy; 0.6")
  add("--top_p", type=float, default=0.95, help="0.95")
  add("--max_new_tokens", type=int, default=1024, help="of an answer; 1024")
  add("--think", action="store_true", help="prefill the opening tag")
  add(
    "--think_budget",
    type=int,
    default=0,
    help="tokens of thinking, after which it is closed; 0 is no limit",
  )
  add("--system", help="a system message; R1 wants none")
  add("--seed", type=int, default=0)
  return parser.parse_args(argv)


class Chat:
  """A conversation.

  Args:
    args: of the command line.
    model, params, tokenizer: who answers.
    out: where the answers go.
  """

  def __init__(self, args, model, params, tokenizer, out=sys.stdout):
    self._args, self._model, self._params = args, model, params
    self._tokenizer, self._out = tokenizer, out
    self._template = tokenizer.template()
    self._key = jax.random.key(args.seed)
    self._turn = 0
    self._close = tokenizer.encode_rest(f"\n{think_format.END_THINK}\n\n")
    self._new()

  def run(self):
    """Until the input ends."""
    while True:
      try:
        line = input("> ").strip()
      except EOFError:
        self._out.write("\n")
        return
      except KeyboardInterrupt:
        self._out.write("\nCtrl-D or /exit ends\n")
        continue
      if line == "/exit":
        return
      if line == "/new":
        self._new()
      elif line:
        try:
          self.answer(line)
        except UserError as e:
          self._out.write(f"error: {e}\n")

  def answer(self, line):
    """Streams the answer to a line and remembers both.

    Returns:
      the answer's text, thinking included.
    """
    messages = [*self._messages, {"role": "user", "content": line}]
    text = self._template.render(messages, think=self._args.think)
    thinking = think_format.is_prefilled(text)
    self._turn += 1
    view = View(self._out, thinking)
    tokens = stream(
      self._model,
      self._params,
      self._tokenizer.encode(text),
      jax.random.fold_in(self._key, self._turn),
      max_new_tokens=self._args.max_new_tokens,
      temperature=self._args.temperature,
      top_p=self._args.top_p,
    )
    answer = self._follow(tokens, view)
    kept = think_format.after_thinking(answer).strip()
    self._messages = [*messages, {"role": "assistant", "content": kept}]
    return answer

  def _follow(self, tokens, view):
    """Shows tokens as they come; closes the thinking at its budget."""
    ids, forced, text = [], [], ""
    try:
      for token in tokens:
        if view.thinking and not forced and len(ids) == self._args.think_budget:
          # A budget of 0 never equals a positive length.
          forced = list(self._close) if self._args.think_budget else []
        if forced:
          token = forced.pop(0)
          tokens.send(token)
        if token in self._tokenizer.end_ids:
          break
        ids.append(token)
        text = self._tokenizer.decode(ids)
        view.show(text)
    except KeyboardInterrupt:
      tokens.close()
    view.end()
    return text

  def _new(self):
    system = self._args.system
    self._messages = [{"role": "system", "content": system}] if system else []


class View:
  """Prints a growing text, its thinking dimmed where a terminal can.

  Attributes:
    thinking: whether the text so far ends inside of the thinking.
  """

  def __init__(self, out, thinking):
    self._out, self._shown = out, 0
    self._prefilled = self.thinking = thinking
    self._colour = out.isatty()
    if thinking:
      self._write(DIM)

  def show(self, text):
    """Prints what is new of a text that only grows."""
    # The end of a character that is not whole yet.
    text = text.rstrip("\ufffd")
    new, self._shown = text[self._shown :], max(self._shown, len(text))
    was = self.thinking
    opened = self._prefilled or think_format.THINK in text
    self.thinking = opened and think_format.END_THINK not in text
    if self.thinking and not was:
      self._write(DIM)
    self._out.write(new)
    if was and not self.thinking:
      self._write(PLAIN)
    self._out.flush()

  def end(self):
    """Ends the line and the colour."""
    self._write(PLAIN)
    self._out.write("\n")
    self._out.flush()

  def _write(self, code):
    if self._colour:
      self._out.write(code)


if __name__ == "__main__":
  main()
