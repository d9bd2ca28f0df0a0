"""Flags and messages that the tools share."""

import argparse
import collections.abc
import re

from r1jax import cli, language_model
from r1jax.errors import UserError


def parser(name, doc):
  """An `argparse.ArgumentParser`.

  Args:
    name: of the module.
    doc: its docstring, which `--help` prints as it is.
  """
  return argparse.ArgumentParser(
    prog=name,
    description=doc,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )


def run(function, args):
  """Calls a tool's function; errors are one line that names flags."""
  with cli.one_line_errors():
    cli.compilation_cache()
    try:
      function(args)
    except UserError as e:
      raise UserError(as_flags(str(e))) from None


def add_drawing(parser):
  """Adds temperature and top-p."""
  temperature, top_p = language_model.TEMPERATURE, language_model.TOP_P
  parser.add_argument(
    "--temperature",
    type=float,
    default=temperature,
    help=f"0 is greedy; {temperature}",
  )
  parser.add_argument("--top_p", type=float, default=top_p, help=f"{top_p}")


def add_sampling(parser):
  """Adds the arguments that say how completions are drawn."""
  add = parser.add_argument
  add(
    "--template",
    default="auto",
    choices=language_model.TEMPLATES,
    help="how a question becomes a prompt; auto: by the chat template if the"
    " tokenizer has one, else as it is",
  )
  add_drawing(parser)
  add("--max_new_tokens", type=int, help="of a completion; at most 1024")
  add("--stop", nargs="+", default=[], help="strings that end a completion")
  add("--slots", type=int, default=64, help="decoded side by side; 64")
  add("--seed", type=int, default=0, help="of the draws; 0")
  add("--dtype", help="of parameters and activations; default as stored")


def pairs(name: str, words: collections.abc.Sequence[str]) -> dict[str, str]:
  """The mapping that a flag with words NAME=VALUE gives."""
  if not all("=" in word for word in words):
    raise UserError(f"--{name} takes NAME=VALUE, several with spaces")
  return dict(word.split("=", 1) for word in words)


def as_flags(message: str) -> str:
  """A message with flags in the place of keys of a config."""
  message = re.sub(r"\btask\.test\b", "--data", message)
  message = re.sub(
    r'\bfields=dict\((\w+)="([^"]*)"\)', r"--fields \1=\2", message
  )
  return re.sub(r"\b(?:task|sampler)\.(\w+)", r"--\1", message)
