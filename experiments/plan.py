"""From a config to the phases to run: everything that can be wrong is said
before anything is written."""

import dataclasses
import re

from ml_collections import ConfigDict

from r1jax import hf
from r1jax.errors import UserError, nearest
from r1jax.hf import hub

# What a phase gets from outside its block; its own entry takes precedence.
SHARED = ("tokenizer", "task", "mesh", "optimizer", "model")
# What an experiment may have beside the blocks of its phases.
KEYS = (*SHARED, "phases", "seed", "models", "report")
# Before the name of a model of Hugging Face: a directory or a hub id.
HF = "hf:"
# What a model may have beyond the one whose parameters it starts from.
ADAPTERS = ("lora_rank", "lora_alpha")
# Names in the directory of a run that are not phases.
RESERVED = ("data",)


def resolve(config, kinds):
  """The blocks of the phases, in order, complete and checked.

  Args:
    config: ConfigDict of the experiment.
    kinds: the known kinds of phases.

  Returns:
    list of ConfigDict: each a phase's block with `name`, `seed`, `init`,
    `data`, `model` (the named shape, filled in) and the shared blocks.

  Raises:
    UserError: naming the key that is wrong.
  """
  for key in config:
    if key not in KEYS and not _is_phase(config, key):
      close = nearest(key, KEYS)
      hint = f'; is "{close}" meant?' if close else ""
      raise UserError(
        f"the config's key \"{key}\" is unknown, and no phase's block"
        f" (those have a phase){hint}"
      )
  names = list(config.get("phases", ()))
  if not names:
    raise UserError('the config has no phases; set c.phases = ("NAME", ...)')
  blocks = []
  for i, name in enumerate(names):
    if not re.fullmatch(r"\w+", str(name)) or name in RESERVED:
      raise UserError(f'"{name}" cannot be the name of a phase')
    if name in names[:i]:
      raise UserError(f'phases: "{name}" is listed twice; give it a new name')
    blocks.append(_block(config, name, {b.name: b for b in blocks}, kinds))
  return blocks


def _block(config, name, earlier, kinds):
  block = config.get(name)
  if not isinstance(block, ConfigDict):
    raise UserError(
      f'phases: "{name}" has no block; set c.{name} = dict(phase=..., ...)'
    )
  block = ConfigDict(block.to_dict())
  if block.get("phase") not in kinds:
    raise UserError(
      f'{name}.phase: "{block.get("phase")}" is unknown; known:'
      f" {', '.join(sorted(kinds))}"
    )
  with block.unlocked():
    block.name = name
    block.seed = config.get("seed", 0)
    block.init = block.get("init") or ""
    block.data = block.get("data") or ""
    for key in SHARED:
      if key in config and key not in block:
        block[key] = config[key]
    if block.init and block.init not in earlier:
      raise UserError(f"{name}.init: {_not_earlier(block.init, earlier)}")
    # Its own name can only mean a source: nothing learns from itself.
    unmade = block.data not in (*earlier, name)
    if unmade and _is_phase(config, block.data):
      raise UserError(f"{name}.data: {_not_earlier(block.data, earlier)}")
    _set_model(block, config.get("models", {}), earlier.get(block.init))
  return block


def _is_phase(config, name):
  block = config.get(name) if name else None
  return isinstance(block, ConfigDict) and "phase" in block


def _not_earlier(name, earlier):
  known = ", ".join(earlier) or "none, this one is the first"
  return f'"{name}" is not a phase before it; those are: {known}'


def _set_model(block, models, init):
  """Replaces the model's name by its shape; the default is that of `init`.

  A model of Hugging Face, "hf:NAME" or a shape with the key `hf`, also gives
  the phase its first parameters, those of `weights`, where it has no `init`.
  """
  named = block.get("model")
  inherited = init.get("model") if init else None
  shape = named
  if isinstance(named, str) and not named.startswith(HF):
    if named not in models:
      raise UserError(
        f'{block.name}.model: "{named}" is unknown; known:'
        f" {', '.join(sorted(models)) or 'none, set c.models'}"
      )
    shape = models[named]
  if isinstance(shape, str):
    shape = {"hf": shape.removeprefix(HF)}
  weights = None
  if shape is not None:
    shape = dict(shape)
    weights = shape.pop("hf", None)
    if weights is not None:
      weights = str(hub.directory(weights.removeprefix(HF)))
      shape = {**hf.read_config(weights), **shape}
      shape["rope_scaling"] = _plain(shape["rope_scaling"])
    shape = ConfigDict(shape)
  block.model = None
  block.model = inherited if shape is None else shape
  block.weights = weights if not block.init else None
  if inherited is not None and inherited not in (
    block.model,
    _without_adapters(block.model),
  ):
    raise UserError(
      f"{block.name}.model: it differs from the model of {block.init}, whose"
      " parameters it starts from; name the same one, or none"
    )


def _without_adapters(model):
  return ConfigDict({k: v for k, v in model.items() if k not in ADAPTERS})


def _plain(scaling):
  return dataclasses.asdict(scaling) if scaling is not None else None


def missing_key(block, error):
  """The `UserError` for a key that a phase asked for and nobody set."""
  close = nearest(error.name, [k for k in error.obj if isinstance(k, str)])
  hint = f'; is "{close}" misspelt?' if close else ""
  inside = [f"{k}." for k, v in block.items() if v is error.obj]
  key = "".join(inside) + str(error.name)
  return UserError(
    f'{block.name} ({block.phase}) needs the key "{key}", which its'
    f" config does not set{hint}"
  )


def differences(there, here, most=3):
  """What differs between two configs, in words.

  Args:
    there, here: nested dicts of JSON values.
    most: how many differences are named.
  """
  there, here = dict(_flat(there)), dict(_flat(here))
  changed = [
    f"{key} is {there.get(key, 'absent')} there, {here.get(key, 'absent')} here"
    for key in sorted(there.keys() | here.keys())
    if key not in there or key not in here or there[key] != here[key]
  ]
  if len(changed) > most:
    changed[most:] = [f"and {len(changed) - most} more"]
  return changed


def _flat(tree, prefix=""):
  for key, value in tree.items():
    if isinstance(value, dict) and value:
      yield from _flat(value, f"{prefix}{key}.")
    else:
      yield f"{prefix}{key}", value
