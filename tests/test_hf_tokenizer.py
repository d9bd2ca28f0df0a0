"""Tokenizers of Hugging Face directories."""

import json

import hf_files
import pytest

from r1jax import config
from r1jax.errors import UserError
from r1jax.text.tokenizer import HFTokenizer, Tokenizers, check_fits, load


@pytest.fixture
def directory(tmp_path):
  hf_files.write_tokenizer(tmp_path)
  return tmp_path


def test_ids_and_text_of_2000_lines(directory):
  import tokenizers

  theirs = tokenizers.Tokenizer.from_file(str(directory / "tokenizer.json"))
  ours = HFTokenizer(directory)
  text = hf_files.mixed_text(2000)
  assert len(set(text)) > 1990
  for line in text:
    ids = ours.encode(line)
    assert ids == theirs.encode(line, add_special_tokens=False).ids
    assert ours.decode(ids) == line == theirs.decode(ids)


def test_special_tokens(directory):
  ours = HFTokenizer(directory)
  ids = ours.encode("<|im_start|>a<think>b<|im_end|>")
  assert ids[0] == ours.bos_id and ids[-1] == ours.eos_id == ours.pad_id
  assert len(ids) == 5
  # The tag is text that the rewards look for; the ends of turns are not.
  assert ours.decode(ids) == "a<think>b"
  assert max(ids) < ours.vocab_size


def test_the_template(directory):
  text = (
    HFTokenizer(directory)
    .template()
    .render([{"role": "user", "content": "hi"}])
  )
  assert text == "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"
  (directory / "chat_template.jinja").write_text(
    "{{ bos_token }}{{ eos_token }}"
  )
  text = HFTokenizer(directory).template().render([])
  assert text == "<|im_start|><|im_end|>"


def edit(directory, **changes):
  path = directory / "tokenizer_config.json"
  path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_a_named_template(directory):
  named = [
    {"name": "tool", "template": "x"},
    {"name": "default", "template": "y"},
  ]
  edit(directory, chat_template=named)
  assert HFTokenizer(directory).template().render([]) == "y"


def test_no_template(tmp_path):
  hf_files.write_tokenizer(tmp_path, chat=False)
  assert not HFTokenizer(tmp_path).has_template
  with pytest.raises(UserError, match="no chat template"):
    HFTokenizer(tmp_path).template()
  hf_files.write_tokenizer(tmp_path)
  assert HFTokenizer(tmp_path).has_template


def test_what_is_wrong_is_named(directory):
  with pytest.raises(UserError, match="absent"):
    HFTokenizer(directory / "absent")
  edit(directory, eos_token="<nowhere>")
  with pytest.raises(UserError, match="eos_token"):
    HFTokenizer(directory)
  (directory / "tokenizer_config.json").write_text("{")
  with pytest.raises(UserError, match="tokenizer_config.json is damaged"):
    HFTokenizer(directory)
  (directory / "tokenizer.json").write_text("{}")
  with pytest.raises(UserError, match="tokenizer.json cannot be read"):
    HFTokenizer(directory)


def generation(directory, name="generation_config.json", **entries):
  (directory / name).write_text(json.dumps(entries))


def with_beginning(directory, single):
  """Adds a post-processor as Llama 3's: the beginning, then the text."""
  from tokenizers import Tokenizer, processors

  path = str(directory / "tokenizer.json")
  tokenizer = Tokenizer.from_file(path)
  start, end = "<|im_start|>", "<|im_end|>"
  tokenizer.post_processor = processors.TemplateProcessing(
    single=single,
    special_tokens=[(t, tokenizer.token_to_id(t)) for t in (start, end)],
  )
  tokenizer.save(path)
  return tokenizer


@pytest.mark.parametrize(
  "files, want",
  [
    # The tokenizer's own is 1.
    ({}, (1,)),
    ({"generation_config": dict(eos_token_id=[0, 1])}, (1, 0)),
    ({"generation_config": dict(eos_token_id=[5, 9, 5])}, (1, 5, 9)),
    ({"generation_config": dict(eos_token_id=7)}, (1, 7)),
    ({"generation_config": dict(eos_token_id=1)}, (1,)),
    ({"generation_config": dict(eos_token_id=[])}, (1,)),
    ({"generation_config": dict(eos_token_id=None)}, (1,)),
    ({"generation_config": dict(temperature=0.6)}, (1,)),
    ({"config": dict(eos_token_id=[3, 4])}, (1, 3, 4)),
    (
      {
        "config": dict(eos_token_id=[3, 4]),
        "generation_config": dict(eos_token_id=8),
      },
      (1, 8),
    ),
  ],
)
def test_every_end_token(directory, files, want):
  for name, entries in files.items():
    generation(directory, f"{name}.json", **entries)
  ours = HFTokenizer(directory)
  assert ours.end_ids == want and ours.eos_id == 1
  ids = ours.encode("ab")
  assert ours.decode([*ids, *want]) == "ab"


def test_the_end_of_the_generation_config_alone(directory):
  edit(directory, eos_token=None)
  generation(directory, eos_token_id=[4, 1])
  ours = HFTokenizer(directory)
  assert (ours.eos_id, ours.end_ids) == (4, (4, 1))


@pytest.mark.parametrize(
  "ids", ["</s>", [1, "x"], -1, [1, 601], 10**12, True, 1.0, {"a": 1}, [[1]]]
)
def test_ends_that_are_none(directory, ids):
  generation(directory, eos_token_id=ids)
  with pytest.raises(UserError, match="generation_config.json: eos_token_id"):
    HFTokenizer(directory)


@pytest.mark.parametrize("text", ["[]", "{", "3", "[" * 99999, ""])
@pytest.mark.parametrize(
  "name", ["generation_config.json", "tokenizer_config.json"]
)
def test_a_file_that_is_no_object(directory, name, text):
  (directory / name).write_text(text)
  with pytest.raises(UserError, match=name):
    HFTokenizer(directory)


def test_the_beginning_is_where_the_tokenizer_puts_it(directory):
  """As the library's own `encode`, with its special tokens."""
  assert HFTokenizer(directory).encode("ab")[0] != 0
  theirs = with_beginning(directory, "<|im_start|> $A")
  ours = HFTokenizer(directory)
  for line in ["ab", " ", "", *hf_files.mixed_text(100)]:
    assert ours.encode(line) == theirs.encode(line).ids
    rest = theirs.encode(line, add_special_tokens=False).ids
    assert ours.encode_rest(line) == rest


def test_the_beginning_is_not_doubled(directory):
  """A template that writes it, or opens with another special token."""
  theirs = with_beginning(directory, "<|im_start|> $A")
  ours = HFTokenizer(directory)
  text = ours.template().render([{"role": "user", "content": "hi"}])
  ids = theirs.encode(text, add_special_tokens=False).ids
  assert ours.encode(text) == ids and ids.count(0) == 2
  assert ours.encode("<|im_end|>a")[0] == 1


def test_an_end_that_the_tokenizer_puts_is_not_the_beginning(directory):
  with_beginning(directory, "<|im_start|> $A <|im_end|>")
  ids = HFTokenizer(directory).encode("ab")
  assert ids[0] == 0 and 1 not in ids
  with_beginning(directory, "$A <|im_end|>")
  assert 1 not in HFTokenizer(directory).encode("ab")


@pytest.mark.parametrize("single", ["$A", "<|im_start|> $A"])
@pytest.mark.parametrize("asked", [True, False])
def test_the_older_key_has_no_say(directory, single, asked):
  """As in transformers 5."""
  with_beginning(directory, single)
  edit(directory, add_bos_token=asked)
  begins = HFTokenizer(directory).encode("ab")[0] == 0
  assert begins == single.startswith("<")


def test_an_example_begins_once_and_ends_once(directory):
  from r1jax.phases import sft
  from r1jax.types import Example

  with_beginning(directory, "<|im_start|> $A")
  generation(directory, eos_token_id=[1, 9])
  ours = HFTokenizer(directory)
  for completion in ("cd", "cd<|im_end|>", ""):
    tokens, trained = sft.encode(ours, Example("ab", completion))
    tokens = tokens.tolist()
    assert tokens.count(0) == 1 and tokens[0] == 0
    assert tokens.count(1) == 1 and tokens[-1] == 1
    begin = len(ours.encode("ab"))
    assert trained.tolist() == [i >= begin for i in range(len(tokens))]
  tokens, _ = sft.encode(ours, Example("ab", ours._tokenizer.decode([40, 9])))
  assert tokens[-1] == 9


def test_special_tokens_in_a_file_of_their_own(directory):
  (directory / "special_tokens_map.json").write_text(
    json.dumps({"eos_token": "<|im_start|>", "bos_token": "<|im_end|>"})
  )
  # Where both name it, tokenizer_config.json has the last word.
  assert HFTokenizer(directory).end_ids == (1,)
  (directory / "tokenizer_config.json").write_text("{}")
  ours = HFTokenizer(directory)
  assert ours.end_ids == (0,) and ours.bos_id == 1
  (directory / "chat_template.json").write_text(
    json.dumps({"chat_template": "{{ eos_token }}"})
  )
  assert HFTokenizer(directory).template().render([]) == "<|im_start|>"


def test_a_sentencepiece_model_instead(directory):
  (directory / "tokenizer.json").unlink()
  with pytest.raises(UserError, match="there is no .*tokenizer.json$"):
    HFTokenizer(directory)
  (directory / "tokenizer.model").write_text("")
  with pytest.raises(
    UserError, match='only tokenizer.model; .*"sentencepiece"'
  ):
    HFTokenizer(directory)


def test_half_a_surrogate_pair(directory):
  ours = HFTokenizer(directory)
  assert ours.decode(ours.encode("a\ud83d b")) == "a\ufffd b"
  assert ours.decode(ours.encode("a\ud83d\ude00 b")) == "a\U0001f600 b"


def test_texts_are_neither_cut_nor_filled(directory):
  path = directory / "tokenizer.json"
  plain = HFTokenizer(directory).encode("a b c d")
  tokenizer = hf_files.write_tokenizer(directory)
  tokenizer.enable_truncation(2)
  tokenizer.enable_padding(length=50)
  tokenizer.save(str(path))
  assert HFTokenizer(directory).encode("a b c d") == plain


def test_the_largest_id_counts(directory):
  """Ids may have gaps, so that there are fewer tokens than the largest id."""
  path = directory / "tokenizer.json"
  raw = json.loads(path.read_text())
  raw["model"]["vocab"]["unusual"] = 900
  path.write_text(json.dumps(raw))
  ours = HFTokenizer(directory)
  assert ours.vocab_size == 901
  check_fits(ours, 901, "")
  with pytest.raises(UserError, match="vocab_size=900 must be at least .* 901"):
    check_fits(ours, 900, "")


def test_arguments_of_the_template(directory):
  edit(
    directory,
    chat_template="{% if enable_thinking is false %}no{% else %}yes{% endif %}",
  )
  text = {}
  for value in (None, True, False):
    args = {} if value is None else dict(enable_thinking=value)
    keys = config.convert(
      Tokenizers,
      dict(kind="hf", path=str(directory), template_args=args),
      "tokenizer",
    )
    text[value] = load(keys).template().render([])
    assert load(keys) is load(keys)
  assert text == {None: "yes", True: "yes", False: "no"}


@pytest.mark.parametrize(
  "args, words",
  [
    (dict(messages=[]), "tokenizer.template_args.messages"),
    (dict(add_generation_prompt=True), "add_generation_prompt"),
    (dict(x=object()), "plain JSON"),
    (3, "template_args"),
  ],
)
def test_wrong_arguments(args, words):
  keys = dict(kind="hf", path="x", template_args=args)
  with pytest.raises(UserError, match=words):
    config.convert(Tokenizers, keys, "tokenizer")


def test_a_chat_with_a_tokenizer_that_is_too_large(directory):
  """The tools say so before they load the weights."""
  from r1jax import hf, language_model
  from r1jax.model import ModelConfig

  small = ModelConfig(
    vocab_size=500, d_model=16, n_layers=1, n_heads=2, n_kv_heads=2, head_dim=8,
    d_ff=16, max_length=64,
  )  # fmt: skip
  (directory / "config.json").write_text(json.dumps(hf.to_hf(small)))
  with pytest.raises(UserError, match="vocab_size=500 must be at least"):
    language_model.load(directory)
