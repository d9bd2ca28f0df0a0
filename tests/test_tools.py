"""Evaluation and sampling from the command line."""

import json
from pathlib import Path

import numpy as np
import pytest
import tiny_models

import r1jax
from r1jax import scores
from r1jax.data import examples
from r1jax.phases import actor
from tools import evaluate, sample

ANSWERS = ("3", "7", "7", "12")


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
  return tiny_models.hf_directory(tmp_path_factory.mktemp("hf") / "model")


@pytest.fixture
def data(tmp_path, monkeypatch):
  """A file of problems, in the directory that the tools run in."""
  monkeypatch.chdir(tmp_path)
  rows = [
    dict(id=f"p{i}", kind="exact", prompt=f"word {i}", answer=a, language="en",
         data={})
    for i, a in enumerate(ANSWERS)
  ]  # fmt: skip
  (tmp_path / "my.jsonl").write_text(
    "".join(json.dumps(r) + "\n" for r in rows)
  )
  return "my.jsonl"


@pytest.fixture
def said(monkeypatch):
  """Completions of a model that answers, in place of what it says."""
  texts = [
    "<answer> 3 </answer>", "<answer> 4 </answer>", "<answer> 3 </answer>", "?",
    "<answer> 1 </answer>", "<answer> 2 </answer>", "", "x",
    "<answer> 7 </answer>", "<answer> 7 </answer>", "<answer> 7 </answer>",
    "<answer> 7 </answer>",
    "<answer> 12 </answer>", "<answer> 1 </answer>", "<answer> 1 </answer>",
    "<answer> 2 </answer>",
  ]  # fmt: skip

  def on_finished(self, ids, rows):
    for i in ids:
      self.texts[i] = texts[i]
      self._futures[i] = actor.judges.shared().submit(
        self.problems[i], texts[i]
      )

  sampled = actor.Actor._sample

  def ended(self, problems, key, on_finished):
    prompts, rollout = sampled(self, problems, key, on_finished)
    return prompts, rollout._replace(ended=np.ones_like(rollout.ended))

  monkeypatch.setattr(actor._Judging, "on_finished", on_finished)
  monkeypatch.setattr(actor.Actor, "_sample", ended)
  return texts


def lines(path):
  return [json.loads(line) for line in Path(path).read_text().splitlines()]


def test_the_scores_of_what_was_said(directory, data, said, capsys):
  evaluate.main(
    [f"--checkpoint=hf:{directory}", f"--data={data}", "--samples=4",
     "--k=1,2,4", "--max_new_tokens=4", "--out=out.jsonl"]
  )  # fmt: skip
  written = json.loads(Path("out.json").read_text())
  found = {row["score"]: row for row in written["scores"]}
  # Right: 2 of 4, none, all, 1 of 4.
  assert found["pass@1"]["value"] == pytest.approx((0.5 + 0 + 1 + 0.25) / 4)
  # 1 - C(2,2)/C(4,2), 0, 1, 1 - C(3,2)/C(4,2).
  assert found["pass@2"]["value"] == pytest.approx((5 / 6 + 0 + 1 + 0.5) / 4)
  assert found["pass@4"]["value"] == 0.75
  # Votes: 3, 1 or 2, 7, 1.
  assert found["cons@4"]["value"] == 0.5
  for row in found.values():
    assert 0 <= row["low"] < row["value"] < row["high"] <= 1
  low, high = scores.interval([0.5, 0.0, 1.0, 0.25], 4)
  assert (found["pass@1"]["low"], found["pass@1"]["high"]) == (low, high)
  rows = lines("out.jsonl")
  assert [row["right"] for row in rows] == [2, 0, 4, 1]
  assert [c["text"] for row in rows for c in row["completions"]] == said
  assert rows[0]["completions"][1]["answer"] == "4"
  assert rows[0]["completions"][3]["reason"] == "no_answer"
  out = capsys.readouterr().out
  assert "pass@2" in out and "out.jsonl" in out
  # Of 16: 7 right, 3 without an answer.
  assert "correct 43.8%" in out and "no_answer 18.8%" in out
  with pytest.raises(SystemExit):
    evaluate.main(
      [f"--checkpoint={directory}", f"--data={data}", "--out=out.jsonl"]
    )
  assert "out.jsonl exists" in capsys.readouterr().err


def test_columns_and_kinds_of_the_file_are_flags(directory, data, tmp_path):
  """As keys of the task files are."""
  rows = [
    dict(question="one", gold="so #### 3"),
    dict(question="2", gold="#### 4"),
  ]
  text = "".join(json.dumps(row) + "\n" for row in rows)
  (tmp_path / "columns.jsonl").write_text(text)
  evaluate.main(
    [f"--checkpoint=hf:{directory}", "--data=columns.jsonl", "--out=out.jsonl",
     "--fields", "prompt=question", "answer=gold", "--gold=after_hashes",
     "--verifier=exact", "--golds=1", "--samples=1", "--max_new_tokens=3",
     "--problems=1", "--template=none"]
  )  # fmt: skip
  (row,) = lines("out.jsonl")
  assert (row["prompt"], row["answer"], row["kind"]) == ("one", "3", "exact")


def test_greedy_evaluation_is_the_likeliest_completion(directory, data):
  evaluate.main(
    [f"--checkpoint=hf:{directory}", f"--data={data}", "--temperature=0",
     "--max_new_tokens=5", "--out=out.jsonl", "--problems=3"]
  )  # fmt: skip
  rows = lines("out.jsonl")
  model = r1jax.load(f"hf:{directory}")
  wanted = model.sample(
    [f"word {i}" for i in range(3)], max_new_tokens=5, temperature=0
  )
  assert [row["completions"][0]["text"] for row in rows] == [
    c.text for c in wanted
  ]
  assert all(len(row["completions"]) == 1 for row in rows)


@pytest.mark.parametrize(
  "flags, message",
  [
    (["--data=none.jsonl"], "--data: none.jsonl: cannot be read"),
    (["--data=my.jsonl", "--fields", "x"], "--fields takes NAME=VALUE"),
    (["--data=my.jsonl", "--golds=x"], "--golds=x must be a whole number"),
    (["--data=my.jsonl", "--gold=x"], '--gold="x" is unknown'),
    (["--data=my.jsonl", "--k=9"], "--k=9 must list whole numbers"),
    (["--data=my.jsonl", "--k=x"], "--k=x must list whole numbers"),
    (["--data=my.jsonl", "--samples=4", "--temperature=0"], "samples=4 would"),
    (["--data=my.jsonl", "--temperature=-1"], "temperature=-1.0 must be"),
    (["--data=my.jsonl", "--max_new_tokens=95"], "--max_new_tokens=95: the pr"),
    (["--data=my.jsonl", "--checkpoint=run:nowhere/x"], "there is no run"),
  ],
)
def test_what_is_wrong_is_said_first(directory, data, capsys, flags, message):
  with pytest.raises(SystemExit) as error:
    evaluate.main([f"--checkpoint=hf:{directory}", *flags])
  assert error.value.code == 2
  (line,) = capsys.readouterr().err.splitlines()
  assert line.startswith("error: ") and message in line


def test_samples_are_examples_of_sft(directory, data, tmp_path):
  sample.main(
    [f"--checkpoint=hf:{directory}", f"--prompts={data}", "--samples=2",
     "--max_new_tokens=4", "--out=out.jsonl", "--seed=5"]
  )  # fmt: skip
  rows = lines("out.jsonl")
  assert [(row["id"], row["sample"]) for row in rows][:3] == [
    ("p0", 0), ("p0", 1), ("p1", 0)
  ]  # fmt: skip
  wanted = r1jax.load(f"hf:{directory}").sample(
    [f"word {i}" for i in range(4)], max_new_tokens=4, samples=2, seed=5
  )
  assert [row["completion"] for row in rows] == [c.text for c in wanted]
  assert [row["logprob"] for row in rows] == [c.logprob for c in wanted]
  assert {row["finish"] for row in rows} <= {"stop", "length"}
  assert len(examples.read("out.jsonl")) == 8


def test_prompts_may_be_messages(directory, tmp_path, monkeypatch, capsys):
  """Of any column; turns before the question are part of the prompt."""
  monkeypatch.chdir(tmp_path)
  one = [{"role": "user", "content": "word 1"}]
  three = [
    {"role": "system", "content": "be short"},
    {"role": "user", "content": "a"},
    {"role": "assistant", "content": "b"},
    {"role": "user", "content": "c"},
  ]
  for column, flags in (
    ("question", ["--fields", "prompt=question"]), ("messages", [])
  ):  # fmt: skip
    file = f"{column}.jsonl"
    rows = [{column: turns, "n": i} for i, turns in enumerate((one, three))]
    Path(file).write_text("".join(json.dumps(r) + "\n" for r in rows))
    sample.main(
      [f"--checkpoint=hf:{directory}", f"--prompts={file}", *flags,
       "--max_new_tokens=4", f"--out=out.{file}"]
    )  # fmt: skip
    found = lines(f"out.{file}")
    assert [(row["prompt"], row["n"]) for row in found] == [
      ("word 1", 0), (three, 1)
    ]  # fmt: skip
    model = r1jax.load(f"hf:{directory}")
    wanted = model.sample(
      [model.tokenizer.template().render(turns) for turns in (one, three)],
      max_new_tokens=4,
      template="none",
    )
    assert [row["completion"] for row in found] == [c.text for c in wanted]
    assert len(examples.read(f"out.{file}")) == 2
  with pytest.raises(SystemExit):
    sample.main(
      [f"--checkpoint=hf:{directory}", f"--prompts={file}", "--template=none"]
    )
  (line,) = capsys.readouterr().err.splitlines()
  assert "--fields prompt=messages.3.content" in line


def test_a_fault_of_many_prompts_is_one_line(
  directory, tmp_path, monkeypatch, capsys
):
  monkeypatch.chdir(tmp_path)
  rows = [{"q": i} for i in range(3)] + [{"q": [{"role": "user"}]}]
  Path("q.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
  with pytest.raises(SystemExit):
    sample.main(
      [f"--checkpoint=hf:{directory}", "--prompts=q.jsonl", "--fields",
       "prompt=q"]
    )  # fmt: skip
  said = capsys.readouterr().err
  assert said.count("q.jsonl:") == 2
  assert (
    'q.jsonl:1: the prompt ("q") must be text or a list of messages, not int'
    " (and 2 more rows)"
  ) in said
  assert 'q.jsonl:4: "q": message 1 must have the keys role and' in said


def test_prompts_of_the_command_line_and_of_plain_text(
  directory, tmp_path, monkeypatch, capsys
):
  monkeypatch.chdir(tmp_path)
  (tmp_path / "my.txt").write_text("a b\n\nc d\n")
  sample.main(
    [f"--checkpoint=hf:{directory}", "--prompt=x y", "--prompts=my.txt",
     "--max_new_tokens=3", "--temperature=0", "--template=none"]
  )  # fmt: skip
  printed = capsys.readouterr().out
  wanted = r1jax.load(f"hf:{directory}").sample(
    ["x y", "a b", "c d"], max_new_tokens=3, temperature=0, template="none"
  )
  assert printed == "".join(f"{c.text}\n" for c in wanted)


@pytest.mark.parametrize(
  "flags, message",
  [
    ([], "there are no prompts"),
    (["--prompts=none.txt"], "none.txt: cannot be read"),
    (
      ["--prompts=my.jsonl", "--fields", "prompt=question"],
      'my.jsonl:1: the field "prompt" is missing: there is no column'
      ' "question"; columns: id, kind, prompt, answer, language, data;'
      " --fields prompt=NAME names the column (and 3 more rows)",
    ),
    (
      ["--prompts=my.jsonl", "--fields", "prompt=data.x", "answer=id"],
      "--fields answer=id: only prompt=COLUMN is read",
    ),
    (["--prompts=my.jsonl", "--fields", "x"], "--fields takes NAME=VALUE"),
    (["--prompt=x", "--out=my.jsonl"], "my.jsonl exists"),
    (["--prompt=x", "--samples=0"], "samples=0 must be at least 1"),
  ],
)
def test_what_is_wrong_with_prompts(directory, data, capsys, flags, message):
  with pytest.raises(SystemExit) as error:
    sample.main([f"--checkpoint=hf:{directory}", *flags])
  assert error.value.code == 2
  (line,) = capsys.readouterr().err.splitlines()
  assert line.startswith("error: ") and message in line
