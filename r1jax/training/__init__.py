"""Training: packed batches, log-probabilities, one optimizer step."""
