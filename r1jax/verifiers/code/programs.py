"""How a program is run in a box, for each language and each kind of test.

`boxed`, `boxed_call` and `boxed_serve` are files that the interpreter in the
box gets as text.
"""

import functools
import marshal
import os
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal, NamedTuple

from r1jax.verifiers.code import bubblewrap, sandbox

_BOXED = ("boxed", "boxed_call", "boxed_serve")


def _script(files: int, start: str) -> str:
  """Python code: the first of the files for the box, and a call of `start`."""
  text = ""
  for name in _BOXED[:files]:
    text += Path(__file__).with_name(f"{name}.py").read_text()
  # What they import of each other is in the text.
  ours = r"^from (?:r1jax\S*|__future__) import (?:\([^)]*\)|.*)\n"
  text = re.sub(ours, "", text, flags=re.MULTILINE)
  text = f"from __future__ import annotations\n{text}\n{start}()\n"
  # Compiled here once: the interpreter in the box is of this version.
  code = marshal.dumps(compile(text, "<box>", "exec", dont_inherit=True))
  return f"import marshal\nexec(marshal.loads({code!r}))"


def _python(files, start):
  return (*bubblewrap.PYTHON, "-c", _script(files, start))


class Language(NamedTuple):
  """How to run programs of a language.

  Attributes:
    run: the command that runs the program. That of an interpreter gets the
      number of bytes of the preamble as an argument.
    call: the command that calls a function of the program, or None.
    serve: the command that answers calls of assertions, or None.
    ask: the command that runs assertions, or None.
    compiler: path of the compiler, or None.
    compile: the command that compiles the source to the file "out" in
      `bubblewrap.BOX`, or None.
  """

  run: tuple
  call: tuple | None = None
  serve: tuple | None = None
  ask: tuple | None = None
  compiler: str | None = None
  compile: tuple | None = None


# To add a language, add an entry. Its commands must be below /usr.
LANGUAGES = {
  "python": Language(
    run=_python(1, "run"),
    call=_python(2, "call"),
    serve=_python(3, "serve"),
    ask=_python(3, "ask"),
  ),
  "cpp": Language(
    run=(bubblewrap.SOURCE,),
    compiler="/usr/bin/g++",
    compile=("/usr/bin/g++", "-O2", "-std=c++17", "-x", "c++", "-o", "out"),
  ),
}
_PYTHON = LANGUAGES["python"]

# The compiler's own; a busy machine only makes it slower.
_COMPILING = bubblewrap.Limits(
  cpu_seconds=20,
  memory_bytes=2 << 30,
  output_bytes=32 << 20,
  file_bytes=64 << 20,
)
# Of code of the data set: checkers, and assertions beside the program's calls.
JUDGING = bubblewrap.Limits(cpu_seconds=10)
# The last words of Python and of the C++ library when they get no memory.
_OUT_OF_MEMORY = (b"MemoryError", b"std::bad_alloc")


class Program(NamedTuple):
  """A program that can be run.

  Attributes:
    language: `Language`.
    source: bytes of the file in the box: the program or what it compiled to.
    preamble: number of its first bytes that are the problem's.
    packages: names of `bubblewrap.PACKAGES` that it may import.
  """

  language: Language
  source: bytes
  preamble: int = 0
  packages: tuple[str, ...] = ()

  def execute(
    self,
    how: Literal["run", "call", "serve", "ask"],
    stdin: bytes | int,
    limits: bubblewrap.Limits,
    *,
    output: int | None = None,
    args: Sequence[str] = (),
  ) -> sandbox.Outcome:
    """Runs one of the commands of its language in a box of its own.

    Args:
      how: which of the commands of the language.
      stdin: the standard input, or a file descriptor of it.
      limits: `bubblewrap.Limits`.
      output: file descriptor that is its standard output, if that is not kept.
      args: more arguments of a command of an interpreter.

    Returns:
      `sandbox.Outcome`.
    """
    command = getattr(self.language, how)
    if not self.language.compile:
      command = [*command, str(self.preamble), *args]
    return sandbox.run(
      command,
      self.source,
      stdin,
      limits,
      packages=self.packages,
      output=output,
    )


def prepare(
  language: Language,
  code: str,
  preamble: str = "",
  packages: Sequence[str] = (),
) -> Program | None:
  """A program that can be run, or None if it does not compile.

  Args:
    language: `Language`.
    code: text of the program.
    preamble: text that is run before it.
    packages: names of `bubblewrap.PACKAGES`.

  Raises:
    sandbox.Broken: the compiler could not be run.
  """
  first = (preamble + "\n").encode() if preamble else b""
  source = first + code.encode(errors="surrogatepass")
  if not language.compile:
    return Program(language, source, len(first), tuple(packages))
  compiled = _compile(language, source)
  return None if compiled is None else Program(language, compiled)


# A group's completions often hold the same program.
@functools.lru_cache(maxsize=16)
def _compile(language, source):
  """The compiled program as bytes; None if it does not compile."""
  # The compiled program leaves the box through standard output.
  script = f'"$@" {bubblewrap.SOURCE} >&2 && cat {bubblewrap.BOX}/out'
  command = ("/usr/bin/sh", "-c", script, "sh", *language.compile)
  outcome = sandbox.run(command, source, b"", _COMPILING, forks=True)
  done = outcome.ending == "exited" and outcome.code == 0
  return outcome.stdout if done else None


def failure(outcome: sandbox.Outcome) -> str | None:
  """Why a program has failed by the way it ended; None if it has not."""
  if outcome.ending != "exited":
    return outcome.ending
  if not outcome.code:
    return None
  if any(words in outcome.stderr[-200:] for words in _OUT_OF_MEMORY):
    return "out_of_memory"
  return "crashed" if outcome.code > 128 else "error"


def check(checker: str, values: Sequence[Any]) -> bool | None:
  """What a checker function says.

  Args:
    checker: Python code with a function `check`, which runs in a box too.
    values: its arguments, plain JSON.

  Returns:
    whether it returned True; None if it failed, or returned no bool.
  """
  program = Program(_PYTHON, checker.encode())
  stdin = repr(("check", list(values))).encode(errors="surrogatepass")
  outcome = program.execute("call", stdin, JUDGING)
  if failure(outcome) or outcome.stdout not in (b"true", b"false"):
    return None
  return outcome.stdout == b"true"


def holds(
  program: Program, setup: str, assertions: str, name: str, limits: Any
) -> str:
  """Whether assertions about the functions of a program hold.

  The assertions run in a box of their own and call the program in its box.

  Args:
    program: `Program`.
    setup: Python code that runs before the assertions.
    assertions: Python code; it fails by an exception.
    name: of a function that is the program's though the setup defines it, "".
    limits: `bubblewrap.Limits` of the program.

  Returns:
    "correct", "wrong", or a reason of `failure`.
  """
  first = (setup + "\n").encode() if setup else b""
  tests = Program(_PYTHON, first + assertions.encode(), len(first))
  to_tests, from_program = os.pipe()
  to_program, from_tests = os.pipe()
  # Each box owns its ends: when one ends, the other reads the end of the file.
  with ThreadPoolExecutor(1) as pool:
    answering = pool.submit(
      program.execute,
      "serve",
      to_program,
      limits,
      output=from_program,
    )
    asked = tests.execute(
      "ask", to_tests, JUDGING, output=from_tests, args=[name]
    )
    answered = answering.result()
  if why := failure(answered):
    return why
  return "wrong" if failure(asked) else "correct"
