"""Bad input: one line that names it, and nothing on disk is changed."""

import fcntl
import os
import shutil
import subprocess
import sys
from pathlib import Path

import fake_phases
import pytest
from absl import flags
from ml_collections import config_flags

from configs import quickstart
from experiments import launch, plan, sweep
from r1jax import cli
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
    (dict(rl__phase="grop"), 'rl.phase: "grop" is unknown; known: evaluate'),
    (dict(rl__init="bass"), 'rl.init: "bass" is not a phase before it'),
    (dict(base__init="rl"), 'base.init: "rl" is not a phase before it'),
    (dict(base__data="kept"), 'base.data: "kept" is not a phase before it'),
    (dict(base__model="huge"), 'base.model: "huge" is unknown; known: small'),
    (dict(phases=("base", "base")), '"base" is listed twice'),
    (dict(phases=("base", "nope")), '"nope" has no block'),
    (dict(phases=("../x",)), '"../x" cannot be the name'),
    (dict(phases=("data",)), '"data" cannot be the name'),
    (dict(phases=None), "the config has no phases"),
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
  config = changed(models__tiny=dict(d_model=4), rl__model="tiny")
  with pytest.raises(UserError, match="rl.model: it differs from .* base"):
    plan.resolve(config, fake_phases.PHASES)


def test_blocks_are_complete():
  base, rl, eval_rl = plan.resolve(
    changed(rl__task=dict(kind="own")), fake_phases.PHASES
  )[:3]
  assert (base.name, base.seed, base.init) == ("base", 3, "")
  assert base.model.d_model == 8 and base.task.kind == "fake"
  assert rl.task.kind == "own"
  assert eval_rl.model.d_model == 8


def test_a_source_may_be_called_like_the_phase_that_reads_it():
  base = plan.resolve(changed(base__data="base"), fake_phases.PHASES)[0]
  assert base.data == "base"


def test_data_of_a_phase_that_makes_none(tmp_path):
  with pytest.raises(UserError, match="the phase base .train. makes no"):
    run(changed(rl__data="base"), tmp_path / "run")


def test_a_key_that_a_phase_needs(tmp_path):
  config = changed(base__steps=None, base__step=3)
  with pytest.raises(UserError) as error:
    run(config, tmp_path / "run")
  assert 'base (train) needs the key "steps"' in str(error.value)
  assert 'is "step" misspelt?' in str(error.value)


def test_the_workdir_of_another_config(tmp_path):
  run(changed(phases=("base",)), tmp_path)
  before = snapshot(tmp_path)
  other = changed(phases=("base",), base__steps=9, base__more=1)
  with pytest.raises(UserError) as error:
    run(other, tmp_path)
  assert "base.steps is 3 there, 9 here" in str(error.value)
  assert "base.more is absent there, 1 here" in str(error.value)
  assert snapshot(tmp_path) == before


def test_a_workdir_of_unknown_origin(tmp_path):
  (tmp_path / "base").mkdir()
  with pytest.raises(UserError, match="holds phases but no config.json"):
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
  newest = tmp_path / "base/checkpoints/3"
  good = newest / "_METADATA"
  good.write_bytes(good.read_bytes()[:99])
  before = snapshot(tmp_path)
  with pytest.raises(UserError, match=f"{newest} .*remove that directory"):
    run(config, tmp_path)
  assert snapshot(tmp_path) == before
  shutil.rmtree(newest)
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


BROKEN = "import ml_collections\ndef get_config():\n  return 1 / 0\n"


@pytest.fixture
def parse(tmp_path, monkeypatch, capsys):
  """Parses a command line: what it prints on its way to exit status 2."""
  shutil.copy(fake_phases.__file__, tmp_path / "config.py")
  (tmp_path / "broken.py").write_text(BROKEN)
  (tmp_path / "size.py").write_text(
    "def get_config(size):\n  raise ValueError(f'no {size} here')\n"
  )
  (tmp_path / "syntax.py").write_text("def (:\n")

  def parsed(*arguments):
    values = flags.FlagValues()
    config_flags.DEFINE_config_file("config", flag_values=values)
    flags.DEFINE_string("workdir", None, "", flag_values=values)
    flags.mark_flag_as_required("workdir", flag_values=values)
    monkeypatch.setattr(cli.flags, "FLAGS", values)
    argv = ["launch", *(a.format(tmp_path) for a in arguments)]
    # config_flags looks for the overrides there.
    monkeypatch.setattr(sys, "argv", argv)
    with pytest.raises(SystemExit) as error:
      cli.parse(argv)
    assert error.value.code == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: ")
    return lines[0]

  return parsed


CONFIG, WORKDIR = "--config={}/config.py", "--workdir={}/run"


@pytest.mark.parametrize(
  "arguments, message",
  [
    ((CONFIG, WORKDIR, "--config.rl.stepz=3"), "rl.stepz=3: the config has no"),
    ((CONFIG, WORKDIR, "--config.rll.lr=3"), "rll.lr=3: the config has no"),
    ((CONFIG, WORKDIR, "--config.rl.steps=x"), "--config.rl.steps=x"),
    ((CONFIG, WORKDIR, "--steps=3"), "'steps'"),
    ((CONFIG, WORKDIR, "rl.steps=3"), '"rl.steps=3" is no flag'),
    ((CONFIG,), "--workdir"),
    (("--config={}/absent.py", WORKDIR), "absent.py: there is no such file"),
    (("--config={}/broken.py", WORKDIR), "broken.py:3: ZeroDivisionError"),
    (("--config={}/size.py:huge", WORKDIR), "error: ValueError: no huge here"),
    (("--config={}/syntax.py", WORKDIR), "syntax.py, line 1"),
  ],
)
def test_a_wrong_command_line(parse, arguments, message):
  assert message in parse(*arguments)


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


def test_a_sweep_has_a_directory_a_point(tmp_path):
  path = tmp_path / "config.py"
  path.write_text(
    "def sweep(add):\n"
    "  for s in (0, 1):\n"
    "    add(**{'seed': s, 'rl.lr': 1e-3})\n"
  )
  assert sweep.points(str(path)) == [
    ("seed=0,rl.lr=0.001", {"seed": 0, "rl.lr": 0.001}),
    ("seed=1,rl.lr=0.001", {"seed": 1, "rl.lr": 0.001}),
  ]
  path.write_text("def sweep(add):\n  add(seed=1)\n  add(seed=1)\n")
  with pytest.raises(UserError, match="adds the point seed=1 twice"):
    sweep.points(str(path))
  path.write_text("")
  with pytest.raises(UserError, match="defines no sweep"):
    sweep.points(str(path))


@pytest.mark.parametrize(
  "key, value, message",
  [
    ("final_rl.rewards", dict(acuracy=1.0), '"acuracy" is unknown; known:'),
    ("samples.least", dict(style=1.0), '"style" is unknown; known:'),
    ("r1_zero.group", 1, "r1_zero.group=1: a group of one"),
    ("r1_zero.minibatches", 7, "minibatches=7 does not divide the 16"),
    ("distill.data", "none.jsonl", "none.jsonl: cannot be read"),
    (
      "r1_zero.task",
      dict(kind="files", train="a", test="b"),
      "r1_zero: a: cannot be read",
    ),
    (
      "base.task",
      dict(kind="files", train="a", test="b"),
      'base.data: "corpus" is neither an earlier phase',
    ),
    ("task.kind", "file", 'task.kind "file" is unknown'),
    ("task.template", "r1-zero", 'task.template "r1-zero" is unknown'),
    ("task.sed", 1, 'base: task: the key "sed" is unknown; .* "seed"'),
    ("tokenizer.pth", "x", 'tokenizer: the key "pth" is unknown; .* "path"'),
    ("tokenizer.kind", "hf", 'needs the key "tokenizer.path"'),
    ("mesh", dict(dta=-1), 'mesh: the key "dta" is unknown; .* "data"'),
    ("small_rl.refil", 2, 'small_rl: the key "refil" .* "refill"'),
    ("small_rl.loss", dict(overlng=64), 'small_rl: loss: "overlng" is unknown'),
    ("small_rl.loss", dict(overlong=64), "small_rl.loss.overlong=64 must be"),
    ("base.stepz", 3, 'base: the key "stepz" is unknown; .* "steps"'),
    ("base.loss", dict(mean="token"), 'base: the key "loss" is unknown'),
    ("rewrads", 3, 'the config\'s key "rewrads" is unknown'),
    ("final_rl.loss", dict(mean="tokn"), "final_rl: loss.mean='tokn'"),
    ("r1_zero.ref_every", None, 'r1_zero .grpo. needs the key "ref_every"'),
    ("distill.steps", None, 'distill .sft. needs the key "steps"'),
    ("small_rl.max_new_tokens", 256, "small_rl.max_new_tokens=256 leaves no"),
    ("tokenizer", dict(kind="words"), 'tokenizer.kind "words" is unknown'),
    ("sft.optimizer", dict(kind="sgd"), 'kind "sgd" is unknown'),
    ("small_rl.kv_dtype", "int4", "kv_dtype=int4 must be"),
    ("eval_small_rl.slots", 0, "slots=0 must be at least 1"),
    ("small_rl.temperature", 0.0, "small_rl.temperature=0.0 must be above 0"),
  ],
)
def test_what_a_late_phase_lacks_is_said_first(key, value, message, tmp_path):
  """Before any phase runs, and before anything is written."""
  config = quickstart.get_config("smoke")
  assign(config, key, value)
  with pytest.raises(UserError, match=message):
    launch.run(config, tmp_path / "run")
  assert not (tmp_path / "run").exists()


def test_a_late_missing_key_is_said_first(tmp_path):
  config = quickstart.get_config("smoke")
  assign(config, "small_rl.group", None)
  with pytest.raises(UserError, match='small_rl .*needs the key "group"'):
    launch.run(config, tmp_path / "run")
  assert not (tmp_path / "run").exists()
