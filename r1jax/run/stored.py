"""Checkpoints of ours as models: a phase of a run, one of its steps, an import.

A directory of ours has these files, all but the last from `describe`:

  model.json    the fields of the `ModelConfig`
  tokenizer/    the files of the tokenizer, and its keys in keys.json
  params/       the parameters; an unfinished phase has checkpoints/STEP only

What `tools.hf_import` made has the files of the Hugging Face tokenizer beside
params/ instead of tokenizer/. So had phases of 0.1.0, whose tokenizer the
config of the run names.
"""

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import jax

from r1jax import config as config_lib
from r1jax import files, hosts, sharding
from r1jax import model as model_lib
from r1jax.errors import UserError
from r1jax.hf import hub, writer
from r1jax.meshes import Mesh
from r1jax.model import ModelConfig
from r1jax.run import checkpoint, layout
from r1jax.text import tokenizer as tokenizer_lib
from r1jax.text.tokenizer import HFDirectory, SentencePieceFile

_KEYS = "keys.json"
_HF_CONFIG = "config.json"


@dataclasses.dataclass(frozen=True)
class Stored:
  """Parameters that a phase of a run made, or an import.

  Attributes:
    directory: Path of the phase or of the import.
    step: of the checkpoint; None for the parameters in the end.
  """

  directory: Path
  step: int | None = None

  def __str__(self) -> str:
    at = "" if self.step is None else f"@{self.step}"
    return f"run:{self.directory}{at}"

  def fields(self) -> dict[str, Any]:
    """The fields of its `ModelConfig`.

    Raises:
      UserError: `model.json` is absent or damaged.
    """
    path = self.directory / layout.MODEL
    try:
      fields = dict(json.loads(path.read_text()))
    except (OSError, ValueError, TypeError) as e:
      raise UserError(f"{path} cannot be read ({e})") from None
    if "vocab_size" not in fields:
      # Runs of 0.1.0 left the vocabulary to the tokenizer.
      fields["vocab_size"] = tokenizer_lib.load(self.tokenizer()).vocab_size
    return fields

  def model(self) -> ModelConfig:
    """Its `ModelConfig`; raises as `fields`."""
    where = str(self.directory / layout.MODEL)
    return config_lib.build(ModelConfig, self.fields(), where)

  def tokenizer(self) -> Any:
    """The keys of its tokenizer, one of `tokenizer.Tokenizers`.

    Raises:
      UserError: it has none.
    """
    if (self.directory / "tokenizer.json").exists():
      return HFDirectory(path=str(self.directory))
    kept = self.directory / layout.TOKENIZER
    keys = _json(kept / _KEYS)
    if "path" in keys:
      keys["path"] = str(kept / keys["path"])
    keys = keys or _run_config(self.directory).get("tokenizer")
    if not keys:
      raise UserError(f"{self}: it has no tokenizer")
    return config_lib.convert(tokenizer_lib.Tokenizers, keys, "tokenizer")

  def check(self, model: ModelConfig) -> None:
    """Checks the parameters on disk; reads none of them.

    Args:
      model: `ModelConfig` that they must have the shapes of. They may lack
        its adapters.

    Raises:
      UserError: one is absent, left over or of another shape.
    """
    there = checkpoint.shapes(self._path(), self._keys())
    for wanted in (model.without_adapters(), model):
      tree = model_lib.shapes(wanted)
      here = {sharding.path_name(p): x.shape for p, x in _flat(tree)}
      if there == here:
        return
    for name in sorted(there.keys() | here.keys()):
      if there.get(name) != here.get(name):
        raise UserError(
          f"{self}: its parameter {name} has the shape"
          f" {_shape(there.get(name))}, the model's {_shape(here.get(name))};"
          " leave out the key of the model that changes it"
        )

  def params(self, model: ModelConfig, mesh: Mesh) -> Any:
    """The parameters, on the devices of a mesh.

    Args:
      model: `ModelConfig`, which may differ from what is stored in what does
        not change the shapes.
      mesh: where they go.

    Returns:
      nested dict of arrays; without adapters if none are stored.
    """
    params = self.read()
    like = model_lib.part(model_lib.shapes(model), params)
    params = jax.tree.map(lambda x, s: x.astype(s.dtype), params, like)
    return model_lib.place(model, params, mesh)

  def read(self) -> Any:
    """The parameters as `checkpoint.load` returns them."""
    return checkpoint.load(self._path(), keys=self._keys())

  def load(self, mesh: Mesh, dtype: str | None) -> tuple[ModelConfig, Any]:
    """The model and its parameters.

    Args:
      mesh: where they go.
      dtype: of parameters and activations; None: as stored.

    Raises:
      UserError: a file is absent or damaged.
    """
    model = self.model()
    if dtype is not None:
      fields: dict[str, Any] = dict(param_dtype=dtype, compute_dtype=dtype)
      model = dataclasses.replace(model, **fields)
    return model, self.params(model, mesh)

  def companions(self) -> Path | None:
    """The Hugging Face directory with its tokenizer and config, or None."""
    kept = self.directory / layout.TOKENIZER
    for directory in (self.directory, kept):
      if (directory / _HF_CONFIG).exists():
        return directory
    tokenizer = self.tokenizer()
    if isinstance(tokenizer, HFDirectory):
      return hub.directory(tokenizer.path)
    return None

  def _path(self):
    if self.step is None:
      return self.directory / layout.PARAMS
    return self.directory / layout.CHECKPOINTS / str(self.step)

  def _keys(self):
    """Where a checkpoint of a phase has the parameters."""
    if self.step is None:
      return ()
    # RL keeps the reference beside its state.
    top = checkpoint.top(self._path())
    return ("state", "params") if "state" in top else ("params",)


def describe(directory: Path, model: Any, tokenizer: Any) -> None:
  """Writes what the parameters of a phase mean, once, before the first.

  Args:
    directory: of the phase.
    model: its `ModelConfig`.
    tokenizer: one of `tokenizer.Tokenizers`, or None.
  """
  hosts.on_first(_describe, directory, model, tokenizer)


def _describe(directory, model, tokenizer):
  directory.mkdir(parents=True, exist_ok=True)
  text = json.dumps(dataclasses.asdict(model), indent=1) + "\n"
  files.write_atomically(directory / layout.MODEL, text)
  kept = directory / layout.TOKENIZER
  files.sweep(directory, kept.name)
  if tokenizer is None or kept.exists():
    return
  keys = dataclasses.asdict(tokenizer)
  with files.whole_directory(kept) as unfinished:
    unfinished.mkdir()
    if isinstance(tokenizer, HFDirectory):
      source = hub.directory(tokenizer.path)
      writer.copy_companions(source, unfinished)
      if (source / _HF_CONFIG).exists():
        shutil.copyfile(source / _HF_CONFIG, unfinished / _HF_CONFIG)
      keys["path"] = "."
    elif isinstance(tokenizer, SentencePieceFile):
      keys["path"] = Path(tokenizer.path).name
      shutil.copyfile(tokenizer.path, unfinished / keys["path"])
    (unfinished / _KEYS).write_text(json.dumps(keys, indent=1) + "\n")


def is_ours(name: str | Path) -> bool:
  """Whether a name is that of a run, of its phase or step, or of an import."""
  path = Path(_divided(str(name))[0])
  return (
    (path / layout.PARAMS).is_dir()
    or _is_run(path)
    or _is_run(path.absolute().parent)
  )


def find(name: str) -> Stored:
  """A phase of a run, one of its checkpoints, or an import.

  Args:
    name: DIR/PHASE, DIR/PHASE@STEP, or the directory of an import.

  Raises:
    UserError: there is no such run, phase or step, or it has no parameters.
  """
  directory, at = _divided(name)
  where = f"run:{name}"
  if _is_run(directory):
    raise UserError(f"{where} is a run; name a phase of it{_known(directory)}")
  if not directory.is_dir():
    parent = directory.absolute().parent
    if _is_run(parent):
      raise UserError(f"{where}: the run has no such phase{_known(parent)}")
    raise UserError(f"{where}: there is no run at {directory.parent}")
  steps = checkpoint.steps(directory / layout.CHECKPOINTS)
  if at:
    if not (at.isascii() and at.isdigit() and int(at) in steps):
      known = ", ".join(map(str, steps)) or "none"
      raise UserError(f"{where}: there is no such step; known: {known}")
    return Stored(directory, int(at))
  if not (directory / layout.PARAMS).is_dir():
    known = _known(directory.absolute().parent)
    if steps:
      raise UserError(
        f"{where}: the phase is not finished; name a checkpoint of it,"
        f" run:{name}@{steps[-1]}"
      )
    raise UserError(f"{where}: the phase has made no parameters{known}")
  return Stored(directory)


def _divided(name):
  """Path of the directory and the text of a step, or ""."""
  path, at, step = name.rpartition("@")
  if not at or "/" in step or Path(name).expanduser().is_dir():
    path, step = name, ""
  return Path(path).expanduser(), step


def _known(run):
  """The phases of a run with parameters, as the end of a message."""
  found = sorted(run.iterdir()) if _is_run(run) else []
  names = [
    p.name
    for p in found
    if (p / layout.PARAMS).is_dir() or checkpoint.steps(p / layout.CHECKPOINTS)
  ]
  return f"; with parameters there are: {', '.join(names) or 'none yet'}"


def _is_run(path):
  return "phases" in _json(path / layout.CONFIG)


def _run_config(directory):
  """The config of the phase whose directory this is; else empty."""
  run = _json(directory.absolute().parent / layout.CONFIG)
  phase = run.get(directory.name)
  return {**run, **phase} if isinstance(phase, dict) else run


def _json(path):
  """The object in a file, or an empty one."""
  try:
    return dict(json.loads(path.read_text()))
  except (OSError, ValueError, TypeError):
    return {}


def _flat(tree):
  return jax.tree_util.tree_leaves_with_path(tree)


def _shape(shape):
  return "none" if shape is None else list(shape)
