"""Imports a model of Hugging Face as a checkpoint of ours.

  python -m tools.hf_import --model=hf:DIR --out=DIR

A config names the import as "run:DIR". It can also name the Hugging Face
directory itself, "hf:DIR"; a checkpoint of ours loads faster.
"""

import shutil
from pathlib import Path

from r1jax import cli, files, hf, hosts, meshes, origin
from r1jax.hf import hub
from r1jax.model import param_count
from r1jax.run import checkpoint, layout, stored
from tools import flags


def main(argv=None):
  """Imports the model that the command line names."""
  parser = flags.parser("tools.hf_import", __doc__)
  parser.add_argument(
    "--model", required=True, help="hf:DIR, a directory or a hub id"
  )
  parser.add_argument(
    "--out", required=True, type=Path, help="the directory to make"
  )
  parser.add_argument("--dtype", help="of the parameters; default as stored")
  args = parser.parse_args(argv)
  with cli.one_line_errors():
    files.check_empty(args.out)
    directory = hub.directory(args.model.removeprefix(origin.HF))
    mesh = meshes.make_mesh(fsdp=-1)
    model, params = hf.load(directory, dtype=args.dtype, mesh=mesh)
    stored.describe(args.out, model.config, None)
    checkpoint.save(args.out / layout.PARAMS, params)
    if hosts.is_first():
      shutil.copyfile(directory / "config.json", args.out / "config.json")
      hf.copy_companions(directory, args.out)
      print(f"{args.out}: {param_count(params):,} parameters")


if __name__ == "__main__":
  main()
