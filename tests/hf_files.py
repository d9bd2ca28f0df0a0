"""A small tokenizer as Hugging Face stores one, and text to try it on."""

import json
import random

CHAT = (
  "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content']"
  " + '<|im_end|>' + '\n' }}{% endfor %}"
  "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
# First and last code point of scripts, and how words of them are parted.
SCRIPTS = (
  ("a", "z", " "), ("а", "я", " "), ("α", "ω", " "), ("一", "鿿", ""),
  ("ぁ", "ゖ", ""), ("가", "힣", " "), ("ا", "ي", " "), ("अ", "ह", " "),
  ("😀", "🙏", " "), ("!", "@", " "),
)  # fmt: skip


def mixed_text(lines):
  """Lines of words in ten scripts, with numbers and odd white space."""
  rng = random.Random(0)
  out = []
  for _ in range(lines):
    words = []
    for _ in range(rng.randint(1, 9)):
      first, last, gap = rng.choice(SCRIPTS)
      word = "".join(
        chr(rng.randint(ord(first), ord(last)))
        for _ in range(rng.randint(1, 8))
      )
      words.append(word + rng.choice((gap, gap, "  ", "\t", " 12.5 ", "'s ")))
    out.append("".join(words))
  return out


def write_tokenizer(directory, chat=True):
  """A byte-level BPE with two special tokens and a plain added one."""
  from tokenizers import (
    AddedToken,
    Tokenizer,
    decoders,
    models,
    pre_tokenizers,
    trainers,
  )

  tokenizer = Tokenizer(models.BPE())
  tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
  tokenizer.decoder = decoders.ByteLevel()
  tokenizer.train_from_iterator(
    mixed_text(300),
    trainers.BpeTrainer(
      vocab_size=600,
      special_tokens=["<|im_start|>", "<|im_end|>"],
      initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
      show_progress=False,
    ),
  )
  tokenizer.add_tokens([AddedToken("<think>", special=False, normalized=False)])
  directory.mkdir(parents=True, exist_ok=True)
  tokenizer.save(str(directory / "tokenizer.json"))
  config = {
    "tokenizer_class": "PreTrainedTokenizerFast",
    "bos_token": "<|im_start|>",
    "eos_token": {"__type": "AddedToken", "content": "<|im_end|>"},
  }
  if chat:
    config["chat_template"] = CHAT
  (directory / "tokenizer_config.json").write_text(json.dumps(config))
  return tokenizer
