"""A process that renders chat templates; it may be killed at any time.

  python -m r1jax.text.template_worker CPU_SECONDS MEMORY_BYTES CHARACTERS

A template comes with the weights, and its code is not trusted. It runs as in
`transformers`, with Jinja2 in its immutable sandbox, within limits of CPU time,
of memory and of the text's length.

The process reads lines of JSON, [source, variables]; with null for the
variables the template is only compiled. It answers each with a line, {"text":
text} or {"error": text}. A template that exceeds the CPU time ends the process.
"""

import datetime
import functools
import json
import os
import resource
import signal
import sys

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment


def main(seconds: float, memory: int, characters: int) -> None:
  """Answers until the input ends.

  Args:
    seconds: of CPU time for one template.
    memory: bytes of address space that templates may add to the process.
    characters: of the longest text.
  """
  answers = os.fdopen(os.dup(1), "w", buffering=1)
  os.dup2(2, 1)
  hard = resource.getrlimit(resource.RLIMIT_AS)[1]
  resource.setrlimit(resource.RLIMIT_AS, (_used() + memory, hard))
  signal.signal(signal.SIGPROF, signal.SIG_DFL)
  for line in sys.stdin:
    source, variables = json.loads(line)
    # CPU time, so that a busy machine refuses no template. Its signal ends the
    # process, even within a long operation of the interpreter's own.
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
      answer = _answer(source, variables, characters)
    except MemoryError:
      answer = {"error": f"takes more than {memory >> 20} MiB of memory"}
    except Exception as e:  # a template can raise anything
      answer = {"error": f"{type(e).__name__}: {e}"}
    signal.setitimer(signal.ITIMER_PROF, 0)
    answers.write(json.dumps(answer) + "\n")


def _answer(source, variables, characters):
  template = _compiled(source)
  if variables is None:
    return {"text": ""}
  parts, length = [], 0
  for part in template.generate(**variables):
    length += len(part)
    if length > characters:
      return {"error": f"makes a text of more than {characters} characters"}
    parts.append(part)
  return {"text": "".join(parts)}


@functools.lru_cache(maxsize=16)
def _compiled(source):
  return _environment().from_string(source)


class Generation(Extension):
  """`{% generation %} ... {% endgeneration %}`, which marks trained parts.

  Here, as in `transformers` without a mask, it renders what is in it.
  """

  tags = {"generation"}

  def parse(self, parser: Parser) -> nodes.Node:
    """The block's content, in a scope of its own."""
    line = next(parser.stream).lineno
    body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
    return nodes.Scope(body).set_lineno(line)


@functools.cache
def _environment():
  environment = ImmutableSandboxedEnvironment(
    trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols]
  )
  environment.filters["tojson"] = _tojson
  environment.globals["raise_exception"] = _raise
  environment.globals["strftime_now"] = lambda form: (
    datetime.datetime.now().strftime(form)
  )
  return environment


def _tojson(
  x, ensure_ascii=False, indent=None, separators=None, sort_keys=False
):
  # Not Jinja's own filter, which escapes for HTML.
  return json.dumps(
    x,
    ensure_ascii=ensure_ascii,
    indent=indent,
    separators=separators,
    sort_keys=sort_keys,
  )


def _raise(message):
  raise jinja2.TemplateError(message)


def _used():
  """Bytes of address space that this process uses."""
  with open("/proc/self/statm") as file:
    return int(file.read().split()[0]) * resource.getpagesize()


if __name__ == "__main__":
  main(float(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
