"""Tasks, problem sets, synthetic examples, JSONL files."""
