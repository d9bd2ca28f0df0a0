"""The phases of an experiment: `(config, state, data, io) -> (state, data)`.

`config` is the phase's block of the experiment, `state` the `TrainState` of
the phase it starts from (or None), `data` the examples of the phase it
learns from (or the name of a source), `io` all it may touch of the world.
"""

from r1jax.phases import evaluate, grpo, rejection, sft
from r1jax.phases.common import check

PHASES = {
  "sft": sft.sft,
  "grpo": grpo.grpo,
  "rejection": rejection.rejection,
  "evaluate": evaluate.evaluate,
}

__all__ = ["PHASES", "check"]
