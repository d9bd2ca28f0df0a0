"""The pool of verifiers: what goes wrong costs one sample and no more."""

import os
import subprocess
import sys
import time
import types
from pathlib import Path

import pytest

from r1jax import verifiers
from r1jax.errors import BadProblem, UserError
from r1jax.rewards import judges, worker_handle
from r1jax.types import Problem, Verdict

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def pool():
  with judges.Judges(2, seconds=3.0, memory=512 << 20, wall=2.0) as pool:
    yield pool


def problem(**data):
  return Problem("p", "bad_verifiers:verify", "?", "", "en", data)


@pytest.mark.parametrize(
  ("completion", "reason"),
  [
    ("sleep", "stalled"),
    ("stubborn", "stalled"),
    ("scribble", "verifier_died"),
    ("hoard", "out_of_memory"),
    ("exit", "verifier_died"),
    ("crash", "verifier_died"),
    ("print", "wrong"),
    ("read", "wrong"),
    ("raise", "verifier_failed"),
  ],
)
def test_a_fault_costs_one_sample(pool, completion, reason):
  asked = ["right", "wrong", completion, "right", "wrong", "right"]
  said = [pool.submit(problem(), text) for text in asked]
  verdicts = [future.result(timeout=60) for future in said]
  reasons = {"right": "correct", completion: reason, "wrong": "wrong"}
  assert [v.reason for v in verdicts] == [reasons[text] for text in asked]
  assert [v.correct for v in verdicts] == [text == "right" for text in asked]
  assert all(v.score == float(v.correct) for v in verdicts)


def test_errors_of_the_user_are_raised(pool):
  with pytest.raises(BadProblem, match="unreadable"):
    pool.submit(problem(), "bad problem").result(timeout=60)
  with pytest.raises(UserError, match="no sandbox"):
    pool.submit(problem(), "no sandbox").result(timeout=60)
  for kind in ("bool", "nan"):
    with pytest.raises(UserError, match="bad_verifiers:verify.*must return"):
      pool.submit(problem(), kind).result(timeout=60)
  assert pool.submit(problem(), "numpy").result(timeout=60).correct
  nobody = Problem("p7", "nowhere:verify", "?", "", "en", {})
  with pytest.raises(UserError, match="nowhere"):
    pool.submit(nobody, "").result(timeout=60)
  unknown = Problem("p7", "sudoku", "?", "", "en", {})
  with pytest.raises(UserError, match="sudoku.*known"):
    pool.submit(unknown, "").result(timeout=60)


def test_a_verifier_may_say_that_nobody_can_judge(pool):
  verdict = pool.submit(problem(), "unjudged").result(timeout=60)
  assert verdict == Verdict(False, 0.0, "no_network", judged=False)
  right = pool.submit(problem(), "right").result(timeout=60)
  assert right.judged and not right.cut


def test_the_deadline_frees_the_worker_at_once(pool):
  """Two stuck ones, tried twice, and one behind them: as long as one."""
  begin = time.monotonic()
  said = [pool.submit(problem(), text) for text in ("sleep", "sleep", "right")]
  assert said[2].result(timeout=60).correct
  assert time.monotonic() - begin < 11


def test_the_limit_is_cpu_time():
  """Two naps of two seconds are no work, a loop of one second is."""
  with judges.Judges(workers=1, seconds=1.0) as pool:
    said = [pool.submit(problem(), text) for text in ("nap", "nap", "spin")]
    verdicts = [future.result(timeout=60) for future in said]
  assert verdicts[0].correct and verdicts[1].correct
  assert verdicts[2] == judges.TIMED_OUT and verdicts[2].judged


def test_what_nobody_could_judge_is_no_verdict(pool):
  verdict = pool.submit(problem(), "stop").result(timeout=60)
  assert verdict == judges.STALLED and not verdict.judged


def test_a_worker_that_ends_is_given_a_second_chance(pool, tmp_path):
  p = problem(file=str(tmp_path / "tried"))
  assert pool.submit(p, "exit once").result(timeout=60).correct


def test_a_worker_that_does_not_read_hangs_nothing(monkeypatch):
  """It stops before it reads three megabytes; the next one reads them."""
  with judges.Judges(workers=1) as pool:
    pool.submit(problem(), "stop soon").result(timeout=60)
    time.sleep(0.5)
    monkeypatch.setattr(worker_handle, "START_SECONDS", 6.0)
    begin = time.monotonic()
    long = "long" + "x" * 3_000_000
    assert pool.submit(problem(), long).result(timeout=60).correct
    assert 5 < time.monotonic() - begin < 30
    assert pool.submit(problem(), "right").result(timeout=60).correct


def test_children_of_a_stuck_verifier_end_with_it(pool, tmp_path):
  file = tmp_path / "pid"
  verdict = pool.submit(problem(file=str(file)), "child").result(timeout=60)
  assert verdict == judges.STALLED
  pid = int(file.read_text())
  for _ in range(100):
    if not alive(pid):
      return
    time.sleep(0.05)
  pytest.fail("the child is still there")


def alive(pid):
  """Whether a process runs; the dead whom nobody has buried do not."""
  try:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2][1] != "Z"
  except OSError:
    return False


def test_workers_end_with_a_process_that_is_killed(tmp_path):
  file = tmp_path / "pid"
  program = f"""
import os, signal, time
from r1jax.rewards import judges, worker_handle
from r1jax.types import Problem
pool = judges.Judges(workers=1, seconds=99.0)
data = dict(file={str(file)!r})
pool.submit(Problem("p", "bad_verifiers:verify", "", "", "en", data), "tell")
while not os.path.exists({str(file)!r}):
  time.sleep(0.05)
os.kill(os.getpid(), signal.SIGKILL)
"""
  path = os.pathsep.join((str(HERE.parent), str(HERE)))
  subprocess.run(
    [sys.executable, "-c", program], timeout=60,
    env={**os.environ, "PYTHONPATH": path},
  )  # fmt: skip
  for _ in range(100):
    if (text := file.read_text()) and not alive(int(text)):
      return
    time.sleep(0.05)
  pytest.fail("the worker is still there")


def test_closing_cancels_what_waits():
  pool = judges.Judges(workers=1, seconds=99.0)
  said = [pool.submit(problem(), "sleep") for _ in range(3)]
  while not pool._running:
    time.sleep(0.01)
  begin = time.monotonic()
  pool.close()
  assert time.monotonic() - begin < 20
  assert said[0].result() == judges.CRASHED
  assert said[1].cancelled() and said[2].cancelled()


def test_workers_are_replaced_in_time(monkeypatch):
  monkeypatch.setattr(judges, "RECYCLE", 2)
  with judges.Judges(workers=1) as pool:
    said = [pool.submit(problem(), "pid").result() for _ in range(5)]
  pids = [v.reason for v in said]
  assert pids[0] == pids[1] != pids[2] == pids[3] != pids[4]


def test_a_cancelled_sample_is_passed_over():
  with judges.Judges(workers=1, wall=1.5) as pool:
    said = [pool.submit(problem(), text) for text in ("sleep", "x", "right")]
    assert said[1].cancel()
    assert said[2].result().correct


def test_quick_kinds_need_no_process():
  pool = judges.Judges(workers=1)
  exact = Problem("p", "exact", "?", "12", "en", {})
  future = pool.submit(exact, "</think> <answer> 12 </answer>")
  assert future.done() and future.result() == Verdict(True, 1.0, "correct")
  pool.close()


@pytest.mark.parametrize(
  ("kind", "answer", "data", "right", "wrong"),
  [
    ("math", "\\frac12", {}, "\\boxed{0.5}", "\\boxed{0.6}"),
    (
      "code", "", {"tests": [{"input": "2\n", "output": "4\n"}]},
      "```python\nprint(2 * int(input()))\n```",
      "```python\nprint(3 * int(input()))\n```",
    ),
    ("choice", "C", {}, "\\boxed{C}", "\\boxed{D}"),
  ],
)  # fmt: skip
def test_every_kind(pool, kind, answer, data, right, wrong):
  p = Problem("p", kind, "?", answer, "en", data)
  said = [pool.submit(p, f"</think> {text}") for text in (right, wrong)]
  verdicts = [future.result(timeout=60) for future in said]
  assert [v.correct for v in verdicts] == [True, False]


def raises(problem, completion):
  raise LookupError("a fault")


def test_a_quick_verifier_that_fails_is_a_reason(monkeypatch):
  monkeypatch.setitem(verifiers.MODULES, "quick", "quick_and_wrong")
  module = types.ModuleType("quick_and_wrong")
  module.verify = raises
  monkeypatch.setitem(sys.modules, "quick_and_wrong", module)
  monkeypatch.setattr(verifiers, "QUICK", ("quick",))
  with judges.Judges(workers=1) as pool:
    p = Problem("p", "quick", "?", "", "en", {})
    assert pool.submit(p, "x").result() == verifiers.FAILED


def test_a_problem_that_is_no_json_is_an_error_and_not_the_end(pool):
  with pytest.raises(TypeError, match="JSON"):
    pool.submit(problem(thing={1, 2}), "right").result(timeout=60)
  assert pool.submit(problem(), "right").result(timeout=60).correct


def test_a_problem_that_cannot_be_judged(pool):
  for kind, answer, data in (
    ("math", "\\frac{", {}),
    ("code", "", {"tests": []}),
    ("logic", "", {"dataset": "sudoku"}),
  ):
    p = Problem("p7", kind, "?", answer, "en", data)
    text = "</think> <answer> 1 </answer> \\boxed{1} \n```python\n1\n```"
    with pytest.raises(BadProblem, match="p7|frac"):
      pool.submit(p, text).result(timeout=60)


def test_a_worker_needs_no_jax():
  """It starts in a tenth of the time, and in a tenth of the memory."""
  program = (
    "import sys, r1jax.rewards.worker, r1jax.verifiers as v\n"
    "for kind in v.MODULES: v.find(kind)\n"
    "assert 'jax' not in sys.modules and 'numpy' not in sys.modules"
  )
  subprocess.run(
    [sys.executable, "-c", program], check=True,
    env={**os.environ, "PYTHONPATH": str(HERE.parent)},
  )  # fmt: skip
