"""Hostile answers to the math verifier, in a process of their own.

  python tests/hostile_math.py START COUNT

Compares COUNT generated strings with golds of each sort; another START gives
other strings. As of the pool's workers, no more than some thousands are asked
of one process: the library's parser remembers all that it sees. The status is
not 0 if one crashed, took more than a second or half a gigabyte, or made a
file, a process or a socket.
"""

import os
import resource
import sys
import time

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from r1jax.verifiers.math.answer import equivalent

GOLDS = (
  "1", "x+1", "(0,1]", "\\{1,2\\}", "x^2+y^2=1", "\\frac{\\pi}{4}", "x>2",
  "\\text{odd}", "\\begin{pmatrix}1&2\\\\3&4\\end{pmatrix}", "(1,2,3)", "5!",
)  # fmt: skip
ATOMS = (
  "\\frac{", "\\frac", "\\sqrt{", "\\sqrt", "}", "{", "(", ")", "[", "]", "^",
  "_", "!", "!!", "1", "2", "9", "99", "10^{9}", "x", "y", "n", "i", "e",
  "\\pi", "\\infty", "\\sum_{k=1}^{", "\\prod_{k=1}^{10^9}", "\\int_0^1",
  "\\lim_{x\\to 0}", "+", "-", "*", "/", "=", "<", "\\le", "\\cup", ",", ";",
  "$", "\\boxed{", "\\text{", "\\begin{pmatrix}", "\\end{pmatrix}", "&",
  "\\\\", ".", "\\log", "\\sin", "\\binom{", "|", "\\{", "\\}", "%", "\\pm",
  "\\cdot", "__import__", 'os.system("touch pwned")', "eval(", "lambda",
  "\\input{", "\\mathrm{d}x", "\\overline{", "\\dots", " ", "\\circ",
  "\\begin{cases}", "\\end{cases}", "\\vec{", "\\mod", "\\gcd(",
  "\\operatorname{lcm}(", "\\lfloor", "\\rfloor", "{}", "\\left(", "\\right)",
  "\\Gamma(", "\\zeta(", "\\mathbb{R}", "\\setminus", "\\neq", "\\in",
)  # fmt: skip
BOMBS = (
  "9^{9^{9^{9}}}", "9" * 100_000, "(" * 4000, "{" * 4000, "((10!)!)!",
  "\\sqrt{" * 500, "\\sqrt{" * 20 + "x" + "}" * 20, "\\sum_{k=1}^{10^9} k",
  "\\prod_{k=1}^{10^9} k", "10^{10^{10}}", "(10^9)!", "(10^9)!!", "F_{10^9}",
  "\\binom{10^9}{5\\cdot10^8}", "2^{2^{2^{2^{2^2}}}}", "(x+1)^{10^9}",
  '__import__("os").system("touch pwned")', "\\int_0^1 e^{x^x} dx",
  "x^{x^{x^{x}}}", "i^{i^i}", "1/" * 300 + "1", "\\frac{" * 200,
  "2**2**2**2**2**2", "9**9**9**9", "\\sin(" * 200, "$" * 1000,
  "\\boxed{" * 200, "-" * 1000 + "1", "+".join(["x"] * 300),
  "*".join(f"(x+{k})" for k in range(60)), "x^{100000}-1", "\\cos^{500} x",
  "\\begin{pmatrix}" + "&".join("1" * 200) + "\\end{pmatrix}",
  "(1+\\sqrt2)^{900}", "e^{e^{e^{e^{e}}}}", "\\Gamma(10^6)", "|" * 300,
  "{,}" * 300, "1," * 400, "x=" * 300 + "1", "1=" * 300 + "1",
  "x<" * 100 + "1", "\\{" + ",".join(map(str, range(250))) + "\\}",
  "\\sum_{n=1}^{\\infty} 1/n^2", "10^{-99999}", "0." + "0" * 250 + "1",
  "\\frac{1}{0}", "0^0", "\\infty-\\infty", "\\tan(\\pi/2)", "\\arcsin(2)",
  "1e999", "1e-999", "\u0661\u0662", "\ud800", "a" * 1000,
  "x_{" * 20 + "}" * 20, "x_" * 400, "2^{-2^{30}}", "(10^{100})!", "\\pm" * 300,
  "1:" * 400 + "1", "2 or " * 190, "\\equiv 1 \\pmod " * 50, "**" * 400,
  "\\begin{cases}" * 60, "\\textbf{(A)" + " " * 900, "\u0663" * 900, "1?" * 400,
  "\\log_{" * 12 + "2" + "}{2}" * 12, "\\quad" * 150, "\\fbox{" * 150,
  "\\begin{pmatrix}1&1\\\\1&0\\end{pmatrix}^{10^9}", "two hundred " * 80,
  "3" + " " * 990, "\\sin" + " " * 990 + "3", "3^" + "\n" * 990 + "\\circ",
  "\\lim_{x\\to\\infty} (1+1/x)^{x^x}", "\\gcd(2^{60000},3)", "E.__class__",
  "\\frac{1}{3}^{\\frac{1}{7}^{100}}", "\\sin(10^{300})", "\\sin(10^{20000})",
)  # fmt: skip

bombs = st.sampled_from(BOMBS)
formulas = st.lists(st.sampled_from(ATOMS), max_size=30).map("".join)
mixtures = st.lists(bombs | st.sampled_from(ATOMS), max_size=6).map("".join)
strings = formulas | formulas | mixtures | bombs | st.text(max_size=80)
wrapped = st.tuples(
  strings, st.sampled_from(("{}", "${}$", "\\boxed{{}}", "so ${}$."))
).map(lambda pair: pair[1].replace("{}", pair[0]))

made, watched = [], []
FORBIDDEN = ("subprocess.", "os.", "socket.", "shutil.", "ctypes.dlopen")
HARMLESS = ("os.listdir", "os.scandir", "os.putenv")


def audit(event, arguments):
  if not watched:
    return
  writes = event == "open" and (
    (arguments[1] or "r")[0] in "wax" or (arguments[2] or 0) & os.O_ACCMODE
  )
  if writes or (event.startswith(FORBIDDEN) and event not in HARMLESS):
    made.append((event, arguments))


def main(start, count):
  for gold in GOLDS:
    assert equivalent(gold, gold).correct, gold
  slowest = [0.0, ""]

  def compare(gold, text):
    watched.append(True)
    begin = time.thread_time()
    equivalent(gold, text)
    seconds = time.thread_time() - begin
    watched.clear()
    slowest[:] = max(slowest, [seconds, text[:200]])
    assert seconds < 1.0, f"{seconds:.2f} s: {gold!r} {text[:200]!r}"
    assert not made, f"{made}: {gold!r} {text[:200]!r}"

  sys.addaudithook(audit)
  # In turns, lest what hypothesis remembers of them slows it down.
  for turn in range(start, start + count, 500):
    limit_memory(512 << 20)
    options = settings(
      max_examples=min(500, start + count - turn), deadline=None, database=None,
      phases=[Phase.generate], suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    seed(turn)(options(given(st.sampled_from(GOLDS), wrapped)(compare)))()
  print(f"{count} strings, the slowest {slowest[0]:.2f} s: {slowest[1]!r}")


def limit_memory(more):
  """Lets the address space of this process grow so much from now on."""
  with open("/proc/self/statm") as file:
    size = int(file.read().split()[0]) * resource.getpagesize()
  hard = resource.getrlimit(resource.RLIMIT_AS)[1]
  resource.setrlimit(resource.RLIMIT_AS, (size + more, hard))


if __name__ == "__main__":
  main(int(sys.argv[1]), int(sys.argv[2]))
