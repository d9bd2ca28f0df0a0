"""Hugging Face -> a checkpoint of ours.

  python -m tools.hf_import --model=DIR_OR_HUB_ID --out=DIR

A config can also name the directory itself (`c.model = "hf:DIR"`); a
checkpoint of ours loads faster, and onto any mesh.
"""

import argparse
import shutil
from pathlib import Path

import jax

from r1jax import cli, hf, meshes
from r1jax.errors import UserError
from r1jax.hf import hub
from r1jax.model import param_count
from tools import models


def main(argv=None):
  """Reads, checks and writes."""
  parser = argparse.ArgumentParser(
    prog="tools.hf_import",
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  parser.add_argument("--model", required=True, help="a directory or a hub id")
  parser.add_argument(
    "--out", required=True, type=Path, help="the directory to make"
  )
  parser.add_argument("--dtype", help="of the parameters; default as stored")
  args = parser.parse_args(argv)
  with cli.one_line_errors():
    if args.out.exists() and any(args.out.iterdir()):
      raise UserError(f"{args.out} is not empty; name another directory")
    directory = hub.directory(args.model)
    mesh = meshes.make_mesh(fsdp=-1)
    model, params = hf.load(directory, dtype=args.dtype, mesh=mesh)
    models.save(args.out, model, params)
    if jax.process_index() == 0:
      for name in ("config.json", *hf.COMPANIONS):
        if (directory / name).exists():
          shutil.copyfile(directory / name, args.out / name)
      print(f"{args.out}: {param_count(params):,} parameters")


if __name__ == "__main__":
  main()
