"""Talk to a model in a terminal.

  python -m tools.chat --checkpoint=MODEL

MODEL is hf:DIR, run:DIR/PHASE, run:DIR/PHASE@STEP, a directory or a hub id. A
model without a chat template continues each line as a text of its own.
"""

import contextlib
import importlib
import sys
import time

import jax

from r1jax import cli, language_model
from r1jax.errors import UserError
from r1jax.sampling.stream import BUCKET, stream
from r1jax.text import think_format
from tools import flags
from tools.view import View

HELP = """\
/new    begins another conversation
/help   prints this
/exit   ends, as Ctrl-D does
Ctrl-C  stops an answer
Arrow keys edit a line and bring back earlier ones.
"""
NOT_KEPT = "(cut while thinking: this turn is not remembered)\n"


def main(argv=None):
  """Reads a line, answers, and so on."""
  args = parse(argv)
  with cli.one_line_errors():
    cli.compilation_cache()
    model = language_model.load(args.checkpoint, args.dtype)
    with contextlib.suppress(ImportError):
      # `input` edits lines once this is imported.
      importlib.import_module("readline")
    chat = Chat(args, model.config, model.params, model.tokenizer)
    if sys.stdin.isatty():
      print("/help lists the commands")
    if not chat.has_template:
      print("no chat template: each line is continued as a text of its own")
    chat.run()


def parse(argv):
  """The arguments of the command line."""
  parser = flags.parser("tools.chat", __doc__)
  add = parser.add_argument
  add("--checkpoint", required=True, help="whom to talk to")
  add("--dtype", help="of the parameters; default as stored")
  flags.add_drawing(parser)
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

  Attributes:
    has_template: whether the tokenizer has a chat template.
    messages: that the model sees before the next line.
  """

  def __init__(self, args, model, params, tokenizer, out=sys.stdout):
    self._args, self._model, self._params = args, model, params
    self._tokenizer, self._out = tokenizer, out
    self.has_template = language_model.has_template(tokenizer)
    self._key = jax.random.key(args.seed)
    self._turn = 0
    self._compiled = set()
    self._new()

  def run(self):
    """Until the input ends."""
    commands = {
      "/new": self._new,
      "/help": lambda: self._out.write(HELP),
    }
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
      if line in commands:
        commands[line]()
      elif line[:1] == "/" and line[1:].isalpha():
        self._out.write(f"{line} is no command; /help lists them\n")
      elif line:
        try:
          self.answer(line)
        except UserError as e:
          self._out.write(f"error: {e}\n")

  def answer(self, line):
    """Streams the answer to a line and remembers both.

    A turn whose thinking was cut, by the limit or by Ctrl-C, has no answer and
    is not remembered.

    Returns:
      the answer's text, thinking included.
    """
    messages = [*self.messages, {"role": "user", "content": line}]
    text = self._prompt(messages)
    view = View(self._out, think_format.is_prefilled(text))
    self._turn += 1
    prompt = self._tokenizer.encode(text)
    # Prompts of about equal length share their programs.
    size = -(-len(prompt) // BUCKET)
    if size not in self._compiled:
      view.note("compiling ...")
    tokens = stream(
      self._model,
      self._params,
      prompt,
      jax.random.fold_in(self._key, self._turn),
      max_new_tokens=self._args.max_new_tokens,
      temperature=self._args.temperature,
      top_p=self._args.top_p,
    )
    answer = self._follow(tokens, view)
    self._compiled.add(size)
    whole = think_format.whole(text, answer)
    if think_format.is_open(whole):
      self._out.write(NOT_KEPT)
    elif self.has_template:
      kept = think_format.after_thinking(whole).strip()
      self.messages = [*messages, {"role": "assistant", "content": kept}]
    return answer

  def _prompt(self, messages):
    """The text that the model sees."""
    if not self.has_template:
      text = messages[-1]["content"]
      return f"{text}\n{think_format.THINK}\n" if self._args.think else text
    template = self._tokenizer.template()
    return template.render(messages, think=self._args.think)

  def _follow(self, tokens, view):
    """Shows tokens as they come; closes the thinking at its budget."""
    ids, forced, text = [], [], ""
    clock = _Clock()
    try:
      for token in tokens:
        clock.tick()
        if view.thinking and not forced and len(ids) == self._args.think_budget:
          # A budget of 0 never equals a positive length.
          forced = self._close() if self._args.think_budget else []
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
    view.end(clock.facts(self._args.max_new_tokens))
    return text

  def _close(self):
    """The tokens that end the thinking."""
    return list(self._tokenizer.encode_rest(f"\n{think_format.END_THINK}\n\n"))

  def _new(self):
    system = self._args.system
    self.messages = [{"role": "system", "content": system}] if system else []


class _Clock:
  """Counts tokens and their time, without the first, which compiles."""

  def __init__(self):
    self._count, self._first, self._last = 0, 0.0, 0.0

  def tick(self):
    """Another token has come."""
    self._last = time.monotonic()
    if not self._count:
      self._first = self._last
    self._count += 1

  def facts(self, most):
    """Tokens and tokens/s, in words; `most` is the limit of an answer."""
    seconds = self._last - self._first
    said = f"{self._count} tokens"
    if self._count >= most:
      said += " (the limit, --max_new_tokens)"
    if self._count < 2 or seconds <= 0:
      return said
    return f"{said}, {(self._count - 1) / seconds:.1f} tokens/s"


if __name__ == "__main__":
  main()
