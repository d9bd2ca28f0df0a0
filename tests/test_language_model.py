"""A few lines of Python from prompts to completions."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_models

import r1jax
from r1jax import language_model
from r1jax.errors import UserError
from r1jax.model import Decoder


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
  return tiny_models.hf_directory(tmp_path_factory.mktemp("hf") / "model")


@pytest.fixture(scope="module")
def model(directory):
  return r1jax.load(f"hf:{directory}")


def test_importing_it_alone_starts_nothing():
  code = "import sys, r1jax; print('jax' in sys.modules, r1jax.__version__)"
  done = subprocess.run(
    [sys.executable, "-c", code], capture_output=True, text=True, check=True
  )
  assert done.stdout == f"False {r1jax.__version__}\n"


def greedy(model, prompt, count):
  """Tokens and the sum of log-probabilities, without the sampler's cache."""
  apply = jax.jit(Decoder(model.config).apply)
  tokens, total = list(prompt), 0.0
  for _ in range(count):
    logits = apply({"params": model.params}, jnp.asarray([tokens]))[0, -1]
    token = int(logits.argmax())
    total += float(jax.nn.log_softmax(logits)[token])
    tokens.append(token)
    if token == model.tokenizer.eos_id:
      break
  return tokens[len(prompt) :], total


def test_greedy_completions_are_the_likeliest_tokens(model):
  prompts = ["a b c", "the 12.5", "对 a"]
  found = model.sample(prompts, max_new_tokens=6, temperature=0)
  for prompt, completion in zip(prompts, found):
    rendered = f"<|im_start|>user\n{prompt}<|im_end|>\n<|im_start|>assistant\n"
    ids = model.tokenizer.encode(rendered)
    tokens, logprob = greedy(model, ids, 6)
    assert completion.prompt == prompt
    assert completion.text == model.tokenizer.decode(tokens)
    assert completion.tokens == len(tokens)
    assert completion.logprob == pytest.approx(logprob, abs=1e-4)


def test_samples_of_a_prompt_stand_side_by_side(model):
  found = model.sample(
    ["a", "b"], max_new_tokens=5, samples=3, template="none", temperature=1.0
  )
  assert [c.index for c in found] == [0, 0, 0, 1, 1, 1]
  assert len({c.text for c in found}) > 3
  again = model.sample(
    ["a", "b"], max_new_tokens=5, samples=3, template="none", temperature=1.0
  )
  assert again == found
  other = model.sample(
    ["a", "b"], max_new_tokens=5, samples=3, template="none", temperature=1.0,
    seed=1,
  )  # fmt: skip
  assert other != found


def test_a_stop_string_ends_a_completion(model):
  keys = dict(max_new_tokens=12, temperature=0, template="none")
  (whole,) = model.sample(["a b c"], **keys)
  stop = whole.text[4:6]
  (found,) = model.sample(["a b c"], stop=[stop], **keys)
  assert found.text == whole.text[: whole.text.index(stop)]
  assert found.finish == "stop" and found.tokens < whole.tokens


def test_the_limit_is_the_room_that_a_prompt_leaves(model):
  size = model.config.max_length
  long = "x1" * 200
  ids = model.tokenizer.encode(long)
  assert len(ids) > size
  text = model.tokenizer.decode(ids[: size - 3])
  left = size - len(model.tokenizer.encode(text))
  assert left < 10
  found = model.sample([text, "a"], max_new_tokens=10, template="none")
  assert found[0].tokens <= left and found[1].tokens <= 10
  for completion in found:
    limit = left if completion.index == 0 else 10
    assert completion.finish == "stop" or completion.tokens == limit
  with pytest.raises(UserError, match="prompt 1 has .* takes 1 to 95"):
    model.sample(["a", long], template="none")


def test_progress_counts_completions(model):
  seen = []
  model.sample(["a", "b"], max_new_tokens=3, samples=2, progress=seen.append)
  assert seen[-1] == 4 and seen == sorted(seen)


def test_a_model_without_a_chat_template(tmp_path):
  plain = tiny_models.hf_directory(tmp_path / "plain", chat=False)
  model = r1jax.load(str(plain))
  (found,) = model.sample(["a b"], max_new_tokens=4, temperature=0)
  tokens, _ = greedy(model, model.tokenizer.encode("a b"), 4)
  assert found.text == model.tokenizer.decode(tokens)
  with pytest.raises(UserError, match="no chat template"):
    model.sample(["a"], template="chat")


@pytest.mark.parametrize(
  "prompts, keys, message",
  [
    ("text", {}, "prompts is one text"),
    (["a"], dict(max_new_tokens=0), "max_new_tokens=0 must be at least 1"),
    (["a"], dict(samples=0), "samples=0 must be at least 1"),
    (["a"], dict(temperature=-1), "temperature=-1.0 must be"),
    (["a"], dict(temperature=float("nan")), "temperature=nan must be a finite"),
    (["a"], dict(temprature=1.0), 'temprature is no key; did you mean "tempe'),
    (["a"], dict(samples=1.5), "samples=1.5 must be a whole number"),
    (["a"], dict(stop=[""]), "stop=.* must be"),
    (["a"], dict(top_p=0.0), "top_p=0.0 must be"),
    (["a"], dict(template="chatt"), 'template="chatt" is unknown'),
    ([""], dict(template="none"), "prompt 0 has 0 tokens"),
  ],
)
def test_wrong_arguments(model, prompts, keys, message):
  with pytest.raises(UserError, match=message):
    model.sample(prompts, **keys)


def test_no_prompts(model):
  assert model.sample([]) == []


def test_half_precision(directory):
  model = language_model.load(f"hf:{directory}", "bfloat16")
  assert model.config.compute_dtype == "bfloat16"
  kinds = {np.dtype(x.dtype).name for x in jax.tree.leaves(model.params)}
  assert kinds == {"bfloat16"}
