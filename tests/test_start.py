"""The paths of docs/start.md from files to a model that is used, walked."""

import io
import json
import runpy
import sys
from pathlib import Path

import jax
import pytest
import sentencepiece
import test_docs
import tiny_models

import r1jax
from experiments import launch
from r1jax import hf
from tools import chat, evaluate, hf_export, sample

START = Path(__file__).parents[1] / "docs" / "start.md"


def config(name, place):
  """What a config of the page returns, written to a directory and run."""
  (text,) = [
    text
    for text in test_docs.blocks(START, "python")
    if text.startswith(f"# configs/{name}.py\n")
  ]
  path = place / f"{name}.py"
  path.write_text(text)
  return runpy.run_path(str(path))["get_config"]()


def arguments(tool):
  """The commands of the page that call a tool, without the program."""
  return [
    command[3:]
    for command in test_docs.commands(START)
    if command[:3] == ["python", "-m", f"tools.{tool}"]
  ]


def of_run(tool, run):
  """The arguments of the first such command that is about a run."""
  found = [a for a in arguments(tool) if f"--checkpoint=run:{run}" in a]
  return found[0]


def talk(monkeypatch, capsys, *argv):
  """What a chat prints that gets one line of input."""
  monkeypatch.setattr(sys, "stdin", io.StringIO("make 3\n"))
  capsys.readouterr()
  chat.main([*argv, "--max_new_tokens=4"])
  return capsys.readouterr().out


@pytest.mark.slow
def test_problems_tokenizer_and_model_of_ones_own(
  tmp_path, monkeypatch, capsys
):
  monkeypatch.chdir(tmp_path)
  problems = [
    dict(test_docs.PROBLEM, id=str(i), prompt=f"make 29 from 3 7 {i}")
    for i in range(8)
  ]
  text = "".join(json.dumps(p) + "\n" for p in problems)
  for split in ("train", "test"):
    Path(f"{split}.jsonl").write_text(text)
  examples = [
    dict(prompt=p["prompt"], completion="3 * 7 + 8") for p in problems
  ]
  Path("my.jsonl").write_text("".join(json.dumps(e) + "\n" for e in examples))
  lines = [f"make {i} from 3 7 8 : {i} * 2 + 1" for i in range(300)]
  Path("my.txt").write_text("\n".join(lines))
  sentencepiece.SentencePieceTrainer.train(
    input="my.txt", model_prefix="my", vocab_size=500, hard_vocab_limit=False
  )
  c = config("mine", tmp_path)
  c.base.update(steps=2, batch=4)
  c.r1_zero.update(steps=2, prompts=2, group=4, minibatches=1, save_every=1)
  c.r1_zero.sampler.update(slots=8, max_new_tokens=12)
  c.eval_r1_zero.update(samples=2, problems=2)
  c.eval_r1_zero.sampler.update(slots=8, max_new_tokens=12)
  launch.run(c, "runs/mine")

  short = "--max_new_tokens=8"
  evaluate.main([*of_run("evaluate", "runs/mine/r1_zero"), short])
  (scores,) = Path().glob("test.*.json")
  names = [row["score"] for row in json.loads(scores.read_text())["scores"]]
  assert names == ["pass@1", "pass@8", "cons@8"]
  sample.main([*of_run("sample", "runs/mine/r1_zero"), short])
  assert len(Path("samples.jsonl").read_text().splitlines()) == 32
  hf_export.main(of_run("hf_export", "runs/mine/r1_zero"))
  assert hf.load("exported")[0].config.d_model == 128
  said = talk(monkeypatch, capsys, *of_run("chat", "runs/mine/r1_zero"))
  assert "no chat template" in said
  # A checkpoint of RL has the reference beside the policy.
  before = r1jax.load("run:runs/mine/r1_zero@1").params
  after = r1jax.load("run:runs/mine/r1_zero@2").params
  end = r1jax.load("run:runs/mine/r1_zero").params
  same = jax.tree.map(lambda a, b: bool((a == b).all()), after, end)
  assert all(jax.tree.leaves(same))
  assert jax.tree.structure(before) == jax.tree.structure(end)


@pytest.mark.slow
def test_a_parquet_file_and_a_model_of_hugging_face(
  tmp_path, monkeypatch, capsys
):
  pyarrow = pytest.importorskip("pyarrow")
  from pyarrow import parquet

  monkeypatch.chdir(tmp_path)
  tiny_models.hf_directory(Path("smollm2"))
  table = pyarrow.table(
    {"question": [f"{i} + 1?" for i in range(6)], "answer": [*range(1, 7)]}
  )
  for split in ("train", "test"):
    parquet.write_table(table, f"{split}.parquet")
  c = config("own", tmp_path)
  short = dict(slots=8, max_new_tokens=8)
  c.before.update(problems=4, samples=2, sampler=short)
  c.after.update(problems=4, samples=2, sampler=short)
  c.rl.update(steps=2, prompts=2, group=4, row_length=128, sampler=short)
  rows = launch.run(c, "runs/own")
  assert [row["checkpoint"] for row in rows] == ["before", "after"]
  evaluate.main([*of_run("evaluate", "runs/own/rl"), "--max_new_tokens=8"])
  (results,) = Path().glob("test.*.jsonl")
  lines = [json.loads(line) for line in results.read_text().splitlines()]
  assert [line["answer"] for line in lines] == [str(i) for i in range(1, 7)]
  assert all(len(line["completions"]) == 8 for line in lines)
  sample.main([*of_run("sample", "runs/own/rl"), "--max_new_tokens=8"])
  written = Path("own.jsonl").read_text().splitlines()
  assert [json.loads(line)["prompt"] for line in written] == [
    f"{i} + 1?" for i in range(6) for _ in range(4)
  ]
  hf_export.main(of_run("hf_export", "runs/own/rl"))
  (one,) = r1jax.load("hf:trained").sample(["a"], max_new_tokens=4)
  (two,) = r1jax.load("run:runs/own/rl").sample(["a"], max_new_tokens=4)
  assert one == two
  said = talk(monkeypatch, capsys, "--checkpoint=hf:trained")
  assert "no chat template" not in said
