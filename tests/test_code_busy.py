"""A busy machine makes no right program wrong, and waits for no program."""

import os
import shutil
import subprocess
import sys
import time

import pytest

from r1jax.rewards import judges
from r1jax.types import Problem, Verdict
from r1jax.verifiers.code import bubblewrap

CORES = len(os.sched_getaffinity(0))
# About a second of CPU time each.
COUNT = "total = 0\nfor i in range(8_000_000): total += i\nprint(total)"
COUNT_CPP = """
#include <bits/stdc++.h>
int main() {
  std::map<int, long> counts;
  unsigned x = 1;
  for (int i = 0; i < 3000000; i++) {
    x = x * 1664525 + 1013904223;
    counts[x >> 16]++;
  }
  long total = 0;
  for (auto& [key, n] : counts) total += n;
  std::cout << total;
}
"""


@pytest.fixture
def spinning():
  """Two other jobs for each core."""
  spin = [sys.executable, "-c", "while True: pass"]
  jobs = [subprocess.Popen(spin) for _ in range(2 * CORES)]
  yield
  for job in jobs:
    job.kill()
    job.wait()


def problem(output, **data):
  tests = [{"input": "", "output": output}]
  return Problem("b", "code", "?", "", "en", {"tests": tests, **data})


@pytest.mark.slow
def test_honest_programs_beside_other_jobs(spinning):
  jobs = [(problem(str(sum(range(8_000_000)))), f"```python\n{COUNT}\n```")] * 6
  if shutil.which("/usr/bin/g++"):
    cpp = problem("3000000", language="cpp")
    # Each is another program, so that each is compiled.
    jobs += [(cpp, f"```cpp\n// {i}\n{COUNT_CPP}\n```") for i in range(6)]
  with judges.Judges(workers=2 * CORES) as pool:
    futures = [pool.submit(*job) for job in jobs]
    verdicts = [future.result(600) for future in futures]
  assert verdicts == [Verdict(True, 1.0, "correct")] * len(jobs)


@pytest.mark.slow
def test_a_loop_ends_by_its_own_time(spinning):
  loop = (problem("1", limits={"cpu_seconds": 1}), "```\nwhile True: pass\n```")
  start = time.monotonic()
  with judges.Judges(workers=1) as pool:
    assert pool.submit(*loop).result(600).reason == "timed_out"
  assert time.monotonic() - start < 60


def test_wall_time_follows_cpu_time():
  assert bubblewrap.Limits(cpu_seconds=3.0).wall() == 35.0
  assert bubblewrap.Limits(cpu_seconds=3.0, wall_seconds=1.0).wall() == 1.0
