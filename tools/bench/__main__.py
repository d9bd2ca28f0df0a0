"""How fast the machine is used: one JSON line a measurement.

python -m tools.bench sampler --model=hf:DIR --workload=fixed
python -m tools.bench learner --model=hf:DIR --workload=heavy_tail
python -m tools.bench iteration --model=hf:DIR --dtype=bfloat16
python -m tools.bench verifiers --workload=code
"""

import argparse
import json

from r1jax import cli
from tools.bench import iteration, learner, machine, sampler, verifiers

BENCHMARKS = {
  "sampler": sampler,
  "learner": learner,
  "iteration": iteration,
  "verifiers": verifiers,
}


def main(argv=None):
  """Prints a JSON line."""
  parser = argparse.ArgumentParser(
    prog="tools.bench",
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  add = parser.add_subparsers(required=True, metavar="WHAT", dest="what")
  for name, module in BENCHMARKS.items():
    what = add.add_parser(
      name, help=module.__doc__.splitlines()[0], description=module.__doc__,
      formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    first, *_ = module.WORKLOADS
    what.add_argument(
      "--workload", choices=module.WORKLOADS, default=first,
      help=f"see above; {first}",
    )  # fmt: skip
    what.add_argument(
      "--repeats", type=machine.count, default=3,
      help="runs after the first, which compiles; 3",
    )  # fmt: skip
    module.arguments(what)
  args = parser.parse_args(argv)
  with cli.one_line_errors():
    cli.compilation_cache()
    print(json.dumps(BENCHMARKS[args.what].measure(args)), flush=True)


if __name__ == "__main__":
  main()
