"""What the phases make of rollouts and examples, and the votes."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_model import random_params

from r1jax import losses, meshes, scores, sharding, variants
from r1jax.data.countdown import Countdown
from r1jax.errors import UserError
from r1jax.model import ModelConfig
from r1jax.phases import (
  actor,
  evaluate,
  grpo,
  grpo_batch,
  grpo_report,
  grpo_update,
  rejection,
  sft,
)  # fmt: skip
from r1jax.phases.actor import Scored
from r1jax.phases.common import Setup
from r1jax.rewards import score as rewards
from r1jax.run import phase_io
from r1jax.sampling.sampler import Sampler, SamplerConfig
from r1jax.text.tokenizer import CountdownWords, WordTokenizer
from r1jax.training import learner, policy
from r1jax.training import state as state_lib
from r1jax.training.optimizer import OptimizerConfig
from r1jax.types import Example, Problem, Rollout, Verdict

WORDS = tuple("abcdefgh")  # ids 2 to 9
TOKENIZER = WordTokenizer(WORDS)
PAD, EOS = TOKENIZER.pad_id, TOKENIZER.eos_id
SETUP = Setup(
  mesh=meshes.make_mesh(devices=jax.devices()[:1]),
  sampler_mesh=meshes.make_mesh(devices=jax.devices()[:1]),
  tokenizer=TOKENIZER,
  key=jax.random.key(0),
)
MODEL = ModelConfig(
  vocab_size=TOKENIZER.vocab_size, d_model=16, n_layers=2, n_heads=4,
  n_kv_heads=2, head_dim=8, d_ff=32, max_length=32,
)  # fmt: skip
GROUP, LENGTH, TEMPERATURE = 4, 7, 0.8
COMMON = dict(
  name="a_phase", seed=3, model=MODEL, weights=None,
  tokenizer=CountdownWords(), task=Countdown(train=1, test=1),
)  # fmt: skip
TRAINING = dict(steps=1, lr=1e-3, row_length=16, rows=2, save_every=1)


class FakeTokenizer:
  """The first token of a completion is the number of its text."""

  end_ids = (EOS,)

  def __init__(self, texts):
    self._texts = texts

  def encode(self, text):
    return [0]

  def decode(self, ids):
    return self._texts[ids[0]]


def fake_sampler(rollout, order):
  """A class in the place of `Sampler`, which finishes in this order."""

  class Fake:
    def __init__(self, model, config, group, mesh, keep):
      self.group = group

    def load(self, params):
      return params

    def sample(self, loaded, prompts, key, temperature, callbacks):
      for i in order:
        callbacks.on_finished([i], jax.tree.map(lambda x: x[[i]], rollout))
      return rollout

  return Fake


def rl(**fields):
  """A `GRPO` config of three prompts, but for these fields."""
  default = dict(
    phase="grpo", prompts=3, group=GROUP, rewards={}, temperature=TEMPERATURE,
    sampler=SamplerConfig(slots=5, max_new_tokens=LENGTH),
  )  # fmt: skip
  return grpo.GRPO(**(COMMON | TRAINING | default | fields))


def supervised(row_length):
  """An `SFT` config."""
  fields = COMMON | TRAINING | dict(row_length=row_length)
  return sft.SFT(phase="sft", data="corpus", batch=3, log_every=1, **fields)


# --- votes -------------------------------------------------------------------


def test_pass_at_1_by_hand():
  assert scores.pass_at_1([[True, False], [True, True]]) == 0.75
  assert scores.pass_at_1([[True], [False], [False], [False]]) == 0.25
  # A mean of problems, not of samples.
  assert scores.pass_at_1([[True], [False] * 4]) == 0.5


def test_pass_at_all_samples_by_hand():
  """The share of problems with a right sample."""
  verdicts = [[True, False], [False, False], [True, True], [False, True]]
  assert scores.solved(verdicts) == 0.75
  assert scores.solved([[True], [False], [False]]) == pytest.approx(1 / 3)


def test_the_interval_covers_the_truth():
  """Of a mean over problems of differing difficulty, 4 samples each."""
  rng = np.random.default_rng(0)
  covered = []
  for _ in range(1000):
    p = rng.beta(0.5, 0.5, 100)  # their mean is 0.5
    correct = (rng.random((100, 4)) < p[:, None]).tolist()
    error = abs(scores.pass_at_1(correct) - 0.5)
    covered.append(error < scores.half_width(correct))
  # 95 %, give or take three standard deviations.
  assert 0.93 < np.mean(covered) < 0.971


@pytest.mark.parametrize(
  "answers, correct, share",
  [
    ([["7", "3", "7"]], [[True, False, True]], 1.0),
    ([["3", "7", "3"]], [[False, True, False]], 0.0),
    # Two of four: the answer that came first wins the tie.
    ([["3", "7", "3", "7"]], [[False, True, False, True]], 0.0),
    ([["7", "3", "3", "7"]], [[True, False, False, True]], 1.0),
    # Silence has no vote, however often.
    ([[None, None, None, "7"]], [[False, False, False, True]], 1.0),
    ([[None, None]], [[False, False]], 0.0),
    ([["7"], ["3"], [None], ["7"]], [[True], [False], [False], [True]], 0.5),
  ],
)
def test_majority_votes_by_hand(answers, correct, share):
  assert scores.consensus(answers, correct) == share


@given(st.lists(st.sampled_from([None, "3", "7", "9"]), min_size=1))
def test_a_majority_against_counting(answers):
  correct = [a == "7" for a in answers]
  got = scores.consensus([answers], [correct])
  most = max(answers.count("3"), answers.count("9"))
  if answers.count("7") > most:
    assert got == 1
  elif answers.count("7") < most or most == 0:
    assert got == 0


def problem(i=0, target=12):
  numbers = [3, 4, 1] if target == 12 else [5, 6, 1]
  return Problem(
    id=f"p{i}", kind="countdown", prompt=f"prompt {i}", answer="3 * 4 * 1",
    language="en", data={"numbers": numbers, "target": target},
  )  # fmt: skip


RIGHT = "<think> so </think> <answer> 3 * 4 * 1 </answer>"
WRONG = "<think> so </think> <answer> 3 + 4 * 1 </answer>"
NONE = "<think> so"


def evaluated(monkeypatch, texts, ended):
  """Row and metrics of the evaluate phase: one problem, made-up samples."""
  k = len(texts)
  rollout = Rollout(
    np.arange(k)[:, None], np.zeros((k, 1), np.float32),
    np.arange(1, k + 1), np.asarray(ended),
  )  # fmt: skip
  setup = SETUP._replace(tokenizer=FakeTokenizer(texts))
  monkeypatch.setattr(evaluate.Evaluate, "setup", lambda self: setup)
  monkeypatch.setattr(Countdown, "load", lambda *args: {"test": [problem()]})
  monkeypatch.setattr(actor, "Sampler", fake_sampler(rollout, range(k)[::-1]))
  io = types.SimpleNamespace(
    root=None, bar=lambda *a, **k: 0, samples=lambda *a: 0,
    report=lambda step, metrics: measured.update(metrics),
  )  # fmt: skip
  state, measured = types.SimpleNamespace(params={}), {}
  same, row = evaluate.evaluate(
    evaluate.Evaluate(
      phase="evaluate", problems=5, samples=k, temperature=1.0, label="x",
      sampler=SamplerConfig(slots=5, max_new_tokens=LENGTH), **COMMON,
    ),
    state, None, io,
  )  # fmt: skip
  assert same is state
  return row, measured


def test_the_row_of_an_evaluation(monkeypatch):
  row, measured = evaluated(
    monkeypatch, [WRONG, RIGHT, NONE, RIGHT], [True, True, True, True]
  )
  assert row["checkpoint"] == "x"
  assert row["pass@1"] == 0.5 and row["cons@4"] == 1.0
  assert row["format"] == 0.75 and row["tokens"] == 2.5
  # The table stays narrow.
  assert "pass@4" not in row and measured["pass@4"] == 1.0
  _, measured = evaluated(monkeypatch, [WRONG, NONE], [True, True])
  assert measured["pass@1"] == measured["pass@2"] == 0.0
  _, measured = evaluated(monkeypatch, [RIGHT], [True])
  assert measured["pass@1"] == 1.0


def test_temperature_0_is_greedy():
  keys = dict(
    phase="evaluate", problems=5, label="x",
    sampler=SamplerConfig(slots=5, max_new_tokens=LENGTH), **COMMON,
  )  # fmt: skip
  greedy = evaluate.Evaluate(samples=1, temperature=0.0, **keys)
  assert greedy.decoder(FakeTokenizer([])).greedy
  drawn = evaluate.Evaluate(samples=4, temperature=0.5, **keys)
  assert not drawn.decoder(FakeTokenizer([])).greedy
  with pytest.raises(UserError, match="samples=4 would all be the same"):
    evaluate.Evaluate(samples=4, temperature=0.0, **keys)
  with pytest.raises(UserError, match="temperature=-0.5 must be at least 0"):
    evaluate.Evaluate(samples=1, temperature=-0.5, **keys)


def test_a_cut_completion_spoils_no_vote(monkeypatch):
  """Cut after its answer it counts as wrong; the others still win."""
  cut = RIGHT + " and"
  row, _ = evaluated(monkeypatch, [cut, RIGHT, RIGHT], [False, True, True])
  assert row["pass@1"] == pytest.approx(2 / 3)
  assert row["cons@3"] == 1.0


def test_verdicts_by_task():
  verdicts = [[True], [False], [False], [True]]
  assert scores.by_task(["gcd-0", "lcm-0", "gcd-1", "lcm-12"], verdicts) == [
    ("gcd", [[True], [False]]), ("lcm", [[False], [True]]),
  ]  # fmt: skip
  assert scores.by_task(["gcd-0", "gcd-1"], verdicts[:2]) == []
  assert scores.by_task(["a", "b", "c"], verdicts[:3]) == []


# --- rejection sampling ------------------------------------------------------


def scored(texts, parts, ended, problems):
  c = len(texts)
  rollout = Rollout(
    np.zeros((c, 1), np.int32), np.zeros((c, 1)), np.ones(c), np.array(ended)
  )
  return Scored(problems, [], rollout, texts, [], parts)


def test_rejection_keeps_the_good_ones():
  good = {"accuracy": 1.0, "language": 0.95}
  s = scored(
    texts=["a", "b", "a", "c", "d", "e", "f", "g"],
    parts=[good, {**good, "accuracy": 0.0}, good, good,
           {**good, "language": 0.5}, good, good, good],
    ended=[True, True, True, True, True, False, True, True],
    problems=[problem(0), problem(1)],
  )  # fmt: skip
  least = {"accuracy": 1.0, "language": 0.9}
  # "a" twice is one; "b" is wrong, "d" mixes languages, "e" was cut.
  kept = rejection.select(s, 4, 9, least)
  assert kept == [
    Example("prompt 0", "a"),
    Example("prompt 0", "c"),
    Example("prompt 1", "f"),
    Example("prompt 1", "g"),
  ]
  assert rejection.select(s, 4, 1, least) == [kept[0], kept[2]]
  assert rejection.select(s, 4, 9, {"accuracy": 2.0}) == []


# --- supervised examples -----------------------------------------------------


def test_encoding_trains_the_completion_and_its_end():
  tokens, trained = sft.encode(TOKENIZER, Example("a b", "c d e"))
  np.testing.assert_array_equal(tokens, [2, 3, 4, 5, 6, EOS])
  np.testing.assert_array_equal(trained, [0, 0, 1, 1, 1, 1])
  assert tokens.dtype == np.int32 and trained.dtype == bool


def test_encoding_without_a_prompt():
  tokens, trained = sft.encode(TOKENIZER, Example("", "a b"))
  np.testing.assert_array_equal(tokens, [2, 3, EOS])
  assert trained[1:].all()  # nothing predicts the first


def test_packed_examples_weigh_each_token_the_same():
  examples = [Example("a b", "c"), Example("d", "e f g h"), Example("", "a b")]
  batch = sft.pack_examples(TOKENIZER, examples, supervised(8), 2, 2)
  # 1 + 1 and 4 + 1 tokens after the prompts; of 2 + 1 without a prompt the
  # first cannot be predicted, and so has no part in the mean.
  trained = batch.weights > 0
  want = [4, EOS, 6, 7, 8, 9, EOS, 3, EOS]
  assert sorted(batch.targets[trained]) == sorted(want)
  np.testing.assert_allclose(batch.weights[trained], 1 / 9, rtol=1e-5)
  with pytest.raises(UserError, match="a_phase.row_length"):
    sft.pack_examples(TOKENIZER, examples, supervised(4), 2, 2)


# --- reinforcement learning --------------------------------------------------


def test_nothing_of_the_prompt_is_trained():
  s = grpo_batch.sequence(
    np.array([5, 6, 7]), np.array([8, EOS]), np.array([0.25, 0.25]), -1.5,
    np.array([-0.5, -0.1]),
  )  # fmt: skip
  np.testing.assert_array_equal(s.tokens, [5, 6, 7, 8, EOS])
  np.testing.assert_array_equal(s.weights, [0, 0, 0, 0.25, 0.25])
  np.testing.assert_allclose(s.old_logprobs, [0, 0, 0, -0.5, -0.1])
  assert s.advantage == -1.5


@pytest.fixture(scope="module")
def rollout():
  """A real rollout of three prompts of different lengths."""
  params = random_params(MODEL)
  prompts = [np.array([2, 3, 4, 5]), np.array([6]), np.array([7, 8])]
  config = SamplerConfig(slots=5, max_new_tokens=LENGTH, eos_id=EOS)
  sampler = Sampler(MODEL, config, GROUP)
  r = sampler.sample(
    sampler.load(params), prompts, jax.random.key(5), TEMPERATURE
  )
  r = jax.tree.map(np.asarray, r)
  assert r.ended.any() and not r.ended.all()
  return params, Scored([None] * 3, prompts, r, [""] * 12, [], [])


def pack(rollout, minibatches, step=0, advantages=None, beta=0.0):
  if advantages is None:
    # Different for each completion, so that it says which one a segment is.
    advantages = np.arange(1, 13, dtype=np.float32)
  advantages = np.asarray(advantages, np.float32).reshape(3, GROUP)
  c = rl(minibatches=minibatches, loss=variants.Loss(beta=beta), ref_every=1)
  return grpo_batch.pack(c, SETUP, rollout[1], advantages, step)


def segments(batches):
  """(mini-batch, completion) -> mask of its places."""
  found = {}
  for b, batch in enumerate(batches):
    for i in range(12):
      at = (batch.advantages == i + 1) & (batch.segments > 0)
      if at.any():
        found[b, i] = at
  return found


@pytest.mark.parametrize("minibatches", [1, 3])
def test_every_completion_is_trained_once(rollout, minibatches):
  batches = pack(rollout, minibatches)
  assert len(batches) == minibatches
  found = segments(batches)
  assert sorted(i for _, i in found) == list(range(12))
  r, prompts = rollout[1].rollout, rollout[1].prompts
  for (b, i), at in found.items():
    batch, n, prompt = batches[b], r.lengths[i], prompts[i // GROUP]
    text = np.concatenate((prompt, r.tokens[i, :n]))
    np.testing.assert_array_equal(batch.tokens[at], text[:-1])
    np.testing.assert_array_equal(batch.targets[at], text[1:])
    trained = at & (batch.weights > 0)
    # The whole completion with its end, and nothing of the prompt.
    np.testing.assert_array_equal(batch.targets[trained], r.tokens[i, :n])
    np.testing.assert_allclose(
      batch.weights[trained], minibatches / 12 / n, rtol=1e-6
    )
    np.testing.assert_allclose(batch.old_logprobs[trained], r.logprobs[i, :n])
  for batch in batches:
    np.testing.assert_allclose(batch.weights.sum(), 1, rtol=1e-5)
  # One compiled program serves all mini-batches.
  assert len({b.tokens.shape for b in batches}) == 1


def test_the_shuffle_is_that_of_seed_and_step(rollout):
  def members(**kwargs):
    return sorted(segments(pack(rollout, 3, **kwargs)))

  assert members() == members()
  assert members() != members(step=1)
  # A group is spread over the optimiser steps.
  of_first = {b for b, i in members() if i < GROUP}
  assert len(of_first) > 1


def test_the_learner_agrees_with_the_sampler_on_packed_rows(rollout):
  (batch,) = pack(rollout, 1)
  b = batch

  @jax.jit
  def score(params, *rows):
    return policy.logprobs(MODEL, params, policy.Rows(*rows), TEMPERATURE)[0]

  rows = (b.tokens, b.positions, b.segments, b.targets)
  lp = score(rollout[0], *(x.reshape(-1, x.shape[-1]) for x in rows))
  lp = np.asarray(lp).reshape(b.tokens.shape)
  trained = b.weights > 0
  assert trained.sum() == rollout[1].rollout.lengths.sum()
  np.testing.assert_allclose(lp[trained], b.old_logprobs[trained], atol=1e-4)


def test_without_a_kl_term_no_advantage_costs_nothing(rollout):
  params, of = rollout[0], rollout[1]
  advantages = [0] * GROUP + [-1, 1, 1, -1] + [0, 2, -2, 0]
  (every,) = pack(rollout, 1, advantages=advantages, beta=1e-3)
  (some,) = pack(rollout, 1, advantages=advantages)
  assert (every.weights > 0).sum() == of.rollout.lengths.sum()
  lengths = of.rollout.lengths[np.array(advantages) != 0]
  assert (some.weights > 0).sum() == lengths.sum()
  # Each token weighs what it did: 6 of 12 completions.
  np.testing.assert_allclose(some.weights.sum(), 0.5, rtol=1e-6)

  def loss(params, batch):
    b = jax.tree.map(lambda x: x.reshape(-1, x.shape[-1]), batch[:-1])
    b = type(batch)(*b, count=batch.count)
    rows = policy.Rows(b.tokens, b.positions, b.segments, b.targets)
    lp, _ = policy.logprobs(MODEL, params, rows, TEMPERATURE)
    return losses.grpo_loss(
      lp, b.old_logprobs, lp, b.advantages, b.weights, 0.2, 0.0
    )[0]

  want, got = (jax.jit(jax.grad(loss))(params, b) for b in (every, some))
  assert max(jnp.abs(x).max() for x in jax.tree.leaves(want)) > 1e-2
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), want, got
  )
  # Nor has a rollout without any signal a token to compute.
  (none,) = pack(rollout, 1, advantages=np.zeros(12))
  assert none.count == 0 and not none.weights.any()


def test_metrics_are_of_what_was_trained():
  updates = [
    dict(trained=0.5, entropy=1.0), dict(trained=0.25, entropy=0.2),
  ]  # fmt: skip
  assert grpo_report.token_mean(updates, "entropy") == pytest.approx(1.2 / 0.75)
  assert np.isnan(grpo_report.token_mean([dict(trained=0.0, kl=0.0)], "kl"))


def test_supervised_loss_of_a_fresh_model_is_about_log_v():
  mesh = meshes.make_mesh(devices=jax.devices()[:1])
  examples = [Example("a b", "c d e f"), Example("g", "h a b")]
  batch = sft.pack_examples(TOKENIZER, examples, supervised(16), 1, 1)
  optimizer = learner.optim.OptimizerConfig()
  state = state_lib.new_state(MODEL, optimizer, mesh, None, jax.random.key(0))
  update = sft.update_fn(MODEL, optimizer, mesh)
  _, m = update(state, learner.place(batch, mesh), 1e-3)
  assert abs(m["loss"] - np.log(TOKENIZER.vocab_size)) < 0.7
  assert 0 < m["entropy"] <= np.log(TOKENIZER.vocab_size) + 1e-5


def rewarded(name, rewards):
  """A `Scored` of made-up rewards [N, 2], recognisable by `name`."""
  n = len(rewards)
  rollout = Rollout(
    np.full((2 * n, 3), ord(name)), np.zeros((2 * n, 3), np.float32),
    np.full(2 * n, 3), np.ones(2 * n, bool),
  )  # fmt: skip
  return Scored(
    [f"{name}{i}" for i in range(n)], [np.array([i]) for i in range(n)],
    rollout, [f"{name}{i}" for i in range(2 * n)],
    [Verdict(False, 0.0, "wrong")] * 2 * n,
    [{"reward": r, "reason": "wrong"} for r in np.ravel(rewards)], 1.0,
  )  # fmt: skip


@pytest.mark.parametrize("refill", [0, 1, 2])
def test_groups_without_signal_are_drawn_again(refill):
  turns = [
    rewarded("a", [[1, 1], [1, 0], [0, 0]]),
    rewarded("b", [[0, 0], [0, 0], [0, 1]]),
    rewarded("c", [[1, 0], [0, 1], [1, 1]]),
  ]
  asked = []

  def rollout(problems, step, redraw):
    asked.append((problems, (step, redraw)))
    return turns[len(asked) - 1]

  fake = types.SimpleNamespace(rollout=rollout)
  problems = types.SimpleNamespace(take=lambda step, n, seed: step)
  c = rl(group=2, refill=refill)
  drawn, trained = grpo.sample_with_signal(c, fake, problems, step=4)
  assert drawn is turns[0]  # what metrics are of
  want = {
    0: ["a0", "a1", "a2"], 1: ["b2", "a1", "a2"], 2: ["b2", "a1", "c0"]
  }  # fmt: skip
  assert trained.problems == want[refill]
  assert len(asked) == refill + 1
  # Other problems and other randomness each time, in every step.
  first = 4 * (refill + 1)
  assert [p for p, _ in asked] == [*range(first, first + refill + 1)]
  assert [k for _, k in asked] == [(4, i) for i in range(refill + 1)]
  if refill == 2:
    assert trained.texts == ["b4", "b5", "a2", "a3", "c0", "c1"]
    np.testing.assert_array_equal(trained.reward, [[0, 1], [1, 0], [1, 0]])
    assert trained.rollout.tokens[:, 0].tolist() == [98, 98, 97, 97, 99, 99]
    # What was drawn is left as it was.
    assert drawn.problems == ["a0", "a1", "a2"]


def test_the_learners_logprobs_of_a_packed_rollout(rollout):
  """What the correction compares with: the sampler's, up to rounding."""
  params, _ = rollout
  (batch,) = pack(rollout, 1)
  program = grpo_update.Logprobs(MODEL, SETUP.mesh)
  placed = learner.place(batch, SETUP.mesh)
  logprobs = np.asarray(program(params, placed, TEMPERATURE))
  real = batch.weights > 0
  np.testing.assert_allclose(
    logprobs[real], batch.old_logprobs[real], atol=1e-4
  )
  assert logprobs[real].max() < 0
  lowered = program.lower(*program.shapes(batch))
  assert lowered.out_info.shape == logprobs.shape


@pytest.mark.parametrize("passed", [True, False])
def test_a_correction_with_and_without_its_own_pass(rollout, passed):
  """Before the first update the learner's log-probabilities are its own."""
  params, _ = rollout
  (batch,) = pack(rollout, 1)
  # A sampler that was off by a tenth: every ratio is 0.9, and 0.8 the bound.
  batch = batch._replace(old_logprobs=batch.old_logprobs - np.log(0.9))
  if passed:
    c = rl(minibatches=2, loss=variants.Loss(correction="truncate"))
    batch = grpo_update.with_logprobs(c, SETUP.mesh, params, None, batch)
    assert batch.learner_logprobs is not None
    assert batch.reference_logprobs is None
  losses_of = {}
  for kind, bounds in (("truncate", (0.0, 2.0)), ("mask", (0.95, 2.0))):
    loss = variants.Loss(correction=kind, correction_range=bounds)
    optimizer = OptimizerConfig()
    update = grpo_update.update_fn(MODEL, optimizer, SETUP.mesh)
    state = state_lib.restart_fn(MODEL, optimizer, SETUP.mesh)(params)
    _, metrics = update(
      state, learner.place(batch, SETUP.mesh), 0.0, None, loss, TEMPERATURE
    )
    losses_of[kind] = float(metrics["loss"])
  # rho = 1, so the loss is -0.9 sum w A; masked, nothing is left of it.
  want = -0.9 * (batch.weights * batch.advantages).sum()
  assert losses_of["truncate"] == pytest.approx(want, rel=1e-3)
  assert losses_of["mask"] == 0


def test_a_reference_in_the_hosts_memory_changes_nothing_else(rollout):
  """The same step, with and without another policy on the devices."""
  params, _ = rollout
  (batch,) = pack(rollout, 1)
  found = {}
  for offload in (False, True):
    optimizer = OptimizerConfig(offload=offload)
    c = rl(optimizer=optimizer)
    other = jax.tree.map(lambda x: 1.1 * x, params)
    reference = grpo.reference_of(c, SETUP, other)
    kinds = {
      x.sharding.memory_kind for x in jax.tree.leaves(reference) if x.ndim
    }
    assert (kinds == {sharding.HOST}) == offload
    with_reference = grpo_update.with_logprobs(
      c, SETUP.mesh, params, reference, batch
    )
    assert (with_reference.reference_logprobs is not None) == offload
    update = grpo_update.update_fn(MODEL, optimizer, SETUP.mesh)
    state = state_lib.restart_fn(MODEL, optimizer, SETUP.mesh)(params)
    state, metrics = update(
      state, learner.place(with_reference, SETUP.mesh), 1e-3,
      None if offload else reference, variants.Loss(beta=0.5), TEMPERATURE,
    )  # fmt: skip
    found[offload] = state.params, float(metrics["kl"])
  (here, kl), (there, kl_there) = found[False], found[True]
  assert kl == pytest.approx(kl_there, rel=1e-4) and kl > 1e-3
  for a, b in zip(jax.tree.leaves(here), jax.tree.leaves(there)):
    np.testing.assert_allclose(a, b, atol=1e-5)


@pytest.mark.parametrize("advantage", ["deviation", "centred", "leave_one_out"])
def test_equal_rewards_are_no_signal(advantage):
  """Rewards whose mean rounds to another number."""
  scored = rewarded("a", [[0.3, 0.3], [0.3, 0.1], [1.1, 1.1]])
  scored = scored._replace(
    **{
      k: [x for x in getattr(scored, k) for _ in range(3)]
      for k in ("texts", "verdicts", "scores")
    }
  )
  assert scored.has_signal.tolist() == [False, True, False]
  c = rl(loss=variants.Loss(advantage=advantage))
  advantages = grpo.advantages_of(c, scored)
  assert (advantages[[0, 2]] == 0).all() and (advantages[1] != 0).all()


def test_a_problem_that_cannot_be_judged_trains_nothing():
  """Though its rewards differ: the form still pays, and the answer is lost."""
  scored = rewarded("a", [[1.0, 0.0], [1.0, 0.0]])
  scored.verdicts[1] = rewards.SKIPPED
  advantages = grpo.advantages_of(rl(), scored)
  assert (advantages[0] == 0).all() and (advantages[1] != 0).all()


def test_verdicts_of_the_pool_come_back_in_order(monkeypatch):
  """Of kinds that are judged by other processes, while others are sampled."""
  texts = ["\\boxed{2}", "\\boxed{3}", "\\boxed{1+1}", "\\boxed{2}"]
  problems = [
    Problem("0", "math", "a", "2", "en", {}),
    Problem("1", "math", "b", "\\frac{", "en", {}),
  ]
  rollout = Rollout(
    np.arange(4)[:, None], np.zeros((4, 1)), np.ones(4, int),
    np.array([True, True, False, True]),
  )  # fmt: skip
  monkeypatch.setattr(actor, "Sampler", fake_sampler(rollout, (3, 1, 0, 2)))
  setup = SETUP._replace(tokenizer=FakeTokenizer(texts))
  scored = actor.Actor(rl(), setup, 2, {"accuracy": 1.0}).rollout(problems)
  reasons = [row["reason"] for row in scored.scores]
  assert reasons == ["correct", "wrong", "cut", "bad_problem"]
  assert scored.reward.tolist() == [[1.0, 0.0], [0.0, 0.0]]
  assert scored.judged.tolist() == [True, False]


def test_a_text_ends_before_its_stop_string(monkeypatch):
  """For the verifier too: what a model invents after it is no answer."""
  form = "<think> b </think> <answer> {} </answer>"
  texts = [form.format(2) + " User: " + form.format(3), form.format(2)]
  rollout = Rollout(
    np.arange(2)[:, None], np.zeros((2, 1)), np.ones(2, int), np.ones(2, bool)
  )
  monkeypatch.setattr(actor, "Sampler", fake_sampler(rollout, range(2)))
  setup = SETUP._replace(tokenizer=FakeTokenizer(texts))
  problems = [Problem("0", "exact", "a", "2", "en", {})]
  for stop, correct in (((), [0, 1]), (("User:",), [1, 1])):
    sampler = SamplerConfig(slots=4, max_new_tokens=8, stop=stop)
    a = actor.Actor(rl(sampler=sampler), setup, 2, {"accuracy": 1.0})
    scored = a.rollout(problems)
    assert [row["accuracy"] for row in scored.scores] == correct
  assert scored.texts == [form.format(2) + " ", form.format(2)]


def test_the_overlong_penalty_is_in_the_reward_that_is_reported(monkeypatch):
  """The last 4 of 8 tokens cost reward: 3, 6 and 8 tokens lose 0, 0.5, 1."""
  problems = [Problem("0", "exact", "a", "2", "en", {})] * 2
  rollout = Rollout(
    np.zeros((4, 8), int), np.zeros((4, 8)), np.array([3, 6, 8, 8]),
    np.ones(4, bool),
  )  # fmt: skip
  monkeypatch.setattr(actor, "Sampler", fake_sampler(rollout, range(4)))
  c = rl(
    loss=variants.Loss(advantage="centred", overlong=4),
    sampler=SamplerConfig(slots=4, max_new_tokens=8),
  )
  text = "<think> b </think> <answer> 2 </answer>"
  setup = SETUP._replace(tokenizer=FakeTokenizer([text]))
  scored = actor.Actor(c, setup, 2, {"format": 2.0}, 4).rollout(problems)
  np.testing.assert_allclose(scored.reward, [[2, 1.5], [1, 1]])
  assert scored.mean("overlong") == -0.625
  np.testing.assert_allclose(
    grpo.advantages_of(c, scored), [[0.25, -0.25], [0, 0]]
  )
  names = (
    "trained", "loss", "grad_norm", "kl", "entropy", "clip_fraction",
    "old_gap", "old_kl", "old_ratio",
  )  # fmt: skip
  checks = {"checks": {"applied": True}}
  updates = [
    dict.fromkeys(names, 1.0) | checks | {"largest": {"old_gap": 0.5}},
    dict.fromkeys(names, np.nan) | {"checks": {"applied": False}},
  ]
  seconds = {"sample": 1.0, "update": 1.0}
  row = grpo_report.report(
    scored, grpo.advantages_of(c, scored), updates, seconds
  )
  assert row["reward"] == 1.375 and row["overlong"] == -0.625
  # Of 2, 1.5, 1, 1, and of 0.25, -0.25, 0, 0.
  assert row["reward_std"] == pytest.approx((0.6875 / 4) ** 0.5)
  assert row["advantage_std"] == pytest.approx(0.125**0.5 / 2)
  assert row["no_signal"] == 0.5
  # Of 3, 6, 8, 8: the percentiles lie between the two nearest.
  percentiles = [row[f"tokens_{p}"] for p in ("p10", "p50", "p90", "max")]
  assert percentiles == pytest.approx([3.9, 7, 8, 8])
  # What was not applied has no part in the means.
  assert row["loss"] == row["kl"] == 1 and row["sampler_learner_gap_max"] == 0.5


def test_a_run_that_learns_nothing_says_so(tmp_path, capfd):
  silence = grpo_report.Silence(phase_io.PhaseIO(tmp_path, "rl"), steps=5)
  equal, signal = (
    types.SimpleNamespace(
      has_signal=np.array([False, x]), scores=[{"reason": "no_answer"}] * 4
    )
    for x in (False, True)
  )
  for scored in (equal, signal, equal, equal):
    silence(scored)
  assert capfd.readouterr().out == ""
  silence(equal)
  silence(equal)
  said = capfd.readouterr().out
  assert said.count("\n") == 1 and "(no_answer 100%)" in said
