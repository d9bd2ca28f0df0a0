"""RL that draws from a part of the vocabulary: two steps, stopped and not."""

import dataclasses
import json
from pathlib import Path

import jax
import numpy as np
import pytest
from test_phases import COMMON, MODEL, TRAINING

from r1jax import variants
from r1jax.phases import grpo
from r1jax.run.phase_io import PhaseIO
from r1jax.sampling.sampler import SamplerConfig
from r1jax.text.tokenizer import CountdownWords, load

WORDS_MODEL = dataclasses.replace(
  MODEL, vocab_size=load(CountdownWords()).vocab_size, max_length=64
)
ROOT = Path(__file__).parents[1]


def config(**fields):
  sampler = SamplerConfig(
    slots=8, max_new_tokens=12, top_p=0.9, stop=("不", "7")
  )
  return grpo.GRPO(
    phase="grpo", prompts=4, group=4, temperature=0.9, sampler=sampler,
    minibatches=2, ref_every=1, share_prompts=True, refill=1,
    rewards={"format": 1.0, "language": 1.0},
    loss=variants.Loss(beta=0.05, correction="mask"),
    **COMMON | TRAINING | dict(model=WORDS_MODEL, row_length=48) | fields,
  )  # fmt: skip


class Killed(BaseException):
  """In place of a signal."""


def run(root, c, kill=None):
  """The state at the end, and the metrics; killed after `kill` steps first."""
  if kill is not None:
    io = PhaseIO(root, c.name)
    save = io.save

    def saved(step, tree):
      save(step, tree)
      if step == kill:
        raise Killed

    io.save = saved
    with pytest.raises(Killed):
      grpo.grpo(c, None, None, io)
  state, _ = grpo.grpo(c, None, None, PhaseIO(root, c.name))
  text = (root / c.name / "metrics.jsonl").read_text()
  return jax.device_get(state), [json.loads(x) for x in text.splitlines()]


def test_a_run_with_top_p(tmp_path):
  c = config(steps=2, lr=1e-2)
  whole, rows = run(tmp_path / "whole", c)
  for row in rows:
    assert row["sampler_learner_gap_max"] < 1e-5
    assert row["sampler_learner_gap"] <= row["sampler_learner_gap_max"]
    assert row["grad_norm"] > 0 and row["skipped_steps"] == 0
    assert 0 < row["cut"] < 1 or row["tokens_max"] <= 12
  assert rows[1]["kl"] > 0 and rows[0]["lr"] == 1e-2
  page = (ROOT / "docs" / "metrics.md").read_text()
  for name in rows[0]:
    assert f"`{name}`" in page or name.startswith("reason_"), name
  again, others = run(tmp_path / "killed", c, kill=1)
  jax.tree.map(np.testing.assert_array_equal, again, whole)
  timed = ("time", "per_s", "seconds", "memory")
  for a, b in zip(rows, others):
    for name in a:
      assert any(t in name for t in timed) or a[name] == b[name], name
