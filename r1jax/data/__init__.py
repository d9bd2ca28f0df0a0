"""Problem sets, synthetic corpora, JSONL files, packing into rows."""
