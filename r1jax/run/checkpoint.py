"""Checkpoints: trees of arrays on disk, whole or not at all, by Orbax.

Every process of a run on several hosts calls these functions together. A
checkpoint has checksums of its files (`r1jax/run/checksums.py`), which are
compared whenever it is read.
"""

import contextlib
import logging
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from r1jax import files, hosts, sharding
from r1jax.errors import UserError
from r1jax.run import checksums, layout

# What the name of a damaged checkpoint ends in.
_DAMAGED = ".damaged"


class Damaged(UserError):
  """A checkpoint whose files are not those that were written.

  Attributes:
    culprit: what is wrong with which file.
  """

  def __init__(self, path: Path, culprit: str, remedy: str) -> None:
    self.culprit = culprit
    super().__init__(f"the checkpoint {path} is damaged: {culprit}; {remedy}")


def save(
  path: str | Path, tree: Any, notes: Mapping[str, str] | None = None
) -> None:
  """Writes a tree of arrays; it is complete on disk when this returns.

  Args:
    path: of the directory to make. A directory that exists is replaced.
    tree: pytree of arrays (dicts, tuples, named tuples), sharded or not.
    notes: name of a file -> its text, files that belong to the checkpoint.

  Raises:
    UserError: the disk is full or cannot be written; nothing is changed.
  """
  path = Path(path).absolute()
  hosts.on_first(files.sweep, path.parent, path.name)
  size = sum(getattr(leaf, "nbytes", 0) for leaf in jax.tree.leaves(tree))
  place = files.whole_directory(path, replace=True, size=size)
  with hosts.entered_on_first(place) as unfinished:
    with _quiet(), _checkpointer() as c:
      c.save(unfinished, args=ocp.args.PyTreeSave(tree))
    if hosts.is_first():
      for name, text in (notes or {}).items():
        (unfinished / name).write_text(text)
    checksums.write(unfinished)


def restore(path: str | Path, target: Any) -> Any:
  """Reads a checkpoint into the structure and the shardings of a target.

  Args:
    path: of the directory.
    target: pytree of arrays or of `jax.ShapeDtypeStruct` with shardings.

  Returns:
    a tree like `target`, with the values of the checkpoint.

  Raises:
    Damaged: its files are not those that were written.
    UserError: its tree differs from `target`, or it cannot be read.
  """
  path = Path(path).absolute()
  like = jax.tree.map(_abstract, target)
  args = ocp.args.PyTreeRestore(
    like, restore_args=ocp.checkpoint_utils.construct_restore_args(like)
  )
  remedy = "remove that directory to go on from what was saved before it"
  _check(path, remedy)
  with _readable(path, remedy), _checkpointer() as c:
    return c.restore(path, args=args)


def restore_newest(
  root: str | Path, target: Any
) -> tuple[tuple[int, Any] | None, dict[Path, str]]:
  """Reads the newest checkpoint that is not damaged; changes nothing on disk.

  Args:
    root: the directory of checkpoints; it may be absent.
    target: as of `restore`.

  Returns:
    (step, tree), or None if there is no checkpoint; and the damaged ones after
    it, a dict from paths to what is wrong.

  Raises:
    UserError: all of them are damaged, or the tree differs from `target`.
  """
  damaged: dict[Path, str] = {}
  for step in reversed(steps(root)):
    path = Path(root) / str(step)
    try:
      return (step, restore(path, target)), damaged
    except Damaged as e:
      damaged[path] = e.culprit
  for path, culprit in damaged.items():
    raise UserError(
      f"the checkpoint {path} is damaged: {culprit}; there is no good one"
      f" before it; remove {root} to begin the phase anew"
    )
  return None, damaged


def load(
  path: str | Path,
  remedy: str = "it has to be made again",
  keys: Sequence[str] = (),
) -> Any:
  """Reads a checkpoint of nested dicts, with the shardings that it has.

  On the devices that saved the checkpoint, the arrays have the shardings that
  they had. On other devices they are numpy arrays, which the caller places.

  Args:
    path: of the directory.
    remedy: what the user can do if the checkpoint cannot be read; ends the
      message.
    keys: of the part to read, from the top of the tree; () reads all of it.

  Returns:
    nested dicts of arrays.

  Raises:
    UserError: there is no checkpoint, or it is damaged.
  """
  path = Path(path).absolute()
  if not path.is_dir():
    raise UserError(f"there is no checkpoint at {path}; {remedy}")
  _check(path, remedy)
  with _readable(path, remedy), _checkpointer() as c:
    part = _part(c.metadata(path).item_metadata.tree, keys)
    item = jax.tree.map(lambda _: 0, part)
    restore_args = jax.tree.map(_as_saved, part)
    # What is not named stays on disk.
    for key in reversed(keys):
      item, restore_args = {key: item}, {key: restore_args}
    args = ocp.args.PyTreeRestore(
      item=item, restore_args=restore_args, partial_restore=True
    )
    return _part(c.restore(path, args=args), keys)


def top(path: str | Path) -> list[str]:
  """The names at the top of a checkpoint's tree.

  Raises:
    UserError: there is no checkpoint, or it is damaged.
  """
  return list(_metadata(path))


def shapes(
  path: str | Path, keys: Sequence[str] = ()
) -> dict[str, tuple[int, ...]]:
  """The shapes of a checkpoint's arrays; reads none of them.

  Args:
    path: of the directory.
    keys: of the part that is meant, from the top of the tree.

  Returns:
    dict from `sharding.path_name` of each array to its shape.

  Raises:
    UserError: there is no checkpoint, or it is damaged.
  """
  part = _part(_metadata(path), keys)
  flat, _ = jax.tree_util.tree_flatten_with_path(part)
  return {sharding.path_name(at): tuple(x.shape) for at, x in flat}


def _metadata(path):
  path = Path(path).absolute()
  with _readable(path, "it has to be made again"), _checkpointer() as c:
    return c.metadata(path).item_metadata.tree


def _part(tree, keys):
  for key in keys:
    tree = tree[key]
  return tree


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


def save_step(
  root: str | Path,
  step: int,
  tree: Any,
  keep: int = 2,
  notes: Mapping[str, str] | None = None,
) -> None:
  """Writes `root/STEP` and removes all but the newest `keep` checkpoints.

  Args:
    root: a directory that holds nothing but checkpoints.
    step: the name of the new checkpoint, a number.
    tree: pytree of arrays.
    keep: number of checkpoints that stay.
    notes: as of `save`.

  Raises:
    UserError: as of `save`; the earlier checkpoints stay.
  """
  hosts.on_first(files.sweep, root)
  save(Path(root) / str(step), tree, notes)
  hosts.on_first(_remove_old, Path(root), step, keep)


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


def set_aside(path: str | Path) -> None:
  """Renames a damaged checkpoint, so that nobody takes it for one.

  It stays until there is a checkpoint of the same step again.

  Args:
    path: of the checkpoint, `root/STEP`.
  """
  hosts.on_first(_set_aside, Path(path))


def _set_aside(path):
  aside = path.with_name(path.name + _DAMAGED)
  if aside.exists():
    files.remove_directory(aside)
  path.rename(aside)


def _remove_old(root, step, keep):
  for old in steps(root)[:-keep]:
    files.remove_directory(root / str(old))
  aside = root / f"{step}{_DAMAGED}"
  if aside.exists():
    files.remove_directory(aside)


def _checkpointer():
  return ocp.Checkpointer(ocp.PyTreeCheckpointHandler())


@contextlib.contextmanager
def _quiet():
  """Keeps Orbax from printing what it also raises, pages of tracebacks."""
  logger, hook = logging.getLogger("absl"), sys.unraisablehook
  level = logger.level

  def without_loop(unraisable):
    # Writes that were under way report to a loop that has failed before them.
    if "Event loop is closed" not in str(unraisable.exc_value):
      hook(unraisable)

  sys.unraisablehook = without_loop
  logger.setLevel(logging.CRITICAL)
  yield
  # After a failure both stay as they are: some writes end, and fail, later.
  sys.unraisablehook = hook
  logger.setLevel(level)


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


def _check(path, remedy):
  """Raises `Damaged`, naming the first file that is not as it was written."""
  if (path / "sizes.json").exists():
    return  # version 0.1.0 wrote it, which had no checksums
  culprit = checksums.find_damage(path)
  if culprit:
    raise Damaged(path, culprit, remedy)


@contextlib.contextmanager
def _readable(path, remedy):
  """Reports in one line whatever Orbax raises."""
  try:
    yield
  except Exception as e:
    reason = next(iter(str(e).splitlines()), "") or type(e).__name__
    raise UserError(
      f"the checkpoint {path} cannot be read ({reason[:160]}); {remedy}"
    ) from e
