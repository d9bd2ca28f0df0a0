"""The names of the files of a run.

DIR/config.json             the config with its overrides; DIR belongs to it
DIR/data/                   problems that a task made
DIR/tensorboard/PHASE/      events of the tracker tensorboard
DIR/PHASE/done.json         written last, when the phase is finished
DIR/PHASE/params/           the parameters that the phase made
DIR/PHASE/model.json        the fields of their `ModelConfig`
DIR/PHASE/tokenizer/        the files of its tokenizer
DIR/PHASE/data.jsonl        the examples that the phase made
DIR/PHASE/keys.json         what the phase was begun with
DIR/PHASE/checkpoints/STEP/ the newest states of an unfinished phase
DIR/PHASE/metrics.jsonl     one line of numbers a step
DIR/PHASE/samples.jsonl     completions to read
DIR/PHASE/kept.jsonl        examples of an unfinished phase so far
DIR/PHASE/skipped.jsonl     the optimizer steps that were not applied, if any
DIR/results.json            the table that is printed at the end
DIR/report.png              the plot of the RL phases
DIR/sweep.json              the table of a sweep, whose points are runs in DIR
"""

# In the directory of the run.
CONFIG = "config.json"
DATA = "data"
TENSORBOARD = "tensorboard"
RESULTS = "results.json"
REPORT = "report.png"
SWEEP = "sweep.json"
LOCK = ".lock"

# In the directory of a phase.
DONE = "done.json"
PARAMS = "params"
MODEL = "model.json"
TOKENIZER = "tokenizer"
EXAMPLES = "data.jsonl"
CHECKPOINTS = "checkpoints"
METRICS = "metrics.jsonl"
SAMPLES = "samples.jsonl"
KEPT = "kept.jsonl"
SKIPPED = "skipped.jsonl"
KEYS = "keys.json"

# In a checkpoint: what the logs were when it was saved.
LOGS = "logs.json"
