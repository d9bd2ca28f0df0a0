"""Exports a checkpoint of ours for `transformers`, vLLM and others.

  python -m tools.hf_export --checkpoint=RUN/PHASE --out=DIR

The tokenizer, the generation config and the chat template are copied from the
model that the run or the import started from.
"""

import argparse
from pathlib import Path

from r1jax import cli, hf
from r1jax.errors import UserError
from r1jax.run import checkpoint, layout
from tools import models


def main(argv=None):
  """Exports the checkpoint that the command line names."""
  parser = argparse.ArgumentParser(
    prog="tools.hf_export",
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  parser.add_argument(
    "--checkpoint",
    required=True,
    type=Path,
    help="a phase of a run, or what tools.hf_import made",
  )
  parser.add_argument(
    "--out", required=True, type=Path, help="the directory to make"
  )
  args = parser.parse_args(argv)
  with cli.one_line_errors():
    if not models.is_ours(args.checkpoint):
      raise UserError(
        f"{args.checkpoint} has no params/; name a phase of a run (RUN/PHASE)"
        " or what tools.hf_import made"
      )
    params = checkpoint.load(args.checkpoint / layout.PARAMS)
    source = models.source(args.checkpoint)
    hf.save(args.out, models.config(args.checkpoint), params, source=source)
    print(f"{args.out}: written")
    if source is None:
      print("no tokenizer written: the run's is not a Hugging Face tokenizer")


if __name__ == "__main__":
  main()
