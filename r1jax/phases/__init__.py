"""The phases of an experiment: `(config, state, data, io) -> (state, data)`.

`config` is the phase's block of the experiment, `state` the `TrainState` of
the phase it starts from (or None), `data` the examples of the phase it
learns from (or the name of a source), `io` all it may touch of the world.
"""

from r1jax.phases.evaluate import evaluate
from r1jax.phases.grpo import grpo
from r1jax.phases.rejection import rejection
from r1jax.phases.sft import sft

PHASES = {
  "sft": sft,
  "grpo": grpo,
  "rejection": rejection,
  "evaluate": evaluate,
}
