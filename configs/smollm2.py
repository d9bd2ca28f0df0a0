"""R1-Zero on a real model: SmolLM2-135M-Instruct counts and multiplies.

  python -m tools.get_smollm2 --out=smollm2
  python -m experiments.launch --config=configs/smollm2.py --workdir=DIR

Under an hour on two CPU cores. `configs/smollm2.py:gpu` is the larger setting
for one GPU, `configs/smollm2.py:smoke` a test of the machinery.

The questions come from reasoning-gym; which of its tasks the model starts at
with some right answers, but not many, is tabled in experiments/README.md.
Three solved questions go before each: the model knows no tags of its own
accord, and what no sample ever shows cannot be rewarded.
"""

from ml_collections import ConfigDict


def get_config(size="cpu"):
  """Returns the ConfigDict of the run; size is "cpu", "gpu" or "smoke"."""
  c = ConfigDict()
  c.seed = 0
  c.model = "hf:smollm2"
  c.tokenizer = dict(kind="hf", path="smollm2")
  c.task = dict(
    kind="reasoning_gym", seed=0, train=800, test=256, template="chat",
    shots=3,
    datasets=dict(
      gcd=dict(min_value=1, max_value=50),
      lcm=dict(min_value=1, max_value=20),
      letter_counting=dict(min_words=1, max_words=3),
      products=dict(min_terms=2, max_terms=2, min_digits=1, max_digits=2),
    ),
  )  # fmt: skip
  c.mesh = dict(data=-1)
  c.optimizer = dict(kind="adamw", b2=0.99)
  length = dict(max_new_tokens=40)
  evaluate = dict(
    phase="evaluate", problems=256, samples=1, temperature=0.6, top_p=0.95,
    slots=64, **length,
  )  # fmt: skip
  c.eval_base = dict(evaluate, label="SmolLM2")
  c.r1_zero = dict(
    phase="grpo", steps=60, prompts=8, group=8, minibatches=1, lr=5e-6,
    schedule="constant", warmup=2, epsilon=0.2, beta=0.0, ref_every=60,
    temperature=1.0, slots=64, rewards=dict(accuracy=1.0, format=0.2),
    share_prompts=True, row_length=400, rows=2, save_every=10, **length,
  )  # fmt: skip
  c.eval_r1_zero = dict(evaluate, init="r1_zero", label="R1-Zero")
  c.phases = ("eval_base", "r1_zero", "eval_r1_zero")
  return c
