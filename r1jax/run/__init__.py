"""What a run writes: checkpoints, logs, results."""
