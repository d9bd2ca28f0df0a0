"""Wrong values of every key: refused by name, before anything is written."""

import collections.abc
import dataclasses
import functools
import json
import math
import os
import resource
import shutil
import subprocess
import sys
import types
import typing
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from configs import quickstart
from experiments import launch, plan
from r1jax import config as config_lib
from r1jax.errors import UserError
from r1jax.origin import Shape
from r1jax.phases import PHASES

ROOT = Path(__file__).parents[1]
NAN, INF = math.nan, math.inf
# Whatever does not suit a key's annotation is tried as its value.
VALUES = (
  None, True, False, 1.5, -7, -7.5, NAN, INF, -INF, "ten", "3", "nan", [],
  [3], [1.5], [-7], ["x"], [NAN, 1.0], [-7.5, 2.0], {}, {"x": 3}, {"x": -7.5},
  {"x": "y"}, {"x": NAN}, {"x": {"y": NAN}}, {"x": {"y": "z"}},
)  # fmt: skip
# Weights and least values of a reward may be negative, and a name there may
# be one of `gates`, `kinds`, `models`.
SIGNED = ("rewards", "least")
# Where 0 is a meaningful number of something.
ZERO = (
  "warmup", "refill", "overlong", "top_k", "eos_id", "lora_rank", "shots",
  "seed",
)  # fmt: skip
TASKS = {
  "countdown": dict(kind="countdown", train=48, test=8),
  "reasoning_gym": dict(
    kind="reasoning_gym", train=2, test=2, datasets=dict(gcd={})
  ),
  "files": dict(kind="files"),
}
TOKENIZERS = {
  "countdown": dict(kind="countdown"),
  "sentencepiece": dict(kind="sentencepiece", path="none.model"),
  "hf": dict(kind="hf", path="none"),
}
SCALING = dict(
  kind="llama3", factor=2.0, original_max_length=64, low_freq_factor=1.0,
  high_freq_factor=4.0,
)  # fmt: skip


def never(*_):
  raise AssertionError("a phase ran")


KINDS = {kind: (cls, never) for kind, (cls, _) in PHASES.items()}


@functools.cache
def good_text():
  c = quickstart.get_config("smoke")
  c.phases = ("base", "r1_zero", "samples", "eval_base")
  c.samples.init = "r1_zero"
  c.optimizer = dict()
  c.report = dict(plot=("r1_zero",))
  kept = {
    key: value
    for key, value in plan.plain(c).items()
    if not plan.is_phase(plan.plain(c), key) or key in c.phases
  }
  return json.dumps(kept)


def good():
  """A config that is right, with a phase of each kind."""
  return json.loads(good_text())


def arms(hint):
  union = typing.get_origin(hint) in (typing.Union, types.UnionType)
  return typing.get_args(hint) if union else (hint,)


def may_be(hint, value, signed=False):
  """Whether a value may be right for an annotation, as far as types tell.

  Written apart from `r1jax.config`, which it is held against. No number of
  any key may be below -1, but for the signed ones.
  """
  origin, inner = typing.get_origin(hint), typing.get_args(hint)
  if len(arms(hint)) > 1:
    return any(may_be(h, value, signed) for h in arms(hint))
  if hint is Any:
    return True
  if hint is int:
    return type(value) is int and (value >= -1 or signed)
  if hint is float:
    number = type(value) in (int, float) and math.isfinite(value)
    return number and (value >= -1 or signed)
  if hint in (str, bool, types.NoneType):
    return type(value) is hint
  if origin is Literal:
    return value in inner
  if origin is tuple:
    if type(value) not in (list, tuple):
      return False
    if Ellipsis in inner:
      return all(may_be(inner[0], v, signed) for v in value)
    return len(value) == len(inner) and all(map(may_be, inner, value))
  if origin is collections.abc.Mapping:
    right = type(value) is dict
    return right and all(may_be(inner[1], v, signed) for v in value.values())
  assert dataclasses.is_dataclass(hint), hint
  return type(value) is dict and "x" not in value


def inside(path, hint):
  """Yields the dotted keys of an annotation, and what selects their class."""
  yield path, hint, None
  groups = config_lib.groups_of(hint)
  for cls in groups:
    kind = config_lib.kind_of(cls) if len(groups) > 1 else None
    for name, inner in config_lib.keys(cls).items():
      for at, h, k in inside(f"{path}.{name}", inner):
        yield at, h, kind or k


def all_keys():
  """Every key of a config that has a phase of each kind, as `inside`."""
  found = []
  own = config_lib.keys(plan.Experiment)
  for name in ("phases", "seed", "report", "trackers"):
    found += inside(name, own[name])
  found += [
    key for key in inside("models.base", Shape) if key[0] != "models.base"
  ]
  config = good()
  phases = {config[name]["phase"]: name for name in config["phases"]}
  for kind, (cls, _) in PHASES.items():
    for name, hint in config_lib.keys(cls).items():
      shared = name in plan.SHARED and name != "model"
      if not shared:
        found += [
          key
          for key in inside(f"{phases[kind]}.{name}", hint)
          if ".model." not in key[0]
        ]
  for name in ("task", "tokenizer", "mesh", "optimizer"):
    found += inside(name, config_lib.keys(PHASES["grpo"][0])[name])
  return found


KEYS = all_keys()


def with_value(path, kind, value):
  """The good config with one key set.

  Args:
    path: of the key.
    kind: of the task or tokenizer that has this key, or None.
    value: its value.
  """
  config = good()
  first, *rest = path.split(".")
  if kind and rest:
    config[first] = dict({"task": TASKS, "tokenizer": TOKENIZERS}[first][kind])
  if "rope_scaling." in path:
    config["models"]["base"]["rope_scaling"] = dict(SCALING)
  at = config
  for name in path.split(".")[:-1]:
    at = at.setdefault(name, {})
  at[path.split(".")[-1]] = value
  return config


def refused(tmp_path, path, kind, value):
  """Whether the launcher refuses a value, and says the key; else the reason."""
  workdir = tmp_path / "run"
  try:
    launch.run(with_value(path, kind, value), workdir, KINDS)
  except UserError as e:
    if not str(e).startswith(path):
      return f"{path}={value!r}: {e}"
  except AssertionError:
    shutil.rmtree(workdir, ignore_errors=True)
    return f"{path}={value!r} is not refused"
  except Exception as e:
    return f"{path}={value!r}: {type(e).__name__}: {e}"
  return f"{path}={value!r} has written" if workdir.exists() else None


def wrong(path, hint, value):
  """Whether no key of this annotation could have this value."""
  signed = path.split(".")[1:2] in ([name] for name in SIGNED)
  # A phase that names no model has that of its start.
  if path.endswith(".model") and value is None:
    return False
  return not may_be(hint, value, signed)


def test_the_good_config_is_good(tmp_path):
  with pytest.raises(AssertionError, match="a phase ran"):
    launch.run(good(), tmp_path, KINDS)


def test_every_key_refuses_every_wrong_value(tmp_path):
  tried, failed = 0, []
  for path, hint, kind in KEYS:
    for value in VALUES:
      if wrong(path, hint, value):
        tried += 1
        failed.append(refused(tmp_path, path, kind, value))
  assert "\n".join(filter(None, failed)) == ""
  assert tried > 2000


def test_no_number_of_things_is_zero(tmp_path):
  failed = [
    refused(tmp_path, path, kind, 0)
    for path, hint, kind in KEYS
    if int in arms(hint) and path.rpartition(".")[2] not in ZERO
  ]
  assert len(failed) > 30
  assert "\n".join(filter(None, failed)) == ""


JSON = st.recursive(
  st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
  lambda inner: (
    st.lists(inner, max_size=3)
    | st.dictionaries(st.just("x"), inner, max_size=1)
  ),
  max_leaves=4,
)


@settings(
  max_examples=150,
  deadline=None,
  suppress_health_check=list(HealthCheck),
)
@given(key=st.sampled_from(KEYS), value=JSON)
def test_values_at_random(tmp_path_factory, key, value):
  path, hint, kind = key
  if wrong(path, hint, value):
    assert not refused(tmp_path_factory.getbasetemp() / "no", path, kind, value)


def _seconds_of_children():
  used = resource.getrusage(resource.RUSAGE_CHILDREN)
  return used.ru_utime + used.ru_stime


def test_the_whole_command_fails_soon(tmp_path):
  before = _seconds_of_children()
  done = subprocess.run(
    [
      *(sys.executable, "-m", "experiments.launch"),
      *("--config=configs/quickstart.py", f"--workdir={tmp_path}/run"),
      "--config.small_rl.lr=-1",
    ],
    cwd=ROOT,
    env=os.environ | {"PYTHONPATH": str(ROOT)},
    capture_output=True,
    text=True,
  )
  seconds = _seconds_of_children() - before
  assert done.returncode == 2
  assert done.stderr == "error: small_rl.lr=-1.0 must be above 0\n"
  # Of its own time: others may keep the processors busy.
  assert seconds < 15
  assert not (tmp_path / "run").exists()
