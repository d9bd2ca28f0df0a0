"""The keys of a phase's block: a misspelt one is an error, not a default."""

from r1jax.data import sources
from r1jax.errors import UserError, nearest
from r1jax.phases.rollout import SAMPLER_OPTIONS

# What every phase has: from its block, or from the experiment around it.
COMMON = (
  "phase", "name", "seed", "init", "data", "model", "weights", "tokenizer",
  "task", "mesh", "optimizer",
)  # fmt: skip
SAMPLING = ("slots", "max_new_tokens", "temperature")
TRAINING = (
  "steps", "lr", "schedule", "warmup", "row_length", "rows", "save_every"
)  # fmt: skip
# Kind of phase -> keys that it needs, keys that it may have.
KEYS = {
  "sft": ((*TRAINING, "batch", "log_every"), ()),
  "grpo": (
    (*TRAINING, *SAMPLING, "prompts", "group", "minibatches", "rewards"),
    ("ref_every", "loss", "refill", "share_prompts", *SAMPLER_OPTIONS),
  ),
  "rejection": (
    (*SAMPLING, "problems", "prompts", "group", "keep", "least"),
    SAMPLER_OPTIONS,
  ),
  "evaluate": ((*SAMPLING, "problems", "samples", "label"), SAMPLER_OPTIONS),
}  # fmt: skip
MESH = ("data", "fsdp", "tensor")


def check(config):
  """Raises `UserError` at a key that nothing reads.

  Args:
    config: a phase's block, complete.

  Raises:
    UserError: naming the key; AttributeError: one that is missing.
  """
  needed, allowed = KEYS[config.phase]
  _known(config, config.name, (*COMMON, *needed, *allowed))
  for key in needed:
    getattr(config, key)
  _known(config.get("mesh", {}), "mesh", MESH)
  _known(config.tokenizer, "tokenizer", ("kind", "path"))
  if "task" in config:
    sources.check(config.task)
    _known(config.task, "task", sources.KEYS[config.task.kind])


def _known(block, where, known):
  for key in block:
    if key not in known:
      close = nearest(key, known)
      hint = f'did you mean "{close}"?'
      if not close:
        hint = f"known: {', '.join(sorted(known))}"
      raise UserError(f'{where}: the key "{key}" is unknown; {hint}')
