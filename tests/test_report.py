"""The table, its file and the plot."""

import json
import math

from r1jax import files
from r1jax.run import report

ROWS = [
  {"checkpoint": "base", "pass@1": 0.25, "cons@16": 0.5, "tokens": 24.04},
  {"checkpoint": "r1_zero", "pass@1": 0.8, "cons@16": 0.9, "tokens": 43.0},
]


def test_table():
  assert report.table(ROWS).splitlines() == [
    "checkpoint  pass@1  cons@16  tokens",
    "----------  ------  -------  ------",
    "base         0.250    0.500    24.0",
    "r1_zero      0.800    0.900    43.0",
  ]


def test_results_are_valid_json(tmp_path):
  rows = [*ROWS, {"checkpoint": "r1", "pass@1": math.nan}]
  report.write_results(tmp_path / "results.json", rows)
  read = json.loads((tmp_path / "results.json").read_text())
  assert read[:2] == ROWS and read[2]["pass@1"] is None


def test_seconds():
  assert report.seconds({"a": 1.2, "b": 60.0}) == (
    "seconds: a 1, b 60; together 61"
  )


def test_plot_leaves_out_what_nobody_measured(tmp_path):
  for phase in ("zero", "dev2"):
    (tmp_path / phase).mkdir()
    rows = [{"step": i, "accuracy": i / 9, "tokens": 20 + i} for i in range(9)]
    rows[3]["accuracy"] = None
    text = "".join(map(files.encode, rows))
    (tmp_path / phase / "metrics.jsonl").write_text(text)
  report.plot(tmp_path, ("zero", "dev2", "absent"), tmp_path / "report.png")
  assert (tmp_path / "report.png").read_bytes().startswith(b"\x89PNG")


def test_plot_of_nothing_draws_nothing(tmp_path):
  report.plot(tmp_path, ("zero",), tmp_path / "report.png")
  assert not (tmp_path / "report.png").exists()
