"""R1-Zero on a real model: SmolLM2-135M-Instruct counts and multiplies.

  python -m tools.get_smollm2 --out=smollm2
  python -m experiments.launch --config=configs/smollm2.py --workdir=DIR

Half an hour on two CPU cores. `configs/smollm2.py:gpu` is a larger setting
for one GPU; `configs/smollm2.py:survey` samples each of `CANDIDATES` and
tells where the model starts; `configs/smollm2.py:smoke` tries the machinery.

The questions come from reasoning-gym: tasks at which the model is right now
and then, which is what RL can amplify. Three solved questions go before each:
the model knows no tags of its own accord, and what no sample ever shows
cannot be rewarded. Held-out accuracy rises from 0.36 to 0.44; see
docs/results.md.
"""

from ml_collections import ConfigDict

# Of reasoning-gym, with the smallest numbers that leave enough questions.
CANDIDATES = dict(
  chain_sum=dict(min_terms=2, max_terms=2, min_digits=1, max_digits=2),
  count_bits=dict(min_n=1, max_n=1000),
  gcd=dict(min_value=1, max_value=50),
  lcm=dict(min_value=1, max_value=20),
  leg_counting=dict(min_animals=1, max_animals=2, max_instances=4),
  letter_counting=dict(min_words=1, max_words=3),
  number_sequence=dict(),
  products=dict(min_terms=2, max_terms=2, min_digits=1, max_digits=2),
  simple_equations=dict(min_value=1, max_value=20),
  spell_backward=dict(min_word_len=3, max_word_len=4),
  syllogism=dict(),
)
LEARNED = ("gcd", "lcm", "letter_counting", "products")


def get_config(size="cpu"):
  """Returns the ConfigDict; size is "cpu", "gpu", "survey" or "smoke"."""
  if size not in ("cpu", "gpu", "survey", "smoke"):
    raise ValueError(
      f'configs/smollm2.py:{size} is unknown; known: "cpu", "gpu", "survey",'
      ' "smoke"'
    )
  c = ConfigDict()
  c.seed = 0
  c.model = "hf:smollm2"
  c.tokenizer = dict(kind="hf", path="smollm2")
  c.task = _task({name: CANDIDATES[name] for name in LEARNED}, 800, 512)
  c.mesh = dict(data=-1)
  c.optimizer = dict(kind="adamw", b2=0.99)
  sampler = dict(slots=64, max_new_tokens=40)
  evaluate = dict(
    phase="evaluate", problems=512, samples=1, temperature=0.6,
    sampler=dict(sampler, top_p=0.95),
  )  # fmt: skip
  c.eval_base = dict(evaluate, label="SmolLM2")
  c.r1_zero = dict(
    phase="grpo", steps=30, prompts=16, group=8, minibatches=1, lr=4e-6,
    schedule="constant", warmup=2, loss=dict(epsilon=0.2, beta=0.0),
    temperature=0.7, sampler=sampler, rewards=dict(accuracy=1.0, format=0.2),
    share_prompts=True, row_length=400, rows=2, save_every=10,
  )  # fmt: skip
  c.eval_r1_zero = dict(evaluate, init="r1_zero", label="R1-Zero")
  c.phases = ("eval_base", "r1_zero", "eval_r1_zero")
  if size == "gpu":
    # The same model, many more samples a step and more steps.
    c.models = dict(smollm2=dict(hf="smollm2", compute_dtype="bfloat16"))
    c.model = "smollm2"
    c.r1_zero.update(prompts=64, group=16, steps=100, row_length=1024, rows=16)
    c.r1_zero.sampler.slots = 1024
    c.eval_base.sampler.slots = c.eval_r1_zero.sampler.slots = 256
  elif size == "survey":
    # As RL samples: at temperature 1, in groups of 8.
    c.phases = tuple(CANDIDATES)
    for name, parameters in CANDIDATES.items():
      c[name] = dict(
        evaluate, label=name, problems=24, samples=8, temperature=1.0,
        sampler=sampler, task=_task({name: parameters}, 1, 24),
      )  # fmt: skip
  elif size == "smoke":
    c.eval_base.problems = c.eval_r1_zero.problems = 4
    c.r1_zero.update(prompts=2, group=4, steps=2)
    c.r1_zero.sampler.slots = 8
  return c


def _task(datasets, train, test):
  return dict(
    kind="reasoning_gym", seed=0, train=train, test=test, template="chat",
    shots=3, datasets=datasets,
  )  # fmt: skip
