"""Writes completions of prompts to a file, as a data set.

  python -m tools.sample --checkpoint=MODEL --prompts=my.jsonl --out=out.jsonl
  python -m tools.sample --checkpoint=MODEL --prompt="What is 3 + 4?"

MODEL is hf:DIR, run:DIR/PHASE, run:DIR/PHASE@STEP, a directory or a hub id. A
file of prompts has any format that the task `files` reads (docs/tasks.md). Its
column "prompt" holds texts or lists of messages; without it "messages" does,
and --fields prompt=NAME names another. Of any other file each line is a prompt.
Without --out completions are printed.

A line of the output has the fields prompt (the question, or messages up to it
where there are turns before it), completion, logprob (the sum of its tokens'
log-probabilities in nats, at the temperature of the draw and within top_p),
tokens, finish ("stop", or "length" where the limit cut it), sample, and the
columns that the prompt's row has besides. A phase of SFT can train on the file:
data="out.jsonl".
"""

from pathlib import Path

from r1jax import files, language_model
from r1jax.data import columns, formats
from r1jax.data.messages import Turns
from r1jax.data.rows import Faults
from r1jax.errors import UserError
from r1jax.run.logs import Progress
from tools import flags


def main(argv=None):
  """Samples from the model that the command line names."""
  args = parse(argv)
  flags.run(run, args)


def parse(argv):
  """The arguments of the command line."""
  parser = flags.parser("tools.sample", __doc__)
  add = parser.add_argument
  add("--checkpoint", required=True, help="the model to sample from")
  add("--prompts", help="file of prompts")
  add(
    "--fields",
    nargs="+",
    default=[],
    metavar="NAME=VALUE",
    help="prompt=COLUMN, or a dotted path inside a column",
  )
  add("--prompt", action="append", default=[], help="a prompt; repeatable")
  add("--samples", type=int, default=1, help="of each prompt; 1")
  add("--out", type=Path, help="FILE.jsonl, which must not exist")
  flags.add_sampling(parser)
  return parser.parse_args(argv)


def run(args):
  """Samples, and prints or writes the completions."""
  if args.out is not None and args.out.exists():
    raise UserError(f"{args.out} exists; name another file with --out")
  found = prompts(args)
  model = language_model.load(args.checkpoint, args.dtype)
  render = model.renderer(args.template)
  texts = [render(turns.question, turns.before) for _, turns in found]
  bar = None
  if args.out is not None:
    print("compiling ...", flush=True)
    bar = Progress("sample", len(texts) * args.samples)
  completions = model.sample(
    texts,
    max_new_tokens=args.max_new_tokens or 1024,
    samples=args.samples,
    temperature=args.temperature,
    top_p=args.top_p,
    seed=args.seed,
    stop=args.stop,
    template="none",  # they are rendered
    slots=args.slots,
    progress=bar and (lambda done: bar.update(done, {})),
  )
  if bar is not None:
    bar.close()
    files.write_rows(args.out, as_rows(found, completions, args.samples))
    print(f"{args.out}: {len(completions)} completions")
    return
  for completion in completions:
    print(completion.text)


def prompts(args):
  """The prompts, in the order of the command line.

  Returns:
    list of (row with the columns, `Turns`).
  """
  fields = flags.pairs("fields", args.fields)
  if other := sorted(set(fields) - {"prompt"}):
    raise UserError(
      f"--fields {other[0]}={fields[other[0]]}: only prompt=COLUMN is read,"
      " and all columns are kept; leave the others out"
    )
  texts = list(args.prompt)
  rows = []
  if args.prompts is not None and formats.is_data(args.prompts):
    rows = _of_data(args.prompts, columns.Columns(fields))
  elif args.prompts is not None:
    try:
      lines = Path(args.prompts).read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as e:
      raise UserError(f"{args.prompts}: cannot be read: {e}") from None
    texts += [line for line in lines if line.strip()]
  found = [({}, Turns(text)) for text in texts] + rows
  if not found:
    raise UserError("there are no prompts; name a file with --prompts")
  return found


def _of_data(path, read):
  """The prompts of a file with columns, as `prompts` returns them."""
  faults, found = Faults(path), []
  wrong: dict[str, list[str]] = {}
  for row in formats.read(path, faults, None, "test"):
    try:
      found.append((row.values, read.turns(row)))
    except UserError as e:
      wrong.setdefault(str(e), []).append(row.where)
  for what, places in wrong.items():
    more = f" (and {len(places) - 1} more rows)" if len(places) > 1 else ""
    faults.add(places[0], what + more)
  faults.check()
  return found


def as_rows(found, completions, samples):
  """Yields a row of the output for each completion.

  Args:
    found: N prompts, as `prompts` returns them.
    completions: N * samples `Completion`s.
    samples: of each prompt.
  """
  for i, c in enumerate(completions):
    row, turns = found[c.index]
    question = {"role": "user", "content": turns.question}
    yield row | {
      "prompt": [*turns.before, question] if turns.before else turns.question,
      "completion": c.text,
      "logprob": c.logprob,
      "tokens": c.tokens,
      "finish": c.finish,
      "sample": i % samples,
    }


if __name__ == "__main__":
  main()
