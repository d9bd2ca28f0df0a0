"""Processes of one run share their work and agree on the result."""

import json

import numpy as np
import pytest
import two_processes

from r1jax import files, hosts


def test_one_process_shares_with_nobody():
  assert hosts.is_first()
  assert hosts.share([3, 1, 2]) == [3, 1, 2]
  assert hosts.share(range(3)) == range(3)
  assert hosts.gather([3, 1, 2]) == [3, 1, 2]
  lock = object()  # which cannot be pickled, and need not be
  assert hosts.broadcast(lock) is lock
  np.testing.assert_array_equal(hosts.whole(np.arange(3)), [0, 1, 2])
  hosts.barrier("here")


def test_an_error_of_the_first_process_is_raised():
  with pytest.raises(ZeroDivisionError):
    hosts.on_first(lambda: 1 / 0)


@pytest.fixture(scope="module")
def found(tmp_path_factory):
  """What two processes, each with two devices, found."""
  found = two_processes.start(
    tmp_path_factory.mktemp("two"), "talk", "fail", "write", "judge", "stop"
  )
  assert [f["process"] for f in found] == [0, 1]
  assert [f["devices"] for f in found] == [4, 4]
  return found


def test_two_processes_share_and_gather(found):
  first, second = (f["talk"] for f in found)
  assert (first["first"], second["first"]) == (True, False)
  assert (first["own"], second["own"]) == ([0, 2, 4, 6], [1, 3, 5])
  for talk in (first, second):
    assert talk["gathered"] == [f"{i} by {i % 2}" for i in range(7)]
    assert talk["of none"] == [] and talk["of one"] == [0]
    assert talk["large"] == 200_000
    assert talk["broadcast"] == {"by": 0}
    assert talk["on first"] == 10


def test_two_processes_fail_together(found):
  for f in found:
    assert f["fail"] == ["UserError", "FileNotFoundError"]


def test_two_processes_write_one_checkpoint(found):
  for f in found:
    assert f["write"]["whole"] == list(range(8))
    assert f["write"]["own"] == 2
    assert f["write"]["left"] == ["3"]


def test_each_verdict_is_made_on_one_host_and_known_to_both(found):
  for f in found:
    assert f["judge"]["rewards"] == [[0.25, 0.5, 0.25], [0.5, 0.25, 0.0]]
    assert f["judge"]["reasons"] == ["by 0", "by 1"] * 2 + ["by 0", "cut"]


def test_a_signal_to_one_host_stops_both_after_the_same_step(found):
  for f in found:
    assert f["stop"] == {"saved": 4, "code": 143}


@pytest.mark.slow
def test_two_processes_run_a_pipeline(tmp_path):
  first, second = two_processes.start(tmp_path, "run", devices=1)
  assert first["run"] == second["run"]
  (row,) = json.loads((tmp_path / "run/results.json").read_text())
  assert row == first["run"][0] and row["checkpoint"] == "r1_zero"
  lines = files.read(tmp_path / "run/r1_zero/metrics.jsonl")
  assert [line["step"] for line in lines] == [0, 1]
  for line in lines:
    # The learner agrees with the sampler, across both processes.
    assert line["sampler_learner_gap"] < 1e-4 and line["grad_norm"] > 0
