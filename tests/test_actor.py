"""The actor samples on its own devices what it would sample on others."""

import types

import jax
import numpy as np
import pytest
from test_model import random_params

from r1jax import meshes
from r1jax import model as model_lib
from r1jax.data.countdown import Countdown
from r1jax.errors import UserError
from r1jax.meshes import MeshConfig
from r1jax.model import ModelConfig
from r1jax.phases import actor as actor_lib
from r1jax.phases import grpo
from r1jax.phases.actor import Actor
from r1jax.run.phase_io import PhaseIO
from r1jax.sampling.sampler import SamplerConfig
from r1jax.text import tokenizer as tokenizer_lib
from r1jax.text.tokenizer import CountdownWords
from r1jax.types import Problem, TrainState

TOKENIZER = tokenizer_lib.load(CountdownWords())
MODEL = ModelConfig(
  vocab_size=TOKENIZER.vocab_size, d_model=16, n_layers=1, n_heads=4,
  n_kv_heads=2, head_dim=8, d_ff=32, max_length=32,
)  # fmt: skip
PROBLEMS = [
  Problem(f"p{i}", "countdown", "3 4 1 12" + " 3" * i, "3 * 4 * 1", "en",
          {"numbers": [3, 4, 1], "target": 12})
  for i in range(4)
]  # fmt: skip


def config(**fields):
  default = dict(
    phase="grpo", name="a_phase", seed=3, model=MODEL, weights=None,
    tokenizer=CountdownWords(), task=Countdown(train=1, test=1), prompts=4,
    group=4, rewards={"language": 1.0}, temperature=1.0, steps=1, lr=1e-2,
    row_length=32, rows=4, save_every=1,
    sampler=SamplerConfig(slots=8, max_new_tokens=6),
  )  # fmt: skip
  return grpo.GRPO(**(default | fields))


# The tokenizer's 139 tokens cannot be halved.
APART = dict(
  mesh=MeshConfig(data=2, fsdp=2),
  sampler_mesh=MeshConfig(data=2, tensor=2, axes=dict(vocab=None)),
)


@pytest.fixture(scope="module")
def params():
  return random_params(MODEL)


def drawn(config, setup, params):
  """The rollout of step 5."""
  actor = Actor(config, setup, config.group, config.rewards)
  actor.load(model_lib.place(MODEL, params, setup.mesh))
  return actor.rollout(PROBLEMS, 5)


def test_a_sampler_on_devices_of_its_own(params):
  c = config(**APART)
  setup = c.setup()
  assert set(setup.mesh.devices.flat) == set(jax.devices()[:4])
  assert set(setup.sampler_mesh.devices.flat) == set(jax.devices()[4:])
  apart = drawn(c, setup, params)
  one = meshes.make_mesh(devices=jax.devices()[:1])
  setup = setup._replace(mesh=one, sampler_mesh=one)
  together = drawn(c, setup, params)
  a, b = together.rollout, apart.rollout
  np.testing.assert_array_equal(a.tokens, b.tokens)
  np.testing.assert_array_equal(a.lengths, b.lengths)
  np.testing.assert_allclose(a.logprobs, b.logprobs, atol=1e-5)
  assert len(np.unique(a.tokens)) > 5
  np.testing.assert_array_equal(together.reward, apart.reward)


def test_without_devices_of_its_own_the_sampler_has_the_learners():
  setup = config().setup()
  assert setup.mesh == setup.sampler_mesh and setup.mesh.size == 8


def test_every_rollout_has_randomness_of_its_own(monkeypatch):
  keys = []

  class Sampler:
    def __init__(self, model, config, group, mesh, keep):
      self.group = group

    def sample(self, loaded, prompts, key, temperature, callbacks):
      keys.append(jax.random.key_data(key).tolist())
      raise StopIteration

  monkeypatch.setattr(actor_lib, "Sampler", Sampler)
  setup = config().setup()
  actor = Actor(config(), setup, 4, {})
  for number in ((), (0,), (1,), (1, 1), (1, 2), (2, 1)):
    with pytest.raises(StopIteration):
      actor.rollout(PROBLEMS, *number)
  assert keys[0] == jax.random.key_data(setup.key).tolist()
  assert len(set(map(tuple, keys))) == 6


def test_a_prompt_without_room(params):
  setup = config().setup()
  long = [*PROBLEMS, Problem("long", "countdown", "3 " * 27, "", "en", {})]
  with pytest.raises(UserError, match="a_phase: the prompt of problem long"):
    Actor(config(), setup, 4, {}).rollout(long, 0)


@pytest.mark.parametrize(
  "mesh, sampler, first, last",
  [
    (dict(), dict(data=2), dict(data=6), dict(data=2)),
    (dict(fsdp=-1), dict(data=2, tensor=2), dict(fsdp=4), dict(data=2)),
    (dict(data=3), dict(tensor=-1), dict(data=3), dict(tensor=5)),
    (dict(data=4), dict(data=4), dict(data=4), dict(data=4)),
  ],
)
def test_devices_are_divided(mesh, sampler, first, last):
  made = meshes.apart(MeshConfig(**mesh), MeshConfig(**sampler))
  for mesh, sizes in zip(made, (first, last)):
    assert sizes.items() <= dict(mesh.shape).items()
  assert [d for mesh in made for d in mesh.devices.flat] == jax.devices()


@pytest.mark.parametrize(
  "mesh, sampler, message",
  [
    (dict(), dict(), "sampler_mesh: set data, fsdp and tensor to numbers"),
    (dict(), dict(data=8), "sampler_mesh: 8 of 8 devices cannot be set apart"),
    (dict(data=9), dict(), "sampler_mesh: -1 of 8 devices cannot"),
    (dict(data=4), dict(data=2), "sampler_mesh: .*does not cover 6 devices"),
  ],
)
def test_devices_that_cannot_be_divided(mesh, sampler, message):
  with pytest.raises(UserError, match=message):
    config(mesh=MeshConfig(**mesh), sampler_mesh=MeshConfig(**sampler)).setup()


def test_half_of_the_devices_of_every_host():
  def device(host, number):
    return types.SimpleNamespace(process_index=host, id=number)

  devices = [device(i // 4, i) for i in range(8)]
  first, last = meshes.hosts.split_devices(devices, 4)
  assert [d.id for d in first] == [0, 1, 4, 5]
  assert [d.id for d in last] == [2, 3, 6, 7]
  with pytest.raises(UserError, match="2 hosts must have equally many"):
    meshes.hosts.split_devices(devices, 3)


@pytest.mark.slow
def test_a_step_of_rl_with_a_sampler_on_devices_of_its_own(
  params, monkeypatch, tmp_path
):
  problems = types.SimpleNamespace(take=lambda step, n, seed: PROBLEMS[:n])
  monkeypatch.setattr(Countdown, "load", lambda *args: {"train": problems})
  moved = {}
  for name, fields in (("together", {}), ("apart", APART)):
    io = PhaseIO(tmp_path, name)
    c = config(**({"mesh": MeshConfig(fsdp=-1)} | fields))
    start = TrainState(step=None, params=params, opt_state=None)
    state, _ = grpo.grpo(c, start, None, io)
    moved[name] = jax.tree.map(np.asarray, state.params)
  change = jax.tree.map(
    lambda a, b: float(abs(a - b).max()), params, moved["apart"]
  )
  assert min(jax.tree.leaves(change)) > 1e-4
  for a, b in zip(*map(jax.tree.leaves, moved.values())):
    np.testing.assert_allclose(a, b, atol=1e-4)
