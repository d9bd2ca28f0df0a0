"""Runs in which a number is not finite: what stays, what is said, the end."""

import dataclasses
import json
import types

import jax
import numpy as np
import pytest
from test_phases import COMMON, MODEL, SETUP, TRAINING, rewarded, rl

from r1jax import config as config_lib
from r1jax.errors import UserError
from r1jax.phases import grpo, grpo_batch, sft, skips
from r1jax.run.phase_io import PhaseIO
from r1jax.text.tokenizer import CountdownWords, load
from r1jax.training import state as state_lib
from r1jax.types import Rollout

WORDS_MODEL = dataclasses.replace(
  MODEL, vocab_size=load(CountdownWords()).vocab_size, max_length=64
)
FINE = {"applied": True, "params": True, "losses": np.array([True] * 2)}
LOSS = {"applied": False, "params": True, "losses": np.array([True, False])}
GRADIENT = FINE | {"applied": False}


def rows_of(path):
  return [json.loads(line) for line in path.read_text().splitlines()]


def names():
  return [["a", "b"], ["c", "d", "c"]]


def test_steps_are_counted_and_named(tmp_path, capsys):
  io = PhaseIO(tmp_path, "rl")
  watch = skips.Watch(io, "rl", 3, updates=2)
  for step, (one, two) in enumerate(((FINE, LOSS), (GRADIENT, FINE))):
    watch(step, 0, one, names)
    watch(step, 1, two, names)
    watch.check()
  assert (watch.total, watch.in_a_row) == (2, 0)
  rows = rows_of(tmp_path / "rl/skipped.jsonl")
  assert rows == [
    dict(step=0, update=1, what="loss", in_a_row=1, batch=["c", "d"]),
    dict(step=1, update=0, what="gradient", in_a_row=2, batch=[*"abcd"]),
  ]
  said = capsys.readouterr().err.splitlines()
  assert said[0] == (
    "rl: step 0: the loss is not finite, so this optimizer step is not"
    " applied; its batch: c, d"
  )
  for _ in range(3):
    watch(2, 0, LOSS, names)
  with pytest.raises(
    UserError,
    match="^rl: the loss was not finite in 3 optimizer steps in a row, up to"
    " step 2; the newest checkpoint does not exist yet; rl/skipped.jsonl",
  ):
    watch.check()


def test_a_resumed_run_counts_on(tmp_path):
  """As if it had not been stopped, also in the middle of a row of skips."""
  for kill in range(5):
    root = tmp_path / str(kill)
    ended = None
    for first in (0, kill + 1) if kill < 4 else (0,):
      io = PhaseIO(root, "rl")
      if first:
        io.restore({"x": np.zeros(1)})
      watch = skips.Watch(io, "rl", 4)
      for step in range(first, 5):
        watch(step, 0, FINE if step == 0 else LOSS, names)
        try:
          watch.check()
        except UserError:
          ended = step
          break
        io.save(step + 1, {"x": np.ones(1)})
        if step == kill and not first:
          break
    assert ended == 4 and watch.total == 4
    assert len(rows_of(root / "rl/skipped.jsonl")) == 4


def test_a_parameter_that_is_not_finite_ends_the_run(tmp_path):
  watch = skips.Watch(PhaseIO(tmp_path, "rl"), "rl", 3)
  watch(7, 0, FINE | {"params": False}, names)
  with pytest.raises(UserError, match="a parameter is not finite after step 7"):
    watch.check()


def test_the_problems_of_a_micro_batch():
  """Of the rows that `pack` makes, found by their advantages."""
  scored = rewarded("p", [[1.0, 0.0]] * 3)
  rng = np.random.default_rng(0)
  n = 6
  scored = scored._replace(
    problems=[types.SimpleNamespace(id=name) for name in scored.problems],
    prompts=[np.array([2, 3 + i]) for i in range(3)],
    rollout=Rollout(
      rng.integers(2, 9, (n, 7)), np.zeros((n, 7), np.float32),
      np.array([7, 3, 5, 6, 2, 4]), np.ones(n, bool),
    ),
  )  # fmt: skip
  advantages = np.arange(1, 7, dtype=np.float32).reshape(3, 2)
  advantages[1, 0] = 0  # left out
  c = rl(minibatches=2, row_length=9, rows=1, group=2)
  batches = grpo_batch.pack(c, SETUP, scored, advantages, 0)
  named = grpo_batch.problems(c, SETUP, scored, advantages, 0)
  ids = {a: p.id for p, row in zip(scored.problems, advantages) for a in row}
  assert len(named) == 2
  for batch, micro in zip(batches, named):
    assert len(micro) == batch.count
    for i, held in enumerate(micro):
      seen = np.unique(batch.advantages[i][batch.weights[i] > 0])
      assert {ids[a] for a in seen} == set(held)


def phase_config(cls, **fields):
  return cls(**(COMMON | TRAINING | fields))


def run_sft(root, steps=4, **fields):
  """The state at the end of an SFT run."""
  c = phase_config(
    sft.SFT, phase="sft", data="corpus", batch=2, log_every=2, steps=steps,
    row_length=64, model=WORDS_MODEL, **fields,
  )  # fmt: skip
  io = PhaseIO(root, c.name)
  return sft.sft(c, None, "corpus", io)[0]


def test_sft_goes_on_without_the_step(tmp_path, monkeypatch):
  """A NaN gradient in one step of four: the run of the other three."""
  real = sft.update_fn

  def broken(*args):
    update, calls = real(*args), []

    def step(state, batch, lr):
      calls.append(lr)
      if len(calls) == 2:
        batch = batch._replace(
          weights=jax.numpy.where(batch.weights > 0, np.inf, 0.0)
        )
      return update(state, batch, lr)

    return step

  monkeypatch.setattr(sft, "update_fn", broken)
  state = run_sft(tmp_path)
  assert state.step == 3
  assert all(np.isfinite(x).all() for x in jax.tree.leaves(state.params))
  (row,) = rows_of(tmp_path / "a_phase/skipped.jsonl")
  assert (row["step"], row["what"]) == (1, "loss") and row["batch"]
  metrics = rows_of(tmp_path / "a_phase/metrics.jsonl")
  assert [m["skipped_steps"] for m in metrics] == [1, 1]
  assert metrics[0]["loss"] is None and metrics[1]["loss"] > 0
  assert metrics[0]["host_memory_gib"] > 0.01


@pytest.mark.parametrize("lr", [float("nan"), float("inf"), -1.0, 0.0])
def test_a_learning_rate_is_a_positive_number(lr):
  fields = dict(
    phase="sft", data="corpus", batch=1, log_every=1, steps=1, row_length=8,
    rows=1, save_every=1, lr=lr, tokenizer=dict(kind="countdown"),
    task=dict(kind="countdown", train=1, test=1),
  )  # fmt: skip
  given = dict(name="a", seed=0, model=MODEL, weights=None)
  with pytest.raises(UserError, match="a.lr"):
    config_lib.build(sft.SFT, fields, "a", given)
  with pytest.raises(UserError, match="lr="):
    rl(lr=lr)


def test_infinite_rewards_are_never_applied(tmp_path, monkeypatch):
  """RL whose judge pays infinity: no step, and an end after two."""
  c = rl(
    steps=5, prompts=2, group=4, rewards={"accuracy": 1.0}, max_skipped=2,
    row_length=31, model=WORDS_MODEL,
  )  # fmt: skip
  real = grpo.Actor.rollout

  def rollout(self, *args):
    scored = real(self, *args)
    for i, row in enumerate(scored.scores):
      row["reward"] = np.inf if i == 0 else float(i % 2)
    return scored

  monkeypatch.setattr(grpo.Actor, "rollout", rollout)
  io = PhaseIO(tmp_path, c.name)
  with pytest.raises(UserError, match="the loss was not finite in 2 optimizer"):
    grpo.grpo(c, None, None, io)
  rows = rows_of(tmp_path / "a_phase/skipped.jsonl")
  assert [r["step"] for r in rows] == [0, 1]
  metrics = rows_of(tmp_path / "a_phase/metrics.jsonl")
  assert [m["skipped_steps"] for m in metrics] == [1, 2]
  # The first checkpoint has the parameters of the beginning.
  assert io.saved == 1
  s = c.setup()
  start = state_lib.new_state(c.model, c.optimizer, s.mesh, None, s.key)
  _, kept = PhaseIO(tmp_path, c.name).restore({"state": start})
  jax.tree.map(np.testing.assert_array_equal, kept["state"], start)
