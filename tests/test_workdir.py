"""A work directory takes what changes nothing of what is there."""

import dataclasses
import json
import shutil

import fake_phases
import numpy as np
import pytest
from test_launch_errors import changed, snapshot

from experiments import launch
from r1jax.errors import UserError
from r1jax.phases import sft
from r1jax.phases.common import Training
from r1jax.run import checkpoint

PHASES = ("base", "rl", "eval_rl")


class Train(fake_phases.Train):
  """A walk at a constant rate, which may be longer."""

  def may_change(self, key, before, done):
    """As a `Training`."""
    if key == "steps":
      return done <= self.steps
    return super().may_change(key, before, done)


KINDS = fake_phases.PHASES | {"train": (Train, fake_phases.train)}


def run(workdir, phases=PHASES, **keys):
  return launch.run(changed(phases=phases, **keys), workdir, KINDS)


def refused(workdir, message, *again, **keys):
  """A change that is refused; `again` are the directories to delete."""
  before = snapshot(workdir)
  with pytest.raises(UserError) as error:
    run(workdir, **keys)
  assert message in str(error.value)
  directories = " ".join(str(workdir / name) for name in again)
  assert str(error.value).endswith(f"again: rm -r {directories}")
  assert snapshot(workdir) == before


def params(workdir, phase):
  return np.asarray(checkpoint.load(workdir / phase / "params")["x"]).tolist()


def test_a_finished_phase_goes_on_with_more_steps(tmp_path):
  run(tmp_path / "whole", ("base",), base__steps=7)
  for steps, resumed_at in ((3, 0), (5, 3), (7, 5)):
    run(tmp_path / "grown", ("base",), base__steps=steps)
    done = json.loads((tmp_path / "grown/base/done.json").read_text())
    assert done["resumed_at"] == resumed_at
  assert params(tmp_path / "grown", "base") == params(
    tmp_path / "whole", "base"
  )
  config = json.loads((tmp_path / "grown/config.json").read_text())
  assert config["base"]["steps"] == 7
  refused(
    tmp_path / "grown", "base.steps is 7 there, 6 here", "base",
    phases=("base",), base__steps=6,
  )  # fmt: skip


def test_new_phases_and_other_orders(tmp_path):
  run(tmp_path, ("base",))
  before = snapshot(tmp_path / "base")
  run(tmp_path, ("base", "rl", "eval_rl"))
  run(tmp_path, ("base", "student", "rl"), student__data="x", student__init="")
  run(tmp_path, ("base",))
  assert snapshot(tmp_path / "base") == before


def test_keys_of_phases_that_have_not_begun(tmp_path):
  run(tmp_path, ("base",))
  run(tmp_path, ("base", "rl"), rl__lr=0.7)
  run(tmp_path / "other", ("base", "rl"), rl__lr=0.7)
  assert params(tmp_path, "rl") == params(tmp_path / "other", "rl")


def test_keys_that_change_no_result(tmp_path):
  run(tmp_path)
  before = snapshot(tmp_path / "rl")
  run(tmp_path, rl__save_every=1, report__plot=())
  assert snapshot(tmp_path / "rl") == before
  config = json.loads((tmp_path / "config.json").read_text())
  assert config["rl"]["save_every"] == 1


def test_what_would_change_the_past_is_refused(tmp_path):
  run(tmp_path)
  refused(
    tmp_path, "base.lr is 0.1 there, 0.2 here", "base", "rl", "eval_rl",
    base__lr=0.2,
  )  # fmt: skip
  refused(tmp_path, "rl.lr is 0.1 there, 0.2 here", "rl", "eval_rl", rl__lr=0.2)
  refused(
    tmp_path, "eval_rl.label is rl there, x here", "eval_rl", eval_rl__label="x"
  )
  # More steps of a phase that another was made from.
  refused(
    tmp_path, "eval_rl was made from rl as it was before (rl.steps is 3 there,"
    " 9 here)", "eval_rl", rl__steps=9,
  )  # fmt: skip
  # What the message says makes way.
  shutil.rmtree(tmp_path / "eval_rl")
  run(tmp_path, rl__steps=9)
  run(tmp_path / "other", rl__steps=9)
  assert params(tmp_path, "rl") == params(tmp_path / "other", "rl")


def test_a_child_does_not_outlive_its_parent(tmp_path):
  """A parent that was removed and made otherwise has other children."""
  run(tmp_path)
  shutil.rmtree(tmp_path / "base")
  refused(
    tmp_path, "rl was made from base as it was before", "rl", "eval_rl",
    base__lr=0.2,
  )  # fmt: skip
  run(tmp_path)


def test_a_phase_without_a_record_is_not_trusted(tmp_path):
  run(tmp_path)
  keys = tmp_path / "rl/keys.json"
  text = keys.read_text()
  keys.write_text("{")
  with pytest.raises(UserError, match="keys.json is damaged"):
    run(tmp_path)
  keys.unlink()
  with pytest.raises(UserError, match="keys.json is missing"):
    run(tmp_path)
  keys.write_text(text)
  run(tmp_path)


def test_a_key_of_a_later_version_changes_nothing_at_its_default(tmp_path):
  run(tmp_path)
  path = tmp_path / "rl/keys.json"
  record = json.loads(path.read_text())
  del record["keys"]["parents"], record["keys"]["model"]["rope_theta"]
  path.write_text(json.dumps(record))
  run(tmp_path)
  del record["keys"]["lr"]
  path.write_text(json.dumps(record))
  with pytest.raises(UserError, match="rl.lr is absent there, 0.1 here"):
    run(tmp_path)


@dataclasses.dataclass
class Schedule:
  """The keys that `Training.learning_rate` reads."""

  steps: int
  lr: float = 0.1
  schedule: str = "constant"
  warmup: int = 0
  FREE = sft.SFT.FREE
  is_free = Training.is_free
  learning_rate = Training.learning_rate

  def may_change(self, before, done):
    """As `Training.may_change`, for its steps."""
    keys = dataclasses.asdict(before)
    return Training.may_change(self, "steps", keys, done)


@pytest.mark.parametrize(
  "before, after, done, allowed",
  [
    (Schedule(10), Schedule(20), 10, True),
    (Schedule(10), Schedule(5), 5, True),
    (Schedule(10), Schedule(5), 6, False),
    (Schedule(10, schedule="cosine"), Schedule(20, schedule="cosine"), 1, True),
    (
      Schedule(10, schedule="cosine"), Schedule(20, schedule="cosine"), 2,
      False,
    ),
    # So far only the warm-up was run.
    (
      Schedule(10, schedule="cosine", warmup=3),
      Schedule(20, schedule="constant", warmup=3), 3, True,
    ),
    (Schedule(10), Schedule(10, lr=0.2), 0, True),
    (Schedule(10), Schedule(10, lr=0.2), 1, False),
    (Schedule(10, warmup=5), Schedule(10, warmup=6), 2, False),
  ],
)  # fmt: skip
def test_a_schedule_may_change_what_is_to_come(before, after, done, allowed):
  assert after.may_change(before, done) == allowed
