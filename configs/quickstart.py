"""The whole R1 pipeline on a laptop: two cores, minutes, no download.

  python -m experiments.launch --config=configs/quickstart.py --workdir=DIR

A decoder of about 1 M parameters learns Countdown with three numbers. As in
the paper: RL alone from a base model (R1-Zero); then cold-start SFT (Dev1),
reasoning RL with a language reward (Dev2), rejection sampling, SFT of the
base model on that data (Dev3), final RL (R1); then R1's own samples distilled
into a smaller student, beside that student trained by RL alone.

`configs/quickstart.py:smoke` runs every phase in little more than the time
that compilation takes; its numbers mean nothing.

Results: see docs/results.md.
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
    train=1200,
    test=256,
    # Most traces give up after one or two tries; few have patience, and
    # those drift between the languages.
    corpus=dict(skill=3.0, long=0.2, longest=15, mixing=0.5, unformatted=0.2),
    cold_start=dict(skill=3.0, longest=15),
  )
  c.mesh = dict(data=-1)
  c.models = dict(
    base=dict(
      d_model=128, n_layers=3, n_heads=4, n_kv_heads=2, head_dim=32,
      d_ff=640, max_length=256,
    ),
    small=dict(
      d_model=64, n_layers=3, n_heads=4, n_kv_heads=2, head_dim=16,
      d_ff=256, max_length=256,
    ),
  )  # fmt: skip

  rows = dict(row_length=224, rows=2)
  sampler = dict(slots=64, max_new_tokens=208)
  sft = dict(
    phase="sft", batch=32, schedule="cosine", log_every=20, save_every=300,
    **rows,
  )  # fmt: skip
  # Training a base model is not R1's subject; Muon takes half of AdamW's time.
  pretrain = dict(
    sft, data="corpus", optimizer=dict(kind="muon"), lr=2e-2, warmup=20
  )
  rl = dict(
    phase="grpo", prompts=32, group=8, minibatches=2, lr=4e-4,
    schedule="cosine", warmup=0, loss=dict(epsilon=0.2, beta=0.001),
    ref_every=25, temperature=1.0, sampler=sampler, save_every=10, **rows,
  )  # fmt: skip
  rejection = dict(
    phase="rejection", problems=768, prompts=256, group=4, keep=2,
    least=dict(accuracy=1.0, format=1.0, language=1.0), temperature=1.0,
    sampler=sampler,
  )  # fmt: skip
  # After SFT there is little left to learn and much to spoil.
  gentle = dict(rl, lr=1e-4, warmup=2)
  reasoning = dict(accuracy=1.0, format=1.0)
  with_language = dict(reasoning, language=1.0)

  c.base = dict(pretrain, model="base", steps=1400)
  c.r1_zero = dict(rl, init="base", steps=30, rewards=reasoning)
  tune = dict(sft, lr=1e-3, warmup=5)
  c.cold_start = dict(tune, init="base", data="cold_start", steps=40)
  c.reasoning_rl = dict(
    gentle, init="cold_start", steps=12, rewards=with_language
  )
  c.rejection = dict(rejection, init="reasoning_rl")
  c.sft = dict(tune, init="base", data="rejection", steps=80)
  # R1's second RL samples at 0.7; at 1.0 its text became incoherent.
  c.final_rl = dict(
    gentle, init="sft", steps=12, rewards=with_language, temperature=0.7
  )
  c.samples = dict(rejection, init="final_rl")
  c.small_base = dict(pretrain, model="small", steps=300)
  c.distill = dict(tune, init="small_base", data="samples", steps=150, lr=2e-3)
  c.small_rl = dict(rl, init="small_base", steps=12, rewards=reasoning)

  order = [
    "base", "r1_zero", "cold_start", "reasoning_rl", "rejection", "sft",
    "final_rl", "samples", "small_base", "distill", "small_rl",
  ]  # fmt: skip
  for label, phase in EVALUATED:
    # The paper's protocol (v2, D.1): temperature 0.6, top-p 0.95.
    c[f"eval_{label}"] = dict(
      phase="evaluate", init=phase, label=label, problems=256, samples=16,
      temperature=0.6, sampler=dict(sampler, top_p=0.95),
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
    phase = c[name]
    if "sampler" in phase:
      phase.sampler.update(slots=16, max_new_tokens=48)
    if phase.phase == "sft":
      phase.update(steps=2, batch=8, warmup=1, log_every=1)
    elif phase.phase == "grpo":
      phase.update(steps=2, prompts=4, group=4)
    elif phase.phase == "rejection":
      phase.update(problems=8, prompts=8)
      phase.least = dict(accuracy=0.0)
    else:
      phase.update(problems=8)
