"""Programs besides the launcher: chat, import, export, benchmarks."""
