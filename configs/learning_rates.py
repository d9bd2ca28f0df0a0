"""A sweep: which learning rate suits RL in the quickstart?

  python -m experiments.sweep --config=configs/learning_rates.py --workdir=DIR

Each point runs the base model and R1-Zero of the quickstart and evaluates
both, some five minutes on two cores. `configs/learning_rates.py:smoke` tries
the machinery.
"""

from configs import quickstart


def get_config(size="full"):
  """The experiment of a point; `size` as of the quickstart."""
  c = quickstart.get_config(size)
  c.phases = ("base", "r1_zero", "eval_r1_zero")
  return c


def sweep(add):
  """The points: a learning rate each."""
  for lr in (1e-4, 4e-4):
    add(**{"r1_zero.lr": lr})
