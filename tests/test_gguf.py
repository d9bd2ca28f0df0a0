"""GGUF files, written by the gguf library itself, become directories."""

import json
import math

import gguf as gguf_lib
import hf_files
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from r1jax import hf
from r1jax import model as model_lib
from r1jax.errors import UserError
from r1jax.hf import gguf
from r1jax.model import ModelConfig, RopeScaling
from r1jax.text.tokenizer import HFTokenizer

D, FF, HEADS, KV, DIM, LAYERS = 64, 96, 4, 2, 16, 2


def permuted(w, heads):
  """As llama.cpp's converter orders the rows of q and k (its `permute`)."""
  rows = w.shape[0] // heads
  return (
    w.reshape(heads, 2, rows // 2, w.shape[1]).swapaxes(1, 2).reshape(w.shape)
  )


def write(
  path, params, tokenizer, architecture="llama", pre="smollm", more=(),
  entries=(), heads=HEADS, blocks=LAYERS,
):  # fmt: skip
  """A GGUF file of our parameters, its norms in float32, the rest in Q8_0.

  `entries` are further entries of the metadata: (key, value).
  """
  vocab = sorted(tokenizer.get_vocab().items(), key=lambda x: x[1])
  tokens = [t for t, _ in vocab]
  writer = gguf_lib.GGUFWriter(path, architecture)
  writer.add_embedding_length(D)
  writer.add_block_count(blocks)
  writer.add_head_count(heads)
  writer.add_head_count_kv(KV)
  writer.add_feed_forward_length(FF)
  writer.add_context_length(128)
  writer.add_rope_freq_base(1e5)
  writer.add_layer_norm_rms_eps(1e-5)
  writer.add_tokenizer_model("gpt2")
  writer.add_tokenizer_pre(pre)
  writer.add_token_list(tokens)
  kinds = {"<|im_start|>": 3, "<|im_end|>": 3, "<think>": 4}
  writer.add_token_types([kinds.get(t, 1) for t in tokens])
  merges = json.loads(tokenizer.to_str())["model"]["merges"]
  writer.add_token_merges(
    [m if isinstance(m, str) else " ".join(m) for m in merges]
  )
  writer.add_bos_token_id(tokens.index("<|im_start|>"))
  writer.add_eos_token_id(tokens.index("<|im_end|>"))
  writer.add_chat_template(hf_files.CHAT)
  for key, value in entries:
    add_entry = {
      float: writer.add_float32, int: writer.add_uint32, bool: writer.add_bool,
      str: writer.add_string, list: writer.add_array,
    }[type(value)]  # fmt: skip
    add_entry(key, value)
  layers = params["layers"]

  def add(name, w):
    w = np.ascontiguousarray(w, np.float32)
    if w.ndim == 1:
      writer.add_tensor(name, w)
    else:
      kind = gguf_lib.GGMLQuantizationType.Q8_0
      q = gguf_lib.quants.quantize(w, kind)
      writer.add_tensor(name, q, raw_dtype=kind)

  add("token_embd.weight", params["embed"]["embedding"])
  add("output_norm.weight", params["norm"]["scale"])
  for i in range(LAYERS):
    for theirs, ours in (
      ("attn_q", "q"), ("attn_k", "k"), ("attn_v", "v"), ("attn_output", "o"),
      ("ffn_gate", "gate"), ("ffn_up", "up"), ("ffn_down", "down"),
    ):  # fmt: skip
      w = np.asarray(layers[ours]["kernel"][i]).T
      w = permuted(w, {"q": HEADS, "k": KV}[ours]) if ours in "qk" else w
      add(f"blk.{i}.{theirs}.weight", w)
    add(f"blk.{i}.attn_norm.weight", layers["attention_norm"]["scale"][i])
    add(f"blk.{i}.ffn_norm.weight", layers["mlp_norm"]["scale"][i])
  for name in more:
    add(name, np.zeros(3, np.float32))
  writer.write_header_to_file()
  writer.write_kv_data_to_file()
  writer.write_tensors_to_file()
  writer.close()


@pytest.fixture(scope="module")
def made(tmp_path_factory):
  root = tmp_path_factory.mktemp("gguf")
  tokenizer = hf_files.write_tokenizer(root / "tokenizer")
  config = ModelConfig(
    vocab_size=tokenizer.get_vocab_size(), d_model=D, n_layers=LAYERS,
    n_heads=HEADS, n_kv_heads=KV, head_dim=DIM, d_ff=FF, max_length=128,
    rope_theta=1e5, rms_eps=1e-5,
  )  # fmt: skip
  params = model_lib.init(config, jax.random.key(0))
  return root, config, params, tokenizer


def test_a_file_becomes_a_directory(made, tmp_path):
  _, config, params, tokenizer = made
  write(tmp_path / "m.gguf", params, tokenizer)
  gguf.convert(tmp_path / "m.gguf", tmp_path / "out")
  model, again = hf.load(tmp_path / "out")
  assert model.config == config
  for want, got in zip(jax.tree.leaves(params), jax.tree.leaves(again)):
    # Q8_0 keeps 8 bits of the largest of 32 neighbours.
    np.testing.assert_allclose(got, want, atol=float(abs(want).max()) / 127)
  tokens = jnp.arange(40)[None]
  want = model.apply({"params": params}, tokens)
  got = model.apply({"params": again}, tokens)
  assert float((got - want).std()) < 0.05 * float(want.std())


def test_its_tokenizer(made, tmp_path):
  _, _, params, tokenizer = made
  write(tmp_path / "m.gguf", params, tokenizer, pre="gpt-2")
  gguf.convert(tmp_path / "m.gguf", tmp_path / "out", "bfloat16")
  ours = HFTokenizer(tmp_path / "out")
  for line in hf_files.mixed_text(300):
    assert ours.encode(line) == tokenizer.encode(line).ids
    assert ours.decode(ours.encode(line)) == line
  ids = ours.encode("<|im_start|>a<think><|im_end|>")
  assert len(ids) == 4 and ids[-1] == ours.eos_id
  text = ours.template().render([{"role": "user", "content": "x"}])
  assert text.startswith("<|im_start|>user\nx")
  _, params = hf.load(tmp_path / "out")
  assert params["norm"]["scale"].dtype == jnp.bfloat16


def test_digits_stand_alone_in_smollm(made, tmp_path):
  _, _, params, tokenizer = made
  write(tmp_path / "m.gguf", params, tokenizer)
  gguf.convert(tmp_path / "m.gguf", tmp_path / "out")
  assert len(HFTokenizer(tmp_path / "out").encode("12345")) == 5


@pytest.mark.parametrize(
  "change, words",
  [
    (dict(architecture="falcon"), "falcon"),
    (dict(pre="unheard-of"), "unheard-of"),
    (dict(more=["blk.0.strange.weight"]), "blk.0.strange.weight"),
  ],
)
def test_what_is_not_known_is_named(made, tmp_path, change, words):
  _, _, params, tokenizer = made
  write(tmp_path / "m.gguf", params, tokenizer, **change)
  with pytest.raises(UserError, match=words):
    gguf.convert(tmp_path / "m.gguf", tmp_path / "out")
  assert [p.name for p in tmp_path.iterdir()] == ["m.gguf"]


def test_a_damaged_file(tmp_path):
  (tmp_path / "m.gguf").write_bytes(b"GGUFnothing")
  with pytest.raises(UserError, match="m.gguf"):
    gguf.convert(tmp_path / "m.gguf", tmp_path / "out")


LINEAR = RopeScaling("linear", 2.0)
SCALING = "llama.rope.scaling."


@pytest.mark.parametrize(
  "entries, want",
  [
    ([(SCALING + "type", "linear"), (SCALING + "factor", 2.0)], LINEAR),
    # llama.cpp reads a factor without a type as linear, and an older key too.
    ([(SCALING + "factor", 2.0)], LINEAR),
    ([("llama.rope.scale_linear", 2.0)], LINEAR),
    ([(SCALING + "type", "none"), (SCALING + "factor", 2.0)], None),
    ([(SCALING + "type", "linear"), (SCALING + "factor", 1.0)], None),
    ([("llama.rope.dimension_count", DIM)], None),
    (
      [
        (SCALING + "type", "yarn"), (SCALING + "factor", 4.0),
        (SCALING + "original_context_length", 32),
      ],
      RopeScaling("yarn", 4.0, 32),
    ),
    (
      [
        (SCALING + "type", "yarn"), (SCALING + "factor", 4.0),
        (SCALING + "original_context_length", 32),
        (SCALING + "yarn_beta_fast", 16.0), (SCALING + "attn_factor", 0.5),
      ],
      RopeScaling(
        "yarn", 4.0, 32, beta_fast=16.0,
        attention_factor=0.5 * (0.1 * math.log(4) + 1),
      ),
    ),
  ],
)  # fmt: skip
def test_the_scaling_of_rope(made, tmp_path, entries, want):
  _, _, params, tokenizer = made
  write(tmp_path / "m.gguf", params, tokenizer, entries=entries)
  gguf.convert(tmp_path / "m.gguf", tmp_path / "out")
  fields = hf.read_config(tmp_path / "out")
  assert fields["rope_scaling"] == want


@pytest.mark.parametrize(
  "change, words",
  [
    ([(SCALING + "type", "longrope"), (SCALING + "factor", 2.0)], "longrope"),
    ([(SCALING + "type", "linear"), (SCALING + "factor", -2.0)], "factor"),
    ([(SCALING + "factor", "two")], "factor"),
    ([(SCALING + "factor", 2.0), (SCALING + "alpha", 2.0)], "alpha"),
    ([("llama.rope.dimension_count", DIM // 2)], "dimension_count"),
    ([("llama.attention.key_length", "wide")], "head_dim"),
    ([("tokenizer.ggml.eot_token_id", 10**6)], "eot_token_id"),
  ],
)
def test_metadata_that_is_not_supported(made, tmp_path, change, words):
  _, _, params, tokenizer = made
  write(tmp_path / "m.gguf", params, tokenizer, entries=change)
  with pytest.raises(UserError, match=words):
    gguf.convert(tmp_path / "m.gguf", tmp_path / "out")
  assert [p.name for p in tmp_path.iterdir()] == ["m.gguf"]


def test_frequencies_as_a_tensor(made, tmp_path):
  """Llama 3.1's scaling, as some files have it: better refused than wrong."""
  _, _, params, tokenizer = made
  write(tmp_path / "m.gguf", params, tokenizer, more=["rope_freqs.weight"])
  with pytest.raises(UserError, match="rope_freqs.weight"):
    gguf.convert(tmp_path / "m.gguf", tmp_path / "out")


@pytest.mark.parametrize(
  "change, words",
  [
    (dict(entries=[("split.count", 3)]), "one of 3 parts"),
    (dict(blocks=LAYERS + 1), r"model.layers.2.* \(and 8 more\) is missing"),
    (dict(blocks=LAYERS - 1), "model.layers.1.* is left over"),
    (dict(blocks=10**6), "num_hidden_layers=1000000 must be"),
    (dict(blocks=9999), "asks for more than the weights"),
  ],
)
def test_a_file_that_is_not_the_whole_model(made, tmp_path, change, words):
  _, _, params, tokenizer = made
  write(tmp_path / "m.gguf", params, tokenizer, **change)
  with pytest.raises(UserError, match=words) as e:
    gguf.convert(tmp_path / "m.gguf", tmp_path / "out")
  assert ".tmp" not in str(e.value)
  assert [p.name for p in tmp_path.iterdir()] == ["m.gguf"]


def test_no_heads(made, tmp_path):
  _, _, params, tokenizer = made
  write(tmp_path / "m.gguf", params, tokenizer, heads=0)
  with pytest.raises(UserError, match="num_attention_heads=0 must be"):
    gguf.convert(tmp_path / "m.gguf", tmp_path / "out")


def test_ends_and_beginning(made, tmp_path):
  _, _, params, tokenizer = made
  turn = tokenizer.token_to_id("<think>")
  key = "tokenizer.ggml."
  entries = [(key + "eot_token_id", turn), (key + "add_bos_token", True)]
  write(tmp_path / "m.gguf", params, tokenizer, entries=entries)
  gguf.convert(tmp_path / "m.gguf", tmp_path / "out")
  ours = HFTokenizer(tmp_path / "out")
  assert ours.end_ids == (tokenizer.token_to_id("<|im_end|>"), turn)
  assert ours.encode("a")[0] == ours.bos_id
