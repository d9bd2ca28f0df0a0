"""Bad input: one line that names it, and nothing on disk is changed."""

import fcntl
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import fake_phases
import pytest
from absl import flags

from configs import quickstart
from experiments import commandline, launch, plan
from r1jax.errors import UserError

ROOT = Path(__file__).parents[1]


def run(config, workdir):
  return launch.run(config, workdir, fake_phases.PHASES)


def snapshot(directory):
  """Every file below a directory, with its bytes."""
  files = (p for p in Path(directory).rglob("*") if p.is_file())
  return {p: p.read_bytes() for p in files}


def assign(config, key, value):
  """Sets a dotted key; None deletes it."""
  *blocks, last = key.split(".")
  for name in blocks:
    config = config[name]
  with config.unlocked():
    if last in config:
      del config[last]
    if value is not None:
      config[last] = value


def changed(**overrides):
  """The fake config with dotted keys (__ for .) set."""
  config = fake_phases.get_config()
  for key, value in overrides.items():
    assign(config, key.replace("__", "."), value)
  return config


@pytest.mark.parametrize(
  "overrides, message",
  [
    (
      dict(rl__phase="tran"),
      'rl.phase="tran" is unknown; did you mean "train"',
    ),
    (dict(rl__init="bass"), 'rl.init: "bass" is not a phase before it'),
    (dict(base__init="rl"), 'base.init: "rl" is not a phase before it'),
    (dict(base__data="kept"), 'base.data: "kept" is not a phase before it'),
    (dict(base__model="huge"), 'base.model="huge" is unknown; known: small'),
    (dict(phases=("base", "base")), '"base" is listed twice'),
    (dict(phases=("base", "nope")), '"nope" has no group of keys'),
    (dict(phases=("../x",)), '"../x" cannot be the name'),
    (dict(phases=("data",)), '"data" cannot be the name'),
    (dict(phases=None), "phases is missing"),
    (dict(phases=()), "phases is empty"),
    (dict(rl__data="base"), "the phase base (train) makes no examples"),
    (dict(kept__init=""), "kept.model is missing"),
    (dict(kept__init="", kept__model="small"), "kept.init is missing: reject"),
    (dict(report__plot=("kept",)), 'report.plot: "kept" is no RL phase'),
    (dict(report__plot=("rll",)), 'report.plot: "rll" is no RL phase'),
  ],
)
def test_a_wrong_config_is_named_before_anything_is_written(
  tmp_path, overrides, message
):
  with pytest.raises(UserError) as error:
    run(changed(**overrides), tmp_path / "run")
  assert message in str(error.value)
  assert list(tmp_path.iterdir()) == []


def test_a_model_other_than_that_of_the_start_is_refused():
  tiny = dict(fake_phases.MODEL, d_model=4)
  config = changed(models__tiny=tiny, rl__model="tiny")
  with pytest.raises(UserError, match="rl.model differs from .* of base"):
    plan.resolve(config, fake_phases.PHASES)


def test_phases_are_complete():
  _, phases = plan.resolve(
    changed(rl__task=dict(kind="fake")), fake_phases.PHASES
  )
  base, rl, eval_rl = phases[:3]
  assert (base.name, base.seed, base.init) == ("base", 3, "")
  assert base.model.d_model == 8 and base.task.kind == rl.task.kind == "fake"
  assert eval_rl.model.d_model == 8


def test_a_source_may_be_called_like_the_phase_that_reads_it():
  _, phases = plan.resolve(changed(base__data="base"), fake_phases.PHASES)
  assert phases[0].data == "base"


def test_a_key_that_a_phase_needs(tmp_path):
  for config, message in (
    (changed(base__steps=None), "base.steps is missing"),
    (changed(base__steps=None, base__step=3), 'base.step is no key; .*"steps"'),
  ):
    with pytest.raises(UserError, match=message):
      run(config, tmp_path / "run")


def test_the_workdir_of_another_config(tmp_path):
  run(changed(phases=("base",)), tmp_path)
  before = snapshot(tmp_path)
  other = changed(phases=("base",), base__steps=9, base__init="")
  with pytest.raises(UserError) as error:
    run(other, tmp_path)
  assert "base.steps is 3 there, 9 here" in str(error.value)
  assert snapshot(tmp_path) == before


def test_a_workdir_of_unknown_origin(tmp_path):
  (tmp_path / "base/checkpoints/2").mkdir(parents=True)
  with pytest.raises(UserError, match="base/keys.json is missing"):
    run(fake_phases.get_config(), tmp_path)


def test_a_workdir_that_cannot_be_made(tmp_path):
  (tmp_path / "file").write_text("")
  with pytest.raises(UserError, match="cannot be written"):
    run(fake_phases.get_config(), tmp_path / "file" / "run")


def test_a_workdir_in_use(tmp_path):
  with open(tmp_path / ".lock", "w") as lock:
    fcntl.flock(lock, fcntl.LOCK_EX)
    with pytest.raises(UserError, match="in use by another process"):
      run(fake_phases.get_config(), tmp_path)
  assert [p.name for p in tmp_path.iterdir()] == [".lock"]


def test_a_damaged_checkpoint_and_the_way_out(tmp_path):
  config = changed(phases=("base",))
  rows = run(config, tmp_path)
  (tmp_path / "base/done.json").unlink()
  for step in (2, 3):
    good = tmp_path / f"base/checkpoints/{step}/_METADATA"
    good.write_bytes(good.read_bytes()[:99])
  before = snapshot(tmp_path)
  checkpoints = tmp_path / "base/checkpoints"
  with pytest.raises(UserError, match=f"{checkpoints}/3 .* remove .*anew"):
    run(config, tmp_path)
  assert snapshot(tmp_path) == before
  shutil.rmtree(checkpoints)
  assert run(config, tmp_path) == rows


def test_damaged_parameters_and_the_way_out(tmp_path):
  run(changed(phases=("base", "rl")), tmp_path)
  (tmp_path / "rl/done.json").unlink()
  shutil.rmtree(tmp_path / "base/params")
  config = changed(phases=("base", "rl"))
  with pytest.raises(UserError, match="remove .*base/done.json to make"):
    run(config, tmp_path)
  (tmp_path / "base/done.json").unlink()
  run(config, tmp_path)


@pytest.fixture
def read(tmp_path, monkeypatch, capsys):
  """Parses a command line and reads its config, as the launcher does."""
  shutil.copy(fake_phases.__file__, tmp_path / "config.py")
  for name, text in (
    ("broken", "\ndef get_config():\n  return 1 / 0\n"),
    ("size", "def get_config(size):\n  raise ValueError(f'no {size} here')\n"),
    ("syntax", "def (:\n"),
    ("empty", ""),
  ):
    (tmp_path / f"{name}.py").write_text(text)

  def done(*arguments):
    values = flags.FlagValues()
    path = flags.DEFINE_string("config", None, "", flag_values=values)
    workdir = flags.DEFINE_string("workdir", None, "", flag_values=values)
    for flag in (path, workdir):
      flags.mark_flag_as_required(flag, flag_values=values)
    monkeypatch.setattr(commandline.flags, "FLAGS", values)
    commandline.parse(["launch", *(a.format(tmp_path) for a in arguments)])
    with commandline.cli.one_line_errors():
      return commandline.read(
        path.value, commandline.OVERRIDES, fake_phases.PHASES
      )

  return done


CONFIG, WORKDIR = "--config={}/config.py", "--workdir={}/run"


@pytest.mark.parametrize(
  "arguments, message",
  [
    (("--config.rl.stepz=3",), 'rl.stepz=3: the config has no such .*"steps"'),
    (("--config.rll.lr=3",), 'rll.lr=3: the config has no such key; .*"rl"'),
    (("--config.rl.lr.x=3",), "rl.lr.x=3: the config has no such key"),
    (("--config.rl.steps=x",), "rl.steps=x must be a whole number"),
    (("--config.rl.steps=1.5",), "rl.steps=1.5 must be a whole number"),
    (("--config.tokenizer.kind=hf",), "tokenizer.kind=hf: the config has no"),
    (("--steps=3",), "'steps'"),
    (("rl.steps=3",), '"rl.steps=3" is no flag'),
    (("--config={}/absent.py",), "absent.py: there is no such file"),
    (("--config={}/broken.py",), "broken.py:3: ZeroDivisionError"),
    (("--config={}/size.py:huge",), "error: ValueError: no huge here"),
    (("--config={}/syntax.py",), "syntax.py:1: invalid syntax"),
    (("--config={}/empty.py",), "empty.py defines no get_config"),
  ],
)
def test_a_wrong_command_line(read, capsys, arguments, message):
  with pytest.raises(SystemExit) as error:
    read(CONFIG, WORKDIR, *arguments)
  assert error.value.code == 2
  (line,) = capsys.readouterr().err.splitlines()
  assert line.startswith("error: ") and re.search(message, line)


def test_a_command_line_without_a_workdir(read, capsys):
  with pytest.raises(SystemExit):
    read(CONFIG)
  assert "--workdir" in capsys.readouterr().err


@pytest.mark.parametrize(
  "arguments, key, value",
  [
    (("--config.rl.steps=9",), "rl.steps", 9),
    (("--config.rl.steps", "9"), "rl.steps", 9),
    (("--config.rl.lr=1",), "rl.lr", 1.0),
    # What the file does not set, shared groups and a whole new phase too.
    (("--config.rl.task.kind=fake",), "rl.task.kind", "fake"),
    (("--config.rl.parents.helpful=base",), "rl.parents.helpful", "base"),
    (("--config.models.small.tied=false",), "models.small.tied", False),
    (("--noconfig.models.small.tied",), "models.small.tied", False),
    (("--config.models.small.qk_norm",), "models.small.qk_norm", True),
    (("--config.models.large.d_model=9",), "models.large.d_model", 9),
    (("--config.phases=base,rl",), "phases", ("base", "rl")),
    (("--config.phases=('base', 'rl')",), "phases", ("base", "rl")),
    (("--config.report.plot=",), "report.plot", ()),
    (("--config.report.plot=none",), "report.plot", None),
    (
      ("--config.more.phase=evaluate", "--config.more.label=a b"),
      "more.label", "a b",
    ),
    (("--config.more.label=x", "--config.more.phase=evaluate"),
     "more.phase", "evaluate"),
    (
      ("--config.base.parents={{'a': 'b'}}",), "base.parents", {"a": "b"},
    ),
  ],
)  # fmt: skip
def test_every_key_can_be_set(read, arguments, key, value):
  config = read(CONFIG, WORKDIR, *arguments)
  for name in key.split("."):
    config = config[name]
  assert config == value and type(config) is type(value)


def test_the_program_prints_one_line_and_exits_with_two(tmp_path):
  shutil.copy(fake_phases.__file__, tmp_path / "config.py")
  done = subprocess.run(
    [
      *(sys.executable, "-m", "experiments.launch"),
      *(f"--config={tmp_path}/config.py", f"--workdir={tmp_path}/run"),
      "--config.rl.stepz=3",
    ],
    cwd=ROOT,
    env=os.environ | {"PYTHONPATH": str(ROOT)},
    capture_output=True,
    text=True,
  )
  assert done.returncode == 2
  assert done.stdout == "" and done.stderr.count("\n") == 1
  assert done.stderr.startswith("error: --config.rl.stepz=3")
  assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
  "key, value, message",
  [
    ("final_rl.rewards", dict(acuracy=1.0), 'final_rl.rewards: "acuracy" is u'),
    ("samples.least", dict(style=1.0), "samples.least.style is no part"),
    ("r1_zero.group", 1, "r1_zero.group=1 must be at least 2"),
    ("r1_zero.minibatches", 7, "r1_zero.minibatches=7 does not divide the 16"),
    ("distill.data", "none.jsonl", "distill.data: none.jsonl: cannot be read"),
    (
      "r1_zero.task",
      dict(kind="files", train="a", test="b"),
      "r1_zero.task.train: a: cannot be read",
    ),
    (
      "base.task",
      dict(kind="files", train="a", test="b"),
      'base.data="corpus" is neither a phase before',
    ),
    ("r1_zero.data", "corpus", "r1_zero.data is no key"),
    ("task.kind", "file", 'task.kind="file" is unknown; did you mean "files"'),
    ("task.template", "chat", "task.template is no key"),
    ("task.sed", 1, 'task.sed is no key; did you mean "seed"'),
    ("tokenizer.pth", "x", "tokenizer.pth is no key"),
    ("tokenizer.kind", "hf", "tokenizer.path is missing"),
    ("mesh", dict(dta=-1), 'mesh.dta is no key; did you mean "data"'),
    ("mesh", dict(data=3), "base.mesh: data=3, .* does not cover 8 devices"),
    (
      "mesh",
      dict(tensor=4, axes=dict(vocab=None)),
      'base.mesh: tensor=4 does not divide 2, .* "kv_heads" .* layers/k/kernel',
    ),
    (
      "mesh",
      dict(axes=dict(embed="tensor")),
      "base.mesh: tensor would split two axes of the parameter embed/embedding",
    ),
    ("mesh", dict(axes=dict(embd=None)), "mesh.axes.embd: no parameter has"),
    ("small_rl.refil", 2, 'small_rl.refil is no key; did you mean "refill"'),
    ("small_rl.beta", 2, 'small_rl.beta is no key; did you mean "loss.beta"'),
    ("small_rl.loss", dict(overlng=64), "small_rl.loss.overlng is no key"),
    ("small_rl.loss", dict(overlong=64), "small_rl.loss.overlong=64 must be"),
    ("base.stepz", 3, 'base.stepz is no key; did you mean "steps"'),
    ("base.loss", dict(mean="token"), "base.loss is no key"),
    ("rewrads", 3, "rewrads is no key, and no group of a phase"),
    (
      "final_rl.loss",
      dict(mean="tokn"),
      'final_rl.loss.mean="tokn" is .* "token"',
    ),
    ("r1_zero.ref_every", None, "r1_zero.ref_every is missing; with loss.beta"),
    ("distill.steps", None, "distill.steps is missing"),
    ("small_rl.group", None, "small_rl.group is missing"),
    (
      "small_rl.sampler.max_new_tokens",
      256,
      "small_rl.sampler.max_new_tokens=256 leaves no room",
    ),
    (
      "eval_r1.sampler.max_new_tokens",
      250,
      "eval_r1.sampler.max_new_tokens=250: the prompt of problem countdown-",
    ),
    ("r1_zero.row_length", 57, "r1_zero.row_length=57 is .* need 58 tokens"),
    ("sft.row_length", 57, "sft.row_length=57 .* 59 tokens.* at least 58"),
    ("base.row_length", 216, "base.row_length=216 .*corpus.*219 tokens"),
    ("tokenizer", dict(kind="words"), 'tokenizer.kind="words" is unknown'),
    ("sft.optimizer", dict(kind="sgd"), "sft.optimizer.kind=.sgd. is unknown"),
    ("small_rl.sampler.kv_dtype", "int4", "small_rl.sampler.kv_dtype=int4 mu"),
    ("eval_small_rl.sampler.slots", 0, "eval_small_rl.sampler.slots=0 must"),
    ("small_rl.temperature", 0.0, "small_rl.temperature=0.0 must be above 0"),
    ("models.small.d_ff", None, "models.small.d_ff is missing"),
    ("models.small.vocab_size", 99, "small_base.model.vocab_size=99 must be"),
    ("report", dict(plot=("base",)), 'report.plot: "base" is no RL phase'),
    ("eval_base.init", None, "eval_base.model is missing"),
  ],
)
def test_what_a_late_phase_lacks_is_said_first(key, value, message, tmp_path):
  """Before any phase runs, and before anything is written."""
  config = quickstart.get_config("smoke")
  assign(config, key, value)
  with pytest.raises(UserError, match=message):
    launch.run(config, tmp_path / "run")
  assert not (tmp_path / "run").exists()


def test_empty_files_are_said_first(tmp_path):
  (tmp_path / "empty.jsonl").write_text("\n")
  path = str(tmp_path / "empty.jsonl")
  for key, value, message in (
    ("distill.data", path, "distill.data=.*empty.jsonl has no examples"),
    ("r1_zero.task", dict(kind="files", train=path), "r1_zero.task.train has"),
    (
      "eval_r1.task",
      dict(kind="files"),
      "^eval_r1.task.test has no problems; set task.test to a file of problems",
    ),
  ):
    config = quickstart.get_config("smoke")
    assign(config, key, value)
    with pytest.raises(UserError, match=message):
      launch.run(config, tmp_path / "run")
  assert not (tmp_path / "run").exists()


def test_a_file_of_examples_is_measured_first(tmp_path):
  path = tmp_path / "long.jsonl"
  path.write_text(
    json.dumps(
      {"prompt": "try", "completion": " ".join("so" for _ in range(9))}
    )
  )
  config = quickstart.get_config("smoke")
  config.distill.update(data=str(path), row_length=9)
  with pytest.raises(UserError, match="distill.row_length=9 .* 11 tokens"):
    launch.run(config, tmp_path / "run")
