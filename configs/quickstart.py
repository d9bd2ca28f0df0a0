"""The whole R1 pipeline on a laptop: two cores, minutes, no download.

  python -m experiments.launch --config=configs/quickstart.py --workdir=DIR

A decoder of about 1 M parameters learns Countdown with three numbers. As in
the paper: RL alone from a base model (R1-Zero); then cold-start SFT (Dev1),
reasoning RL with a language reward (Dev2), rejection sampling, SFT of the
base model on that data (Dev3), final RL (R1); then R1's own samples distilled
into a smaller student, beside that student trained by RL alone.

`configs/quickstart.py:smoke` runs every phase in little more than the time
that compilation takes; its numbers mean nothing.

Results: see experiments/README.md.
"""

from ml_collections import ConfigDict

EVALUATED = (
  # label, phase whose policy is evaluated
  ("base", "base"),
  ("r1_zero", "r1_zero"),
  ("dev1", "cold_start"),
  ("dev2", "reasoning_rl"),
  ("dev3", "sft"),
  ("r1", "final_rl"),
  ("distill", "distill"),
  ("small_rl", "small_rl"),
)


def get_config(size="full"):
  """The experiment; `size` is "full" or "smoke"."""
  if size not in ("full", "smoke"):
    raise ValueError(f'configs/quickstart.py:{size}: use "full" or "smoke"')
  c = ConfigDict()
  c.seed = 0
  c.tokenizer = dict(kind="countdown")
  c.task = dict(
    kind="countdown",
    seed=0,
    train=3000,
    test=256,
    # Most traces give up after one or two tries; few have patience, and
    # those drift between the languages.
    corpus=dict(skill=1.2, long=0.06, mixing=0.5, unformatted=0.2),
    cold_start=dict(skill=1.5, longest=8),
  )
  c.mesh = dict(data=-1)
  c.models = dict(
    base=dict(
      d_model=128, n_layers=4, n_heads=4, n_kv_heads=1, head_dim=32,
      d_ff=512, max_length=256,
    ),
    small=dict(
      d_model=64, n_layers=3, n_heads=4, n_kv_heads=1, head_dim=16,
      d_ff=256, max_length=256,
    ),
  )  # fmt: skip

  sft = dict(
    phase="sft", batch=64, schedule="cosine", warmup=20, row_length=192,
    rows=8, log_every=10, save_every=200,
  )  # fmt: skip
  rl = dict(
    phase="grpo", prompts=32, group=8, minibatches=2,
    lr=3e-4, epsilon=0.2, beta=0.001, ref_every=25, temperature=1.0,
    slots=128, max_new_tokens=144, row_length=192, rows=8, save_every=10,
  )  # fmt: skip
  reasoning = dict(accuracy=1.0, format=1.0)
  all_rewards = dict(accuracy=1.0, format=1.0, language=1.0)

  c.base = dict(**sft, model="base", data="corpus", steps=600, lr=6e-3)
  c.r1_zero = dict(**rl, init="base", steps=60, rewards=reasoning)
  c.cold_start = dict(
    **sft, init="base", data="cold_start", steps=30, lr=1e-3
  )
  c.reasoning_rl = dict(
    **rl, init="cold_start", steps=30, rewards=all_rewards
  )
  c.rejection = dict(
    phase="rejection", init="reasoning_rl", problems=1024,
    prompts=256, group=4, keep=2, temperature=1.0,
    least=dict(accuracy=1.0, format=1.0, language=1.0),
    slots=128, max_new_tokens=144,
  )  # fmt: skip
  c.sft = dict(**sft, init="base", data="rejection", steps=60, lr=1e-3)
  c.final_rl = dict(**rl, init="sft", steps=20, rewards=all_rewards)
  c.small_base = dict(**sft, model="small", data="corpus", steps=300, lr=6e-3)
  c.samples = dict(c.rejection, init="final_rl")
  c.distill = dict(**sft, init="small_base", data="samples", steps=100, lr=2e-3)
  c.small_rl = dict(**rl, init="small_base", steps=20, rewards=reasoning)

  order = [
    "base", "r1_zero", "cold_start", "reasoning_rl", "rejection", "sft",
    "final_rl", "small_base", "samples", "distill", "small_rl",
  ]  # fmt: skip
  for label, phase in EVALUATED:
    c[f"eval_{label}"] = dict(
      phase="evaluate", init=phase, label=label,
      problems=256, samples=16, temperature=1.0, slots=256,
      max_new_tokens=144,
    )  # fmt: skip
    order.insert(order.index(phase) + 1, f"eval_{label}")
  c.phases = tuple(order)
  if size == "smoke":
    _shrink(c)
  return c


def _shrink(c):
  """Every phase, as short as it can be."""
  c.task.update(train=48, test=8)
  for name in c.phases:
    block = c[name]
    if block.phase == "sft":
      block.update(steps=2, batch=8, warmup=1, log_every=1)
    elif block.phase == "grpo":
      block.update(steps=2, prompts=4, group=4, slots=16, max_new_tokens=48)
    elif block.phase == "rejection":
      block.update(problems=8, prompts=8, slots=16, max_new_tokens=48)
      block.least = dict(accuracy=0.0)
    else:
      block.update(problems=8, slots=16, max_new_tokens=48)
