"""From the keys of a config to the phases to run, before anything is written.

`resolve` builds the dataclass of each phase; `check` asks the phases what
files, devices and other phases show.
"""

import dataclasses
import re
import typing
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from r1jax import checks, origin
from r1jax import config as config_lib
from r1jax.config import Written
from r1jax.errors import UserError, nearest
from r1jax.phases.preview import Preview
from r1jax.run import layout
from r1jax.run import trackers as trackers_lib
from r1jax.text import tokenizer as tokenizer_lib

# Keys that a phase takes from the experiment if its own group lacks them.
SHARED = ("tokenizer", "task", "mesh", "optimizer", "model")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Report:
  """The keys of what a run ends with."""

  # Names of the RL phases in report.png; None: all.
  plot: tuple[str, ...] | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Experiment:
  """The keys of a config beside the groups of its phases.

  `tokenizer`, `task`, `mesh`, `optimizer` and `model` are those of every phase
  that does not set its own.
  """

  # Names of the phases to run, in this order; each has a group of its own.
  phases: tuple[str, ...]
  # Seed of everything random in the run.
  seed: int = 0
  # Name -> model.
  models: Mapping[str, Any] = config_lib.filled(
    written=Mapping[str, str | origin.Shape], default="{}"
  )
  # The table and the plot.
  report: Report = Report()
  # What gets the numbers of metrics.jsonl too: "tensorboard" writes events to
  # DIR/tensorboard; "wandb" and "trackio" as these are set up. Each is an extra
  # of its name.
  trackers: tuple[trackers_lib.Name, ...] = ()

  def __post_init__(self):
    checks.at_least(self, 0, "seed")
    trackers_lib.check(self.trackers)
    if not self.phases:
      raise UserError('phases is empty; set c.phases = ("NAME", ...)')
    for i, name in enumerate(self.phases):
      if not re.fullmatch(r"\w+", name) or name in (
        layout.DATA,
        layout.TENSORBOARD,
      ):
        raise UserError(f'phases: "{name}" cannot be the name of a phase')
      if name in self.phases[:i]:
        raise UserError(f'phases: "{name}" is listed twice; give it a new name')


def plain(config):
  """A ConfigDict or mapping as nested dicts, none of them shared."""
  if isinstance(config, ConfigDict):
    config = config.to_dict()
  if isinstance(config, Mapping):
    return {key: plain(value) for key, value in config.items()}
  return config


def resolve(config, kinds):
  """The experiment and its phases, typed and checked.

  Args:
    config: the whole config, a ConfigDict or a mapping.
    kinds: kind of phase -> (dataclass of its keys, function).

  Returns:
    `Experiment`; list of instances of the dataclasses.

  Raises:
    UserError: naming the key that is wrong.
  """
  values = plain(config)
  own = {k: values[k] for k in config_lib.keys(Experiment) if k in values}
  models = own.pop("models", {})
  if not isinstance(models, Mapping):
    raise UserError(f"models={config_lib.shown(models)} must map names")
  for key in values:
    if key not in (*own, "models", *SHARED) and not is_phase(values, key):
      close = nearest(key, (*config_lib.keys(Experiment), *SHARED))
      hint = f'; did you mean "{close}"?' if close else ""
      raise UserError(
        f"{key} is no key, and no group of a phase (those have the key"
        f" phase){hint}"
      )
  experiment = config_lib.build(Experiment, own, given={"models": models})
  phases = {}
  for name in experiment.phases:
    phases[name] = _phase(values, name, phases, kinds, experiment)
  _check_plot(experiment.report.plot or (), values, kinds)
  return experiment, list(phases.values())


def check(phases, workdir):
  """Asks the phases that are not done what is wrong with their configs.

  Args:
    phases: as `resolve` returns them.
    workdir: Path of the directory of the run. Nothing in it is changed.

  Raises:
    UserError: naming the phase and the key.
  """
  preview = Preview(workdir)
  for phase in phases:
    if not (workdir / phase.name / layout.DONE).exists():
      try:
        phase.check(preview)
      except UserError as e:
        raise UserError(
          config_lib.placed(str(e), type(phase), phase.name)
        ) from None
    preview.earlier[phase.name] = phase


def is_phase(values, name):
  """Whether a config has a group of that name that is a phase."""
  group = values.get(name) if name else None
  return isinstance(group, Mapping) and "phase" in group


def _phase(values, name, earlier, kinds, experiment):
  """One phase of a config, typed; `earlier` maps names to those before it."""
  group = values.get(name)
  if not isinstance(group, Mapping):
    close = nearest(name, [key for key in values if is_phase(values, key)])
    hint = f'did you mean "{close}"? Otherwise ' if close else ""
    raise UserError(
      f'phases: "{name}" has no group of keys; {hint}set'
      f" c.{name} = dict(phase=..., ...)"
    )
  group = dict(group)
  cls, _ = kinds[_kind(group, name, kinds)]
  for key in SHARED:
    if key in values and key not in group and key in config_lib.keys(cls):
      group[key] = Written(key, values[key])
  init = config_lib.convert(str, group.get("init", ""), f"{name}.init")
  if init and init not in earlier:
    raise UserError(f"{name}.init: {_not_earlier(init, earlier)}")
  model, weights = _model(cls, name, group, experiment, earlier.get(init))
  group.pop("model", None)
  if "tokenizer" in config_lib.keys(cls) and "tokenizer" not in group:
    # A model brings its own.
    if weights and not init:
      group["tokenizer"] = origin.find(weights).tokenizer()
    elif init:
      group["tokenizer"] = earlier[init].tokenizer
  given = {
    "name": name, "seed": experiment.seed, "model": model,
    "weights": None if init else weights,
  }  # fmt: skip
  phase = config_lib.build(cls, group, name, given)
  _check_links(values, phase, earlier)
  return phase


def _kind(group, name, kinds):
  kind = group.get("phase")
  if not isinstance(kind, str) or kind not in kinds:
    close = nearest(kind, kinds)
    hint = f'did you mean "{close}"? ' if close else ""
    raise UserError(
      f"{name}.phase={config_lib.shown(kind)} is unknown; {hint}known:"
      f" {', '.join(sorted(kinds))}"
    )
  return kind


def _model(cls, name, group, experiment, start):
  """The model of a phase, and the directory of its first parameters or None.

  Args:
    cls: dataclass of the phase's keys.
    name: of the phase.
    group: its keys.
    experiment: `Experiment`.
    start: the phase whose parameters it starts from, or None. Its model is
      the default.
  """
  named = group.get("model")
  if named is None and start is None:
    raise UserError(f"{name}.model is missing; name one of c.models")
  if named is None:
    return start.model, None
  where = f"{name}.model"
  if isinstance(named, Written):
    where, named = named
  (where, fields), weights = origin.shape(named, experiment.models, where)
  if "vocab_size" not in fields and "tokenizer" in group:
    tokenizer = config_lib.convert(
      config_lib.keys(cls)["tokenizer"], group["tokenizer"], f"{name}.tokenizer"
    )
    fields["vocab_size"] = tokenizer_lib.load(tokenizer).vocab_size
  model = config_lib.build(typing.get_type_hints(cls)["model"], fields, where)
  if start and start.model not in (model, model.without_adapters()):
    raise UserError(
      f"{name}.model differs from the model of {start.name}, whose parameters"
      " it starts from; name the same one, or none"
    )
  return model, weights


def _check_links(values, phase, earlier):
  """Raises `UserError` where a phase needs another that is not before it."""
  name, data = phase.name, getattr(phase, "data", "")
  for key, parent in phase.parents.items():
    if parent not in earlier:
      raise UserError(f"{name}.parents.{key}: {_not_earlier(parent, earlier)}")
  if data in earlier and not earlier[data].MAKES_EXAMPLES:
    raise UserError(
      f'{name}.data="{data}": the phase {data} ({earlier[data].phase}) makes no'
      " examples; name another one"
    )
  # Its own name can only mean a source: no phase learns from itself.
  if data not in (*earlier, name) and is_phase(values, data):
    raise UserError(f"{name}.data: {_not_earlier(data, earlier)}")
  if phase.NEEDS_START and not phase.init and phase.weights is None:
    raise UserError(
      f"{name}.init is missing: {phase.phase} needs the parameters of an"
      " earlier phase, or a model of Hugging Face"
    )


def _check_plot(names, values, kinds):
  # A phase that this run leaves out may be named: it is not in the plot.
  plotted = [
    name
    for name in values
    if is_phase(values, name)
    and values[name]["phase"] in kinds
    and kinds[values[name]["phase"]][0].IS_PLOTTED
  ]
  for name in names:
    if name not in plotted:
      raise UserError(
        f'report.plot: "{name}" is no RL phase of the config; those are:'
        f" {', '.join(plotted) or 'none'}"
      )


def _not_earlier(name, earlier):
  known = ", ".join(earlier) or "none, this one is the first"
  return f'"{name}" is not a phase before it; those are: {known}'
