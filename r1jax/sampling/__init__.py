"""Decoding: prompts to completions, with the learner's parameters."""
