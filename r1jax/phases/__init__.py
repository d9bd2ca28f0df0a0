"""The phases of an experiment: `(config, state, data, io) -> (state, data)`.

`config` is an instance of the phase's dataclass, `state` the `TrainState` of
the phase it starts from (or None), `data` the examples of the phase it learns
from (or the name of a source), `io` the only part of the world that the phase
may touch.
"""

from r1jax.phases import evaluate, grpo, rejection, sft

# Kind of phase -> the dataclass of its keys, and its function.
PHASES = {
  "sft": (sft.SFT, sft.sft),
  "grpo": (grpo.GRPO, grpo.grpo),
  "rejection": (rejection.Rejection, rejection.rejection),
  "evaluate": (evaluate.Evaluate, evaluate.evaluate),
}

__all__ = ["PHASES"]
