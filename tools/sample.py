"""Writes completions of prompts to a file, as a data set.

  python -m tools.sample --checkpoint=MODEL --prompts=my.jsonl --out=out.jsonl
  python -m tools.sample --checkpoint=MODEL --prompt="What is 3 + 4?"

MODEL is hf:DIR, run:DIR/PHASE, run:DIR/PHASE@STEP, a directory or a hub id. A
file of prompts has a column "prompt" in any format that the task `files` reads
(docs/tasks.md); of any other file each line is a prompt. Without --out
completions are printed.

A line of the output has the fields prompt, completion, logprob (the sum of
its tokens' log-probabilities in nats, at the temperature of the draw and
within top_p), tokens, finish ("stop", or "length" where the limit
cut it), sample, and the columns that the prompt's row has besides. A phase of
SFT can train on the file: data="out.jsonl".
"""

import argparse
from pathlib import Path

from r1jax import cli, files, language_model
from r1jax.data import formats
from r1jax.data.rows import Faults
from r1jax.errors import UserError
from r1jax.run.logs import Progress
from tools.evaluate import add_sampling


def main(argv=None):
  """Samples from the model that the command line names."""
  args = parse(argv)
  with cli.one_line_errors():
    cli.compilation_cache()
    run(args)


def parse(argv):
  """The arguments of the command line."""
  parser = argparse.ArgumentParser(
    prog="tools.sample",
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  add = parser.add_argument
  add("--checkpoint", required=True, help="the model to sample from")
  add("--prompts", help="file of prompts")
  add("--field", default="prompt", help="column with the prompts; prompt")
  add("--prompt", action="append", default=[], help="a prompt; repeatable")
  add("--samples", type=int, default=1, help="of each prompt; 1")
  add("--out", type=Path, help="FILE.jsonl, which must not exist")
  add_sampling(parser)
  return parser.parse_args(argv)


def run(args):
  """Samples, and prints or writes the completions."""
  if args.out is not None and args.out.exists():
    raise UserError(f"{args.out} exists; name another file with --out")
  rows = prompts(args)
  texts = [row[args.field] for row in rows]
  model = language_model.load(args.checkpoint, args.dtype)
  bar = None
  if args.out is not None:
    print("compiling ...", flush=True)
    bar = Progress("sample", len(texts) * args.samples)
  found = model.sample(
    texts,
    max_new_tokens=args.max_new_tokens or 1024,
    samples=args.samples,
    temperature=args.temperature,
    top_p=args.top_p,
    seed=args.seed,
    stop=args.stop,
    template=args.template,
    slots=args.slots,
    progress=bar and (lambda done: bar.update(done, {})),
  )
  if bar is not None:
    bar.close()
    files.write_rows(args.out, as_rows(rows, found, args.samples))
    print(f"{args.out}: {len(found)} completions")
    return
  for completion in found:
    print(completion.text)


def prompts(args):
  """The rows with the prompts, in the order of the command line."""
  rows = [{args.field: text} for text in args.prompt]
  if args.prompts is not None and formats.is_data(args.prompts):
    rows += list(_of_data(args.prompts, args.field))
  elif args.prompts is not None:
    try:
      lines = Path(args.prompts).read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as e:
      raise UserError(f"{args.prompts}: cannot be read: {e}") from None
    rows += [{args.field: line} for line in lines if line.strip()]
  if not rows:
    raise UserError("there are no prompts; name a file with --prompts")
  return rows


def _of_data(path, field):
  """Yields the rows of a file with columns."""
  faults = Faults()
  for row in formats.read(path, faults, None, "test"):
    if isinstance(row.values.get(field), str):
      yield row.values
    else:
      faults.add(
        row.where,
        f'there is no text in the column "{field}"; name another with --field'
        f" ({', '.join(row.columns)})",
      )
  faults.check()


def as_rows(rows, completions, samples):
  """Yields a row of the output for each completion.

  Args:
    rows: N rows with the prompts.
    completions: N * samples `Completion`s.
    samples: of each prompt.
  """
  for i, c in enumerate(completions):
    yield rows[c.index] | {
      "prompt": c.prompt,
      "completion": c.text,
      "logprob": c.logprob,
      "tokens": c.tokens,
      "finish": c.finish,
      "sample": i % samples,
    }


if __name__ == "__main__":
  main()
