"""Checkpoints: trees of arrays on disk, whole or not at all, by Orbax.

Every process of a run on several hosts calls these functions together.
"""

import contextlib
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from r1jax import files, hosts
from r1jax.errors import UserError
from r1jax.run import layout

# A file in each checkpoint with the sizes of the other files. A truncated file
# is found by its size.
_SIZES = "sizes.json"


def save(path: str | Path, tree: Any) -> None:
  """Writes a tree of arrays; it is complete on disk when this returns.

  Args:
    path: of the directory to make. A directory that exists is replaced.
    tree: pytree of arrays (dicts, tuples, named tuples), sharded or not.
  """
  path = Path(path).absolute()
  hosts.on_first(files.sweep, path.parent, path.name)
  place = files.whole_directory(path, replace=True)
  with hosts.entered_on_first(place) as unfinished:
    with _checkpointer() as c:
      c.save(unfinished, args=ocp.args.PyTreeSave(tree))
    if hosts.is_first():
      (unfinished / _SIZES).write_text(json.dumps(_sizes(unfinished)))


def restore(path: str | Path, target: Any) -> Any:
  """Reads a checkpoint into the structure and the shardings of a target.

  Args:
    path: of the directory.
    target: pytree of arrays or of `jax.ShapeDtypeStruct` with shardings.

  Returns:
    a tree like `target`, with the values of the checkpoint.

  Raises:
    UserError: the checkpoint is damaged, or its tree differs from `target`.
  """
  path = Path(path).absolute()
  like = jax.tree.map(_abstract, target)
  args = ocp.args.PyTreeRestore(
    like, restore_args=ocp.checkpoint_utils.construct_restore_args(like)
  )
  remedy = "remove that directory to go on from what was saved before it"
  with _readable(path, remedy), _checkpointer() as c:
    return c.restore(path, args=args)


def load(path: str | Path, remedy: str = "it has to be made again") -> Any:
  """Reads a checkpoint of nested dicts, with the shardings that it has.

  On the devices that saved the checkpoint, the arrays have the shardings that
  they had. On other devices they are numpy arrays, which the caller places.

  Args:
    path: of the directory.
    remedy: what the user can do if the checkpoint cannot be read; ends the
      message.

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


def load_params(directory: str | Path) -> Any:
  """The parameters that a phase of a run made.

  Args:
    directory: Path of the phase.

  Returns:
    nested dict of arrays, as of `load`.

  Raises:
    UserError: they are absent or damaged.
  """
  directory = Path(directory)
  done = directory / layout.DONE
  return load(directory / layout.PARAMS, f"remove {done} to make it again")


def save_step(root: str | Path, step: int, tree: Any, keep: int = 2) -> None:
  """Writes `root/STEP` and removes all but the newest `keep` checkpoints.

  Args:
    root: a directory that holds nothing but checkpoints.
    step: the name of the new checkpoint, a number.
    tree: pytree of arrays.
    keep: number of checkpoints that stay.
  """
  hosts.on_first(files.sweep, root)
  save(Path(root) / str(step), tree)
  hosts.on_first(_remove_old, Path(root), keep)


def steps(root: str | Path) -> list[int]:
  """The steps of the complete checkpoints in a directory, ascending.

  Args:
    root: the directory; it may be absent.

  Returns:
    list of int.
  """
  if not Path(root).is_dir():
    return []
  names = (p.name for p in Path(root).iterdir() if p.is_dir())
  return sorted(int(n) for n in names if n.isascii() and n.isdigit())


def _remove_old(root, keep):
  for old in steps(root)[:-keep]:
    files.remove_directory(root / str(old))


def _checkpointer():
  return ocp.Checkpointer(ocp.PyTreeCheckpointHandler())


def _abstract(x):
  if not hasattr(x, "dtype"):
    x = np.asarray(x)
  sharding = getattr(x, "sharding", None)
  return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)


def _as_saved(leaf):
  """How Orbax shall restore a leaf, given the leaf's metadata."""
  try:
    return ocp.ArrayRestoreArgs(sharding=leaf.sharding.to_jax_sharding())
  except (AttributeError, KeyError, IndexError, ValueError):
    # Other devices saved it.
    return ocp.RestoreArgs(restore_type=np.ndarray)


def _sizes(path):
  """Name -> size in bytes of every file below a directory."""
  found = (p for p in path.rglob("*") if p.is_file())
  return {str(p.relative_to(path)): p.stat().st_size for p in found}


def _check_sizes(path):
  """Raises ValueError where a file has not the size that was written.

  Orbax finds most damage too, but only after pages of warnings.
  """
  present = _sizes(path)
  for name, size in json.loads((path / _SIZES).read_text()).items():
    if present.get(name) != size:
      raise ValueError(f"{name} has {present.get(name, 0)} of {size} bytes")


@contextlib.contextmanager
def _readable(path, remedy):
  """Reports a damaged checkpoint in one line, whatever Orbax raises."""
  try:
    _check_sizes(path)
    yield
  except Exception as e:
    reason = next(iter(str(e).splitlines()), "") or type(e).__name__
    raise UserError(
      f"the checkpoint {path} cannot be read ({reason[:160]}); {remedy}"
    ) from e
