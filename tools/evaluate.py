"""Measures a model on problems of your own.

  python -m tools.evaluate --checkpoint=MODEL --data=my.jsonl

MODEL is hf:DIR, run:DIR/PHASE, run:DIR/PHASE@STEP, a directory or a hub id.
The file holds problems as the task `files` reads them, and the flags --fields
to --kinds are that task's keys (docs/tasks.md).

Each score is a mean over problems, with its 95 % interval:

  pass@k   the chance that one of k samples is right (Chen et al. 2021, eq. 1)
  cons@k   the chance that the most frequent answer of k samples is right

Two files are written: FILE.jsonl has a line for each problem with all its
completions, FILE.json has the table. The intervals are Wilson's for as many
independent problems as would have the error that is measured over problems
(r1jax/scores.py).
"""

import collections
import collections.abc
import json
import re
import typing
from pathlib import Path

from experiments import overrides
from r1jax import config as config_lib
from r1jax import describe, files, language_model, meshes, origin, scores
from r1jax.data.problem_files import Files
from r1jax.errors import UserError
from r1jax.phases import evaluate
from r1jax.phases.actor import Actor
from r1jax.phases.preview import Preview
from r1jax.run import report
from r1jax.run.logs import Progress
from r1jax.text import tokenizer as tokenizer_lib
from tools import flags

# Keys of the task that other flags set.
_OWN = ("kind", "train", "test", "template")


def main(argv=None):
  """Measures the model that the command line names."""
  args = parse(argv)
  flags.run(measure, args)


def parse(argv):
  """The arguments of the command line."""
  parser = flags.parser("tools.evaluate", __doc__)
  add = parser.add_argument
  add("--checkpoint", required=True, help="the model to measure")
  add("--data", required=True, help="file of problems")
  _add_task(parser)
  add("--problems", type=int, help="only so many, from the first")
  add("--samples", type=int, help="of each problem; 8, greedy 1")
  add("--k", help="which k, such as 1,4,8; default 1 and all samples")
  add("--out", type=Path, help="FILE.jsonl; named by model and data if absent")
  flags.add_sampling(parser)
  return parser.parse_args(argv)


def _add_task(parser):
  """Adds the keys of the task `files`, with their comments as help."""
  hints = config_lib.keys(Files)
  for key in describe.keys(Files):
    if key.name in _OWN:
      continue
    none = (None, "None", "''", "{}")
    default = "" if key.default in none else f" ({key.default})"
    pairs = typing.get_origin(hints[key.name]) is collections.abc.Mapping
    parser.add_argument(
      f"--{key.name}",
      nargs="+" if pairs else None,
      metavar="NAME=VALUE" if pairs else None,
      help=key.comment.replace("%", "%%") + default,
    )


def measure(args):
  """Samples, judges, prints the table and writes both files."""
  found = origin.find(args.checkpoint)
  samples = args.samples or (8 if args.temperature else 1)
  ks = _ks(args.k, samples)
  out = args.out or _named(args, samples)
  for path in (out, out.with_suffix(".json")):
    if path.exists():
      raise UserError(f"{path} exists; name another file with --out")
  tokenizer = found.tokenizer()
  task = _task(args, tokenizer_lib.load(tokenizer))
  mesh = meshes.make_mesh(data=-1)
  model, params = found.load(mesh, args.dtype)
  config = _config(args, model, tokenizer, task, samples)
  config.check(Preview(Path()))
  setup = config.setup()
  problems = task.load(Path(), setup.tokenizer)["test"][: config.problems]
  actor = Actor(config, setup, samples, {"accuracy": 1.0})
  actor.load(params)
  print("the first completions take a while: programs are compiled", flush=True)
  bar = Progress("evaluate", len(problems) * samples)
  scored = actor.rollout(problems, progress=lambda done: bar.update(done, {}))
  bar.close()
  correct, answers = evaluate.votes(problems, scored)
  rows = table(correct, answers, ks)
  files.write_rows(out, results(problems, scored, correct, answers))
  settings = {k: str(v) if isinstance(v, Path) else v for k, v in
              vars(args).items()}  # fmt: skip
  files.write_atomically(
    out.with_suffix(".json"),
    json.dumps(
      {"scores": rows, "problems": len(problems), "samples": samples,
       "max_new_tokens": config.sampler.max_new_tokens, "flags": settings},
      indent=1,
    ) + "\n",
  )  # fmt: skip
  print(report.table(rows))
  counts = collections.Counter(v.reason for v in scored.verdicts)
  shares = [f"{r} {n / counts.total():.1%}" for r, n in counts.most_common()]
  print(f"verdicts: {', '.join(shares)}")
  cut = 1 - float(scored.rollout.ended.mean())
  print(
    f"{len(problems)} problems, {samples} samples each,"
    f" {scored.rollout.lengths.mean():.1f} tokens on average,"
    f" {cut:.1%} cut at {config.sampler.max_new_tokens}; completions: {out}"
  )
  return rows


def table(correct, answers, ks):
  """The scores with their intervals.

  Args:
    correct: N lists of n bools.
    answers: N lists of n answers or None.
    ks: which k, each at most n.

  Returns:
    list of dicts: score, value, low, high.
  """
  n = len(correct[0])
  columns = [
    (f"pass@{k}", [scores.pass_at_k(sum(c), n, k) for c in correct], k)
    for k in ks
  ]
  columns += [
    (
      f"cons@{k}",
      [scores.cons_at_k(a, c, k) for a, c in zip(answers, correct)],
      k,
    )
    for k in ks
    if k > 1
  ]
  rows = []
  for name, values, k in columns:
    low, high = scores.interval(values, n // k)
    value = sum(values) / len(values)
    rows.append({"score": name, "value": value, "low": low, "high": high})
  return rows


def results(problems, scored, correct, answers):
  """Yields a row for each problem, with all its completions.

  Args:
    problems: N of them.
    scored: `Scored`, N n samples.
    correct, answers: as for `table`.
  """
  n, rollout = scored.group, scored.rollout
  for i, problem in enumerate(problems):
    yield {
      "id": problem.id,
      "kind": problem.kind,
      "prompt": problem.prompt,
      "answer": problem.answer,
      "right": sum(correct[i]),
      "completions": [
        {
          "text": scored.texts[j],
          "answer": answers[i][j - i * n],
          "correct": correct[i][j - i * n],
          "score": scored.verdicts[j].score,
          "reason": scored.verdicts[j].reason,
          **language_model.measures(rollout, j),
        }
        for j in range(i * n, (i + 1) * n)
      ],
    }


def _config(args, model, tokenizer, task, samples):
  """The `Evaluate` of the command line."""
  problems = args.problems or len(
    task.load(Path(), tokenizer_lib.load(tokenizer))["test"]
  )
  keys = dict(
    phase="evaluate", label=args.checkpoint, problems=max(1, problems),
    samples=samples, temperature=args.temperature, tokenizer=tokenizer,
    task=task, mesh=dict(data=-1),
  )  # fmt: skip
  given = dict(name="evaluate", seed=args.seed, model=model, weights=None)

  def build(new):
    sampler = dict(
      slots=args.slots, max_new_tokens=new, top_p=args.top_p,
      stop=tuple(args.stop),
    )  # fmt: skip
    keys["sampler"] = sampler
    return config_lib.build(evaluate.Evaluate, keys, given=given)

  if args.max_new_tokens is not None:
    return build(args.max_new_tokens)
  # What the longest prompt leaves.
  shortest = build(1)
  longest, _ = Preview(Path()).longest_prompt(shortest, "test", problems)
  return build(min(1024, max(1, model.max_length - longest)))


def _task(args, tokenizer):
  """The task of the file."""
  keys = dict(
    kind="files",
    test=args.data,
    template=language_model.resolved(args.template, tokenizer),
  )
  for name, hint in config_lib.keys(Files).items():
    text = None if name in _OWN else getattr(args, name)
    if isinstance(text, list):
      values: dict[str, typing.Any] = dict(flags.pairs(name, text))
      if typing.get_args(hint)[1] is typing.Any:
        values = {name: _json(value) for name, value in values.items()}
      keys[name] = values
    elif text is not None:
      try:
        keys[name] = overrides.parse(hint, text)
      except (ValueError, KeyError):
        raise UserError(
          f"--{name}={text} must be {config_lib.words(hint)}"
        ) from None
  return config_lib.convert(Files, keys, "task")


def _json(text):
  """The value of JSON, or the text where it is none."""
  try:
    return json.loads(text)
  except ValueError:
    return text


def _ks(text, samples):
  """The k of the scores, ascending."""
  try:
    found = {int(k) for k in text.split(",")} if text else {1, samples}
  except ValueError:
    found = {0}
  if min(found) < 1 or max(found) > samples:
    raise UserError(
      f"--k={text} must list whole numbers from 1 to the number of samples,"
      f" {samples}"
    )
  return sorted(found)


def _named(args, samples):
  """The file of the results: from data, model and draws, in this directory."""
  model = re.sub(r"\W+", "-", args.checkpoint).strip("-")
  draws = f"{samples}x{args.temperature}" if args.temperature else "greedy"
  return Path(f"{Path(args.data).stem}.{model}.{draws}.jsonl")


if __name__ == "__main__":
  main()
