"""What was saved comes back to the bit, and damage is named."""

import os

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from r1jax.errors import UserError
from r1jax.run import checkpoint
from r1jax.types import TrainState


def make_tree(seed=0):
  """A train state over four devices and its reference parameters."""
  mesh = jax.make_mesh(
    (4,), ("data",), axis_types=(AxisType.Auto,), devices=jax.devices()[:4]
  )
  sharded = NamedSharding(mesh, P("data"))
  kernel = jax.random.normal(jax.random.key(seed), (16, 8))
  params = {
    "layer": {
      "kernel": jax.device_put(kernel, sharded),
      "bias": jnp.ones(3, jnp.bfloat16),
    }
  }
  optimizer = optax.chain(optax.clip(1.0), optax.adam(1e-3))
  state = TrainState(jnp.int32(4), params, optimizer.init(params))
  return {"state": state, "reference": params}


def equal(a, b):
  assert jax.tree.structure(a) == jax.tree.structure(b)
  for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b)):
    assert x.dtype == y.dtype
    np.testing.assert_array_equal(np.asarray(x), np.asarray(y))


def test_restore_gives_back_values_structure_and_placement(tmp_path):
  tree = make_tree()
  checkpoint.save(tmp_path / "1", tree)
  restored = checkpoint.restore(tmp_path / "1", make_tree(seed=1))
  equal(tree, restored)
  jax.tree.map(lambda x, y: x.sharding == y.sharding or pytest.fail(), tree,
               restored)  # fmt: skip


def test_restore_onto_other_shardings(tmp_path):
  tree = make_tree()
  checkpoint.save(tmp_path / "1", tree)
  mesh = jax.make_mesh((8,), ("x",), axis_types=(AxisType.Auto,))
  target = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(
      x.shape, x.dtype, sharding=NamedSharding(mesh, P())
    ),
    tree,
  )
  restored = checkpoint.restore(tmp_path / "1", target)
  equal(tree, restored)
  assert restored["state"].params["layer"]["kernel"].sharding.mesh == mesh


def test_load_needs_no_target(tmp_path):
  params = make_tree()["reference"]
  checkpoint.save(tmp_path / "params", params)
  loaded = checkpoint.load(tmp_path / "params")
  equal(params, loaded)
  kernel = loaded["layer"]["kernel"]
  assert kernel.sharding == params["layer"]["kernel"].sharding


def test_the_newest_two_stay(tmp_path):
  for step in (1, 2, 10):
    checkpoint.save_step(tmp_path, step, {"x": jnp.float32(step)})
  assert checkpoint.steps(tmp_path) == [2, 10]
  assert {p.name for p in tmp_path.iterdir()} == {"2", "10"}


def test_leftovers_of_a_killed_save_are_unseen_and_removed(tmp_path):
  checkpoint.save_step(tmp_path, 1, {"x": jnp.ones(2)})
  for name in (".2.tmp-a1/2.orbax-checkpoint-tmp", ".0.tmp-b2/0"):
    (tmp_path / name).mkdir(parents=True)
    (tmp_path / name / "part").write_text("?")
  assert checkpoint.steps(tmp_path) == [1]
  checkpoint.save_step(tmp_path, 2, {"x": jnp.ones(2)})
  assert {p.name for p in tmp_path.iterdir()} == {"1", "2"}


def test_half_written_neighbours_are_left_alone(tmp_path):
  neighbour = tmp_path / ".done.json.tmp"
  neighbour.write_text("{")
  checkpoint.save(tmp_path / "params", {"x": jnp.ones(2)})
  assert neighbour.read_text() == "{"


def test_any_truncated_or_absent_file_is_one_clear_line(tmp_path):
  tree = make_tree()
  path = tmp_path / "7"
  checkpoint.save(path, tree)
  files = [p for p in path.rglob("*") if p.is_file()]
  assert len(files) > 4
  for file in files:
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError) as error:
      checkpoint.restore(path, tree)
    assert str(path) in str(error.value) and "remove" in str(error.value)
    assert "\n" not in str(error.value)
    file.unlink()
    with pytest.raises(UserError):
      checkpoint.load(path)
    file.write_bytes(whole)
  equal(tree, checkpoint.restore(path, tree))


def test_another_shape_is_refused_not_padded(tmp_path):
  checkpoint.save(tmp_path / "1", {"x": jnp.ones((4, 2))})
  with pytest.raises(UserError, match="cannot be read"):
    checkpoint.restore(tmp_path / "1", {"x": jnp.ones((6, 2))})


def test_load_of_nothing(tmp_path):
  with pytest.raises(UserError, match="no checkpoint at .*; do this"):
    checkpoint.load(tmp_path / "params", "do this")
  assert os.listdir(tmp_path) == []
