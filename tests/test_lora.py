"""Adapters: against the plain model whose kernels are W + alpha / r A B."""

import dataclasses
import functools
import json
import math

import hf_files
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors
from jax.sharding import PartitionSpec as P
from ml_collections import ConfigDict
from test_model import forward, inputs, random_params
from test_shared_prompts import groups

from experiments import launch, plan
from r1jax import hf, language_model, losses, meshes, sharding, variants
from r1jax import model as model_lib
from r1jax.errors import UserError
from r1jax.model import ModelConfig, lora
from r1jax.phases import PHASES, grpo_update
from r1jax.run import checkpoint
from r1jax.run.phase_io import PhaseIO
from r1jax.sampling import weights
from r1jax.sampling.sampler import Sampler, SamplerConfig
from r1jax.sampling.stream import stream
from r1jax.training import learner, optimizer, packing, policy
from r1jax.training import state as state_lib
from r1jax.training.optimizer import OptimizerConfig
from r1jax.types import TrainState
from tools import hf_export

PLAIN = ModelConfig(
  vocab_size=32, d_model=16, n_layers=2, n_heads=4, n_kv_heads=2, head_dim=6,
  d_ff=20, max_length=64, tied=False, qkv_bias=True,
)  # fmt: skip
MODEL = dataclasses.replace(PLAIN, lora_rank=4, lora_alpha=6.0)
SCALE = 1.5
ADAPTED = ("q", "k", "v", "o", "gate", "up", "down")
PARAMS = random_params(MODEL)
# Clips nothing, so that the first moment is a tenth of the gradient.
OPTIMIZER = OptimizerConfig(clip_norm=1e9, eps=1e-3)


def merged(params):
  """In numpy, by hand."""
  params = jax.tree.map(np.array, params)
  for name in ADAPTED:
    module = params["layers"][name]
    a, b = module.pop("lora_a"), module.pop("lora_b")
    for i in range(PLAIN.n_layers):
      module["kernel"][i] += SCALE * (a[i] @ b[i])
  return params


def frozen(params):
  """Without adapters, by hand."""
  params = jax.tree.map(lambda x: x, params)
  for name in ADAPTED:
    del params["layers"][name]["lora_a"], params["layers"][name]["lora_b"]
  return params


def close(got, want, tolerance=1e-5):
  jax.tree.map(
    lambda x, y: np.testing.assert_allclose(
      x, y, rtol=tolerance, atol=tolerance
    ),
    got, want,
  )  # fmt: skip


def identical(got, want):
  jax.tree.map(np.testing.assert_array_equal, got, want)


@functools.cache
def mesh(**sizes):
  if sizes:
    return meshes.make_mesh(**sizes)
  return meshes.make_mesh(devices=jax.devices()[:1])


@functools.cache
def fresh():
  """A random start: base and adapters."""
  return state_lib.random_fn(MODEL, OPTIMIZER, mesh())(jax.random.key(5))


def test_fresh_adapters_change_nothing():
  params = fresh().params
  base = frozen(params)
  want = forward(PLAIN, base, *inputs())
  identical(forward(MODEL, params, *inputs()), want)
  # A tree without adapters is the base, whatever the model could have.
  identical(forward(MODEL, base, *inputs()), want)
  for name in ADAPTED:
    module = params["layers"][name]
    layers, width, out = module["kernel"].shape
    a, b = module["lora_a"], module["lora_b"]
    assert a.shape == (layers, width, 4) and b.shape == (layers, 4, out)
    assert a.dtype == b.dtype == jnp.float32
    assert np.std(a) == pytest.approx(width**-0.5, rel=0.3)
    assert not np.array_equal(a[0], a[1]) and not b.any()


def test_how_many_they_are():
  """SmolLM2-135M at rank 16: a layer has 16 (in + out) for each projection."""
  config = ModelConfig(
    vocab_size=49_152, d_model=576, n_layers=30, n_heads=9, n_kv_heads=3,
    head_dim=64, d_ff=1536, max_length=8192, lora_rank=16,
  )  # fmt: skip
  params = jax.eval_shape(
    lambda key: model_lib.init(config, key), jax.random.key(0)
  )
  count = 30 * 16 * (2 * 1152 + 2 * 768 + 3 * 2112)
  assert count == 4_884_480
  assert model_lib.param_count(state_lib.split(config, params)[0]) == count
  assert model_lib.param_count(params) == 134_515_008 + count


def test_it_computes_what_the_merged_model_does():
  plain = merged(PARAMS)
  close(lora.merge(MODEL, PARAMS), plain, 1e-6)
  got = forward(MODEL, PARAMS, *inputs())
  close(got, forward(PLAIN, plain, *inputs()))
  base = forward(PLAIN, frozen(PARAMS), *inputs())
  assert np.abs(got - base).max() > 0.5


def test_a_tree_is_split_and_put_together():
  trained, rest = state_lib.split(MODEL, PARAMS)
  assert set(trained) == {"layers"} and set(trained["layers"]) == set(ADAPTED)
  identical(rest, frozen(PARAMS))
  identical(state_lib.join(trained, rest), PARAMS)
  plain = frozen(PARAMS)
  assert state_lib.split(PLAIN, plain) == (plain, {})
  # Of a model with adapters the base is frozen, also while it lacks them.
  assert state_lib.split(MODEL, plain) == ({}, plain)
  identical(state_lib.join(plain, {}), plain)
  with pytest.raises(UserError, match="have layers/.*/lora_., of which"):
    state_lib.split(PLAIN, PARAMS)


def test_a_frozen_base_may_be_bfloat16():
  model = dataclasses.replace(
    MODEL, param_dtype="bfloat16", compute_dtype="bfloat16"
  )
  shapes = jax.eval_shape(
    lambda key: model_lib.init(model, key), jax.random.key(0)
  )
  trained, rest = state_lib.split(model, shapes)
  assert {x.dtype for x in jax.tree.leaves(trained)} == {jnp.dtype("float32")}
  assert {x.dtype for x in jax.tree.leaves(rest)} == {jnp.dtype("bfloat16")}
  params = jax.tree.map(lambda x, s: x.astype(s.dtype), PARAMS, shapes)
  got = forward(model, params, *inputs())
  want = forward(MODEL, PARAMS, *inputs())
  assert np.abs(got - want).mean() < 0.03


# --- the learner -------------------------------------------------------------


@functools.cache
def batch():
  """Groups whose completions share their prompts, packed and padded."""
  sequences = groups(0, [(5, (4, 7, 3)), (3, (6, 6)), (1, (4, 2))])
  return packing.pack(
    sequences, row_length=24, rows=4, micro_batches=2, shared=True
  )


def started(params, config=OPTIMIZER, where=None, model=MODEL):
  state = TrainState(None, params, None)
  return state_lib.new_state(model, config, where or mesh(), state, None)


def stepped(config=OPTIMIZER, where=None, model=MODEL, steps=1):
  """The state after GRPO steps, and the metrics of each."""
  where = where or mesh()
  update = grpo_update.update_fn(model, config, where)
  state, metrics = started(PARAMS, config, where, model), []
  for _ in range(steps):
    state, found = update(
      state, learner.place(batch(), where), 3e-2, None, variants.Loss(), 1.0
    )
    metrics.append(jax.device_get(found))
  return state, metrics


@functools.cache
def alone():
  return jax.device_get(stepped())


def gradients(state):
  """Those of the first step, from AdamW's first moments."""
  return jax.tree.map(lambda x: 10 * x, state.opt_state[1].mu)


@functools.cache
def chain_rule():
  """dA = s dW B^T and dB = s A^T dW, dW being of the merged plain model."""

  def loss(params, b):
    lp = policy.logprobs(PLAIN, params, policy.rows_of(b), 1.0)[0]
    return losses.grpo_loss(
      lp, b.old_logprobs, jax.lax.stop_gradient(lp), b.advantages, b.weights,
      0.2, 0.0,
    )  # fmt: skip

  f = jax.jit(lambda p, b: learner.accumulate(loss, p, b)[0])
  whole = jax.device_get(f(merged(PARAMS), batch()))
  found = {}
  for name in ADAPTED:
    module, dw = PARAMS["layers"][name], whole["layers"][name]["kernel"]
    a, b = np.asarray(module["lora_a"]), np.asarray(module["lora_b"])
    found[name] = {
      "lora_a": SCALE * np.einsum("lio,lro->lir", dw, b),
      "lora_b": SCALE * np.einsum("lir,lio->lro", a, dw),
    }
  return {"layers": found}


def test_the_gradient_is_that_of_the_chain_rule():
  close(gradients(alone()[0]), chain_rule())
  largest = [np.abs(x).max() for x in jax.tree.leaves(chain_rule())]
  assert min(largest) > 1e-3


def test_so_it_is_on_eight_devices_and_where_some_is_computed_again():
  where = mesh(data=2, fsdp=2, tensor=2)
  model = dataclasses.replace(MODEL, remat="products")
  state, (metrics,) = stepped(where=where, model=model)
  close(gradients(state), chain_rule())
  close(metrics, alone()[1][0], 1e-4)
  for name, a, b in (
    ("q", P(None, "fsdp", None), P(None, None, "tensor")),
    ("down", P(None, "tensor", None), P(None, None, "fsdp")),
  ):
    for tree in (state.params, state.opt_state[1].mu, state.opt_state[1].nu):
      for leaf, spec in (("lora_a", a), ("lora_b", b)):
        x = tree["layers"][name][leaf]
        want = jax.sharding.NamedSharding(where.grid, spec)
        assert want.is_equivalent_to(x.sharding, x.ndim), (name, leaf)


def test_a_step_changes_adapters_and_nothing_else():
  state, _ = stepped(steps=2)
  identical(frozen(state.params), frozen(PARAMS))
  for x, y in zip(*(jax.tree.leaves(state_lib.split(MODEL, p)[0])
                    for p in (state.params, PARAMS))):  # fmt: skip
    assert (x != y).all()


def test_frozen_parameters_are_held_once():
  """By the state before, the state after and whoever brought them."""
  update = grpo_update.update_fn(MODEL, OPTIMIZER, mesh())
  params = model_lib.place(MODEL, PARAMS, mesh())
  before = started(params)
  after, _ = update(
    before, learner.place(batch(), mesh()), 0.0, None, variants.Loss(), 1.0
  )
  name = "gate"
  for tree in (before.params, after.params):
    mine, theirs = (t["layers"][name]["kernel"] for t in (tree, params))
    assert mine.unsafe_buffer_pointer() == theirs.unsafe_buffer_pointer()
  assert before.params["layers"][name]["lora_a"].is_deleted()
  assert not params["layers"][name]["lora_a"].is_deleted()


@pytest.mark.parametrize(
  "config, bytes_each",
  [
    (OPTIMIZER, 8),
    (
      OptimizerConfig(moments="int8", accumulator="bfloat16", offload=True),
      2,
    ),
  ],
  ids=["float32", "int8-offload"],
)
def test_moments_are_of_adapters_only(config, bytes_each):
  state, metrics = stepped(config, steps=6)
  adapters = jax.tree.leaves(state_lib.split(MODEL, PARAMS)[0])
  moments = [x for x in jax.tree.leaves(state.opt_state) if x.ndim == 3]
  want = bytes_each * sum(x.size for x in adapters)
  if config.moments == "int8":
    # And twice four bytes a row.
    want += 8 * sum(x.size // x.shape[-1] for x in adapters)
  assert sum(x.nbytes for x in moments) == want
  kinds = {x.sharding.memory_kind for x in moments}
  assert kinds == {sharding.HOST if config.offload else "device"}
  identical(frozen(state.params), frozen(PARAMS))
  assert metrics[-1]["loss"] < metrics[0]["loss"] - 0.05


def test_muon_takes_them_for_matrices():
  config = OptimizerConfig(kind="muon")
  trained, _ = state_lib.split(MODEL, PARAMS)
  facts = state_lib.gradient_facts(MODEL)
  state = optimizer.init_state(config, facts, trained)
  step = jax.jit(functools.partial(optimizer.apply_gradients, config, facts))
  state, _ = step(state, chain_rule(), 1.0)
  for old, new in zip(*map(jax.tree.leaves, (trained, state.params))):
    # Orthogonalised: singular values alike, whatever the gradient's are.
    sizes = np.linalg.svd(np.asarray(old - new), compute_uv=False)
    assert sizes.shape == (2, 4) and 0 < sizes.max() < 3 * sizes.min()


def test_adapters_decay_like_weights():
  facts = jax.tree.leaves(state_lib.gradient_facts(MODEL))
  assert len(facts) == 2 * len(ADAPTED) and all(f.decays for f in facts)


def compiled(model):
  """The gradient of what is trained, of a few tokens."""
  shapes = jax.eval_shape(
    lambda key: model_lib.init(model, key), jax.random.key(0)
  )
  trained, rest = state_lib.split(model, shapes)
  ones = jnp.ones((2, 2), jnp.int32)

  def loss(trained, rest):
    params = state_lib.join(trained, rest)
    rows = policy.Rows(ones, ones, ones, ones)
    return policy.logprobs(model, params, rows)[0].sum()

  return jax.jit(jax.grad(loss)).lower(trained, rest).compile()


@pytest.mark.usefixtures("fused")
def test_nothing_is_computed_for_what_is_frozen():
  """Neither the table's gradient, in memory, nor those of the weights."""
  config = dataclasses.replace(
    PLAIN, d_model=64, d_ff=256, vocab_size=2**11, tied=True
  )
  plain, adapted = (
    compiled(dataclasses.replace(config, lora_rank=r)) for r in (0, 1)
  )
  table = 4 * config.vocab_size * config.d_model
  assert adapted.memory_analysis().temp_size_in_bytes < table
  # Of three products with each weight one is left out; were only the layers'
  # computed after all, it would be three quarters.
  flops = [x.cost_analysis()["flops"] for x in (plain, adapted)]
  assert flops[1] < 0.7 * flops[0]


# --- the sampler -------------------------------------------------------------


def test_the_sampler_agrees_with_the_learner():
  rng = np.random.default_rng(0)
  width, new, group = 5, 12, 8
  prompts = rng.integers(2, 32, (2, width)).astype(np.int32)
  config = SamplerConfig(slots=8, max_new_tokens=new, eos_id=1)
  sampler = Sampler(MODEL, config, group)
  rollout = sampler.sample(sampler.load(PARAMS), prompts, jax.random.key(0))
  rows = np.concatenate((np.repeat(prompts, group, 0), rollout.tokens), axis=1)
  real = np.arange(new) < np.asarray(rollout.lengths)[:, None]
  positions = np.broadcast_to(np.arange(width + new - 1), (16, width + new - 1))
  scored = policy.Rows(
    rows[:, :-1], positions, np.ones_like(positions), rows[:, 1:]
  )
  score = jax.jit(
    lambda model, p: policy.logprobs(model, p, scored)[0][:, width - 1 :],
    static_argnums=0,
  )
  said = np.asarray(rollout.logprobs)
  close(said[real], score(MODEL, PARAMS)[real])
  assert np.abs(said - score(MODEL, frozen(PARAMS)))[real].max() > 0.5


def test_decoding_is_that_of_the_merged_model():
  close(
    weights.lay_out(MODEL, PARAMS), weights.lay_out(PLAIN, merged(PARAMS)), 1e-6
  )


# --- starts, ends and what lies between --------------------------------------


def test_a_start_from_the_base_and_from_adapters():
  base = TrainState(None, frozen(PARAMS), None)
  state = state_lib.new_state(MODEL, OPTIMIZER, mesh(), base, jax.random.key(5))
  identical(frozen(state.params), frozen(PARAMS))
  identical(*(state_lib.split(MODEL, s.params)[0] for s in (state, fresh())))
  assert jax.tree.structure(state) == jax.tree.structure(fresh())
  identical(started(PARAMS).params, PARAMS)


def test_hugging_face_gets_the_merged_weights(tmp_path):
  hf.save(tmp_path / "m", MODEL, PARAMS)
  model, params = hf.load(tmp_path / "m")
  assert model.config == PLAIN
  close(params, merged(PARAMS), 1e-6)
  for name in ("head", "embed", "norm"):
    identical(params[name], PARAMS[name])
  model, base = hf.load(tmp_path / "m", lora_rank=4)
  identical(base, params)
  assert model.config.lora_rank == 4
  # In the dtype of the kernels, whatever adapters are in.
  half = {**PARAMS, "layers": {**PARAMS["layers"]}}
  up = half["layers"]["up"]
  half["layers"]["up"] = {**up, "kernel": up["kernel"].astype(jnp.bfloat16)}
  hf.save(tmp_path / "half", MODEL, half)
  with safetensors.safe_open(
    tmp_path / "half/model.safetensors", "numpy"
  ) as file:
    found = file.get_slice("model.layers.0.mlp.up_proj.weight").get_dtype()
    assert found == "BF16"


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
  path = tmp_path_factory.mktemp("hf") / "model"
  config = dataclasses.replace(PLAIN, vocab_size=640, n_layers=1, tied=True)
  hf.save(path, config, random_params(config))
  hf_files.write_tokenizer(path)
  return path


def experiment(directory, tmp_path):
  """RL with a KL term from Hugging Face's weights, and more from its end."""
  problem = dict(
    id="1", kind="exact", prompt="a b", answer="c", language="en", data={}
  )
  problems = tmp_path / "problems.jsonl"
  problems.write_text(json.dumps(problem) + "\n")
  c = ConfigDict()
  c.models = dict(mine=dict(hf=str(directory), lora_rank=2, lora_alpha=4.0))
  c.model = "mine"
  c.tokenizer = dict(kind="hf", path=str(directory))
  files = dict(train=str(problems), test=str(problems))
  c.task = dict(kind="files", template="none", **files)
  c.report = dict(plot=())
  c.rl = dict(
    phase="grpo", steps=4, prompts=1, group=8, minibatches=1, lr=1e-2,
    schedule="constant", warmup=0, loss=dict(beta=0.1), ref_every=3,
    temperature=1.0, rewards=dict(language=1.0),
    sampler=dict(slots=8, max_new_tokens=6), row_length=24, rows=2,
    save_every=2,
  )  # fmt: skip
  c.more = dict(c.rl.to_dict(), init="rl", steps=1)
  c.phases = ("rl", "more")
  return c


@pytest.mark.slow
def test_a_run_that_was_stopped_and_its_export(
  directory, tmp_path, monkeypatch
):
  config = experiment(directory, tmp_path)
  launch.run(config, tmp_path / "whole")
  report = PhaseIO.report

  def stops(io, step, metrics):
    if io.dir.name == "rl" and step == 3:
      raise KeyboardInterrupt
    report(io, step, metrics)

  with monkeypatch.context() as m:
    m.setattr(PhaseIO, "report", stops)
    with pytest.raises(KeyboardInterrupt):
      launch.run(config, tmp_path / "run")
  launch.run(config, tmp_path / "run")
  done = json.loads((tmp_path / "run/rl/done.json").read_text())
  assert done["resumed_at"] == 2
  whole, params, more = (
    jax.device_get(checkpoint.load(tmp_path / phase / "params"))
    for phase in ("whole/rl", "run/rl", "run/more")
  )
  identical(params, whole)
  # The base is Hugging Face's, and adapters go on from phase to phase: a step
  # moves none by more than the learning rate.
  _, base = hf.load(directory)
  for tree in (params, more):
    identical(frozen(tree), base)
  close(*(state_lib.split(MODEL, tree)[0] for tree in (params, more)), 0.02)
  assert all(params["layers"][name]["lora_b"].any() for name in ADAPTED)
  rows = (tmp_path / "run/rl/metrics.jsonl").read_text().splitlines()
  kl = [json.loads(row)["kl"] for row in rows]
  # At step 3 the reference is replaced by the policy.
  assert kl[0] == 0 and kl[2] > 0 and kl[3] == 0
  saved = tmp_path / "run/rl/checkpoints/4"
  reference = checkpoint.load(saved)["reference"]
  assert model_lib.param_count(reference) == model_lib.param_count(
    state_lib.split(MODEL, params)[0]
  )

  out = tmp_path / "out"
  hf_export.main([f"--checkpoint={tmp_path}/run/rl", f"--out={out}"])
  model, exported = hf.load(out)
  found = language_model.load(tmp_path / "run/rl")
  decoder, loaded = model_lib.Decoder(found.config), found.params
  assert found.config.lora_rank == 2 and model.config.lora_rank == 0
  tokens = jnp.asarray([found.tokenizer.encode("a b c")])
  want = jax.jit(model.apply)({"params": exported}, tokens)
  close(jax.jit(decoder.apply)({"params": loaded}, tokens), want)
  # What tools.chat streams.
  first = next(
    stream(
      decoder.config,
      loaded,
      tokens[0],
      jax.random.key(0),
      max_new_tokens=1,
      temperature=0,
    )  # fmt: skip
  )
  assert first == want[0, -1].argmax()


def test_where_adapters_may_begin_and_end(directory, tmp_path):
  config = experiment(directory, tmp_path)
  config.rl.model = f"hf:{directory}"
  config.more.model = "mine"
  _, (rl, more) = plan.resolve(config, PHASES)
  assert rl.model.lora_rank == 0 and more.model.lora_rank == 2
  assert more.weights is None
  # The other way they would be lost: an export comes between.
  config.rl.model, config.more.model = "mine", f"hf:{directory}"
  with pytest.raises(UserError, match="more.model differs"):
    plan.resolve(config, PHASES)
  config.models.other = dict(hf=str(directory), lora_rank=4)
  config.more.model = "other"
  with pytest.raises(UserError, match="more.model differs"):
    plan.resolve(config, PHASES)


@pytest.mark.parametrize(
  "fields, message",
  [
    (dict(lora_rank=-1), "lora_rank=-1 must be at least 0"),
    (dict(lora_rank=1.5), "lora_rank=1.5 must be a whole number"),
    (
      dict(lora_rank=2, lora_alpha=0.0),
      "lora_alpha=0.0 must be above 0",
    ),
    (dict(lora_rank=2, lora_alpha=math.nan), "lora_alpha=nan must be a finite"),
  ],
)
def test_what_is_no_adapter(fields, message):
  with pytest.raises(UserError, match=message):
    dataclasses.replace(PLAIN, **fields)


def test_adapters_of_a_model_without():
  for function in (
    lambda: forward(PLAIN, PARAMS, *inputs()),
    lambda: weights.lay_out(PLAIN, PARAMS),
  ):
    with pytest.raises(UserError, match="parameters have adapters"):
      function()
