"""Exports a checkpoint of ours for `transformers`, vLLM and others.

  python -m tools.hf_export --checkpoint=run:DIR/PHASE --out=DIR

The tokenizer, the generation config and the chat template are copied from the
model that the run or the import started from.
"""

from pathlib import Path

from r1jax import cli, files, hf, origin
from r1jax.errors import UserError
from r1jax.run.stored import Stored
from tools import flags


def main(argv=None):
  """Exports the checkpoint that the command line names."""
  parser = flags.parser("tools.hf_export", __doc__)
  parser.add_argument(
    "--checkpoint",
    required=True,
    help="run:DIR/PHASE, run:DIR/PHASE@STEP, or what tools.hf_import made",
  )
  parser.add_argument(
    "--out", required=True, type=Path, help="the directory to make"
  )
  args = parser.parse_args(argv)
  with cli.one_line_errors():
    found = origin.find(args.checkpoint)
    if not isinstance(found, Stored):
      raise UserError(
        f"{args.checkpoint} is no checkpoint of a run; name a phase"
        " (run:DIR/PHASE) or what tools.hf_import made"
      )
    files.check_empty(args.out)
    source = found.companions()
    hf.save(args.out, found.model(), found.read(), source=source)
    print(f"{args.out}: written")
    if source is None:
      print("no tokenizer written: the run's is not a Hugging Face tokenizer")


if __name__ == "__main__":
  main()
