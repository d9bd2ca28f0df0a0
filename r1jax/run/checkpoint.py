"""Trees of arrays on disk, whole or not at all, by Orbax.

A checkpoint is a directory that appears under its name by one rename, when
all of it is written: a process that dies in the middle leaves a directory
whose name gives it away (`...tmp...`), which nobody reads and the next save
removes. Every process of a multi-host run calls these functions together.
"""

import contextlib
import json
import shutil
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils

from r1jax.errors import UserError

# Part of the name of what is being written or removed.
_TMP = "tmp"
# The length of every file of a checkpoint, by which a truncated one is known.
_SIZES = "sizes.json"


def save(path, tree):
  """Writes a tree of arrays; returns when it is complete on disk.

  Args:
    path: of the directory to make; one that is there is replaced.
    tree: pytree of arrays (dicts, tuples, named tuples), sharded or not.
  """
  path = Path(path).absolute()
  unfinished = path.with_name(f"{path.name}.{_TMP}")
  first = jax.process_index() == 0
  if first:
    path.parent.mkdir(parents=True, exist_ok=True)
    # By full name: other things may be half written in the same directory.
    _sweep(path.parent, f"{path.name}.{_TMP}*")
  multihost_utils.sync_global_devices("r1jax.run.checkpoint.begin")
  with _checkpointer() as c:
    c.save(unfinished, args=ocp.args.PyTreeSave(tree))
  if first:
    (unfinished / _SIZES).write_text(json.dumps(_sizes(unfinished)))
    remove(path)
    unfinished.rename(path)
  multihost_utils.sync_global_devices("r1jax.run.checkpoint.end")


def restore(path, target):
  """Reads a checkpoint into the structure and shardings of a target.

  Args:
    path: of the directory.
    target: pytree of arrays or of `jax.ShapeDtypeStruct` with shardings.

  Returns:
    a tree like `target`, with the values of the checkpoint.

  Raises:
    UserError: the checkpoint is damaged, or another tree than `target`.
  """
  path = Path(path).absolute()
  like = jax.tree.map(_abstract, target)
  args = ocp.args.PyTreeRestore(
    like, restore_args=ocp.checkpoint_utils.construct_restore_args(like)
  )
  remedy = "remove that directory to go on from what was saved before it"
  with _readable(path, remedy), _checkpointer() as c:
    return c.restore(path, args=args)


def load(path, remedy="it has to be made again"):
  """Reads a checkpoint of nested dicts as it was saved.

  On the devices that saved it the arrays come back as they were sharded;
  on any others, whole and on the host, for the caller to place.

  Args:
    path: of the directory.
    remedy: what to do where it cannot be read; ends the message.

  Returns:
    nested dicts of arrays.

  Raises:
    UserError: there is no checkpoint, or it is damaged.
  """
  path = Path(path).absolute()
  if not path.is_dir():
    raise UserError(f"there is no checkpoint at {path}; {remedy}")
  with _readable(path, remedy), _checkpointer() as c:
    args = jax.tree.map(_as_saved, c.metadata(path).item_metadata.tree)
    return c.restore(path, args=ocp.args.PyTreeRestore(restore_args=args))


def save_step(root, step, tree, keep=2):
  """Writes `root/STEP` and removes all but the newest `keep` checkpoints.

  Args:
    root: a directory of nothing but checkpoints.
    step: the name of the new one.
    tree: pytree of arrays.
    keep: how many stay.
  """
  if jax.process_index() == 0 and Path(root).is_dir():
    _sweep(Path(root), f"*.{_TMP}*")
  save(Path(root) / str(step), tree)
  if jax.process_index() == 0:
    for old in steps(root)[:-keep]:
      remove(Path(root) / str(old))


def steps(root):
  """The steps of the complete checkpoints under a directory, ascending."""
  if not Path(root).is_dir():
    return []
  names = (p.name for p in Path(root).iterdir() if p.is_dir())
  return sorted(int(n) for n in names if n.isascii() and n.isdigit())


def remove(path):
  """Removes a checkpoint so that it is never seen in part."""
  if path.exists():
    doomed = path.with_name(f"{path.name}.{_TMP}-removed")
    path.rename(doomed)
    shutil.rmtree(doomed)


def _sweep(directory, pattern):
  """Removes what processes that died left behind."""
  for leftover in directory.glob(pattern):
    shutil.rmtree(leftover)


def _checkpointer():
  return ocp.Checkpointer(ocp.PyTreeCheckpointHandler())


def _abstract(x):
  if not hasattr(x, "dtype"):
    x = np.asarray(x)
  sharding = getattr(x, "sharding", None)
  return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)


def _as_saved(leaf):
  """How to restore a leaf, given its metadata."""
  try:
    return ocp.ArrayRestoreArgs(sharding=leaf.sharding.to_jax_sharding())
  except (AttributeError, KeyError, IndexError, ValueError):
    # These devices are not the ones that saved it.
    return ocp.RestoreArgs(restore_type=np.ndarray)


def _sizes(path):
  files = (p for p in path.rglob("*") if p.is_file())
  return {str(p.relative_to(path)): p.stat().st_size for p in files}


def _check(path):
  """Compares the files with what was written.

  Orbax finds most damage too, but only after pages of warnings.
  """
  there = _sizes(path)
  for name, size in json.loads((path / _SIZES).read_text()).items():
    if there.get(name) != size:
      raise ValueError(f"{name} has {there.get(name, 0)} of {size} bytes")


@contextlib.contextmanager
def _readable(path, remedy):
  """Turns whatever a damaged checkpoint makes Orbax raise into one line."""
  try:
    _check(path)
    yield
  except Exception as e:
    reason = next(iter(str(e).splitlines()), "") or type(e).__name__
    raise UserError(
      f"the checkpoint {path} cannot be read ({reason[:160]}); {remedy}"
    ) from e
