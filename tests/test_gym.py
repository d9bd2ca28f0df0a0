"""reasoning-gym's problems, and their verdicts beside its own scorers."""

import time

import pytest
import reasoning_gym
from hf_files import write_tokenizer

from r1jax import verifiers
from r1jax.data import gym
from r1jax.errors import UserError
from r1jax.text.tokenizer import HFTokenizer
from r1jax.types import Problem

DATASETS = {
  "chain_sum": dict(min_terms=2, max_terms=2, min_digits=1, max_digits=1),
  "gcd": dict(min_value=1, max_value=50),
}


def test_no_question_twice():
  sets = gym.make_problems(DATASETS, 0, 30, 20, 2)
  assert {k: len(v) for k, v in sets.items()} == {
    "shots": 4,
    "test": 20,
    "train": 30,
  }
  together = [p for problems in sets.values() for p in problems]
  assert len({p.prompt for p in together}) == len(together) == 54
  assert len({p.id for p in together}) == 54
  # In turn, so that a batch of any size holds as many of each.
  kinds = [p.data["dataset"] for p in sets["test"]]
  assert kinds == ["chain_sum", "gcd"] * 10


def test_a_seed_fixes_them():
  def prompts(seed):
    return [
      p.prompt for p in gym.make_problems(DATASETS, seed, 6, 6, 0)["train"]
    ]

  assert prompts(1) == prompts(1)
  assert not set(prompts(1)) & set(prompts(2))


@pytest.mark.parametrize("name", sorted([*gym.UNIQUE, "gcd", "syllogism"]))
def test_verdicts_beside_its_scorers(name):
  """What we call right it does, and its own answers are right."""
  source = reasoning_gym.create_dataset(name, seed=5, size=40)
  answers = [str(source[i]["answer"]) for i in range(40)]
  for i in range(40):
    entry = source[i]
    for answer in {answers[i], *answers[:5], answers[i] + "1", ""}:
      problem = Problem("1", "exact", "", answers[i], "en", {})
      verdict = verifiers.verify(
        problem, f"<think> x </think> <answer> {answer} </answer>"
      )
      theirs = source.score_answer(answer, entry)
      if verdict.correct:
        assert theirs == 1.0
      if answer == answers[i]:
        assert verdict.correct, answer


@pytest.mark.parametrize(
  ("body", "reason"),
  [
    ("12", "correct"),
    ("  12\n", "correct"),
    ("12.0", "wrong"),
    ("1 2", "wrong"),
    ("13", "wrong"),
    (" ", "no_answer"),
  ],
)
def test_exact(body, reason):
  problem = Problem("1", "exact", "", "12", "en", {})
  text = f"<think> x </think> <answer>{body}</answer>"
  verdict = verifiers.verify(problem, text)
  assert verdict.reason == reason
  assert verdict.correct == (reason == "correct") == (verdict.score == 1.0)


@pytest.mark.parametrize(
  ("datasets", "message"),
  [
    ({"composite": {}}, "composite is unknown; known:.*chain_sum"),
    ({"chainsum": {}}, "chainsum is unknown; known:.*chain_sum"),
    ({"chain_sum": {"digits": 3}}, "chain_sum:.*digits"),
    ({"chain_sum": {"min_terms": 9}}, "task.datasets.chain_sum: "),
    (
      {"products": dict(min_digits=1, max_digits=1)},
      "products: it has no more than [0-9]+ different questions",
    ),
  ],
)
def test_bad_input(datasets, message):
  with pytest.raises(UserError, match=message):
    gym.make_problems(datasets, 0, 300, 20, 0)


def test_solved_questions_go_before(tmp_path):
  write_tokenizer(tmp_path / "t")
  tokenizer = HFTokenizer(tmp_path / "t")
  task = gym.ReasoningGym(
    train=4, test=2, shots=1, template="chat", datasets=DATASETS
  )
  found = task.load(tmp_path, tokenizer)
  assert [len(found[k]) for k in ("train", "test")] == [4, 2]
  raw = gym.make_problems(DATASETS, 0, 4, 2, 1)
  shot, own = raw["shots"][1], raw["test"][1]
  assert own.data["dataset"] == shot.data["dataset"] == "gcd"
  answer = f"<think> The answer is {shot.answer}. </think>"
  assert found["test"][1].prompt == (
    f"<|im_start|>user\n{shot.prompt}<|im_end|>\n<|im_start|>assistant\n"
    f"{answer} <answer> {shot.answer} </answer><|im_end|>\n"
    f"<|im_start|>user\n{own.prompt}<|im_end|>\n<|im_start|>assistant\n"
  )
  # The second time they are read, not made.
  again = task.load(tmp_path, tokenizer)
  assert list(again["train"]) == list(found["train"])


@pytest.mark.parametrize(
  ("fields", "message"),
  [
    (dict(shots=1, template="r1_zero"), 'shots=1 needs template="chat"'),
    (dict(datasets={}), "datasets is empty"),
  ],
)
def test_keys_that_do_not_go_together(fields, message):
  with pytest.raises(UserError, match=message):
    gym.ReasoningGym(**(dict(train=2, test=2, datasets=DATASETS) | fields))


def test_what_is_only_looked_at_is_not_written(tmp_path):
  task = gym.ReasoningGym(train=2, test=2, datasets=DATASETS)
  found = task.load(tmp_path, None, write=False)
  assert found["train"][0].prompt.endswith("=")
  assert not list(tmp_path.iterdir())
  written = task.load(tmp_path, None)
  assert list(tmp_path.iterdir())
  assert list(written["train"]) == list(found["train"])


def test_a_data_set_that_makes_all_entries_beforehand_is_quick():
  begin = time.thread_time()
  found = gym.make_problems({"acre": {}, "word_ladder": {}}, 0, 4, 2, 0)
  assert time.thread_time() - begin < 20
  assert [p.kind for p in found["test"]] == ["exact", "logic"]


def test_answers_to_show_must_exist():
  with pytest.raises(UserError, match="rush_hour.*without answers.*shots=0"):
    gym.make_problems({"rush_hour": {}}, 0, 4, 2, 1)
