"""The end of a run: a table, its file, a plot."""

import io
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from r1jax import files
from r1jax.extras import need
from r1jax.run import layout

# Metric of RL -> title of its panel in the plot.
_PANELS = (
  ("accuracy", "share of right answers"),
  ("tokens", "mean length of a completion, tokens"),
  ("language", "language consistency"),
  ("reflection", "reflective words per completion"),
)


def table(rows: Sequence[Mapping[str, Any]]) -> str:
  """Formats rows as a table of plain text.

  Args:
    rows: list of dicts, each with a "checkpoint" and numbers.
  """
  columns = list(dict.fromkeys(key for row in rows for key in row))
  cells = [[_cell(row.get(c), c) for c in columns] for row in rows]
  widths = [max(map(len, column)) for column in zip(columns, *cells)]

  def line(cells):
    first, *rest = zip(cells, widths)
    parts = [first[0].ljust(first[1]), *(c.rjust(w) for c, w in rest)]
    return "  ".join(parts).rstrip()

  return "\n".join(map(line, [columns, ["-" * w for w in widths], *cells]))


def seconds(spent: Mapping[str, float]) -> str:
  """Formats the seconds of each phase and their sum, as one line.

  Args:
    spent: name -> seconds.
  """
  parts = [f"{name} {s:.0f}" for name, s in spent.items()]
  return f"seconds: {', '.join(parts)}; together {sum(spent.values()):.0f}"


def write_results(path: str | Path, rows: Iterable[Mapping[str, Any]]) -> None:
  """Writes rows as a JSON list of objects, whole or not at all.

  Args:
    path: of the file.
    rows: list of dicts.
  """
  text = json.dumps([json.loads(files.encode(r)) for r in rows], indent=1)
  files.write_atomically(path, text + "\n")


def plot(workdir: str | Path, phases: Iterable[str], path: str | Path) -> None:
  """Draws accuracy, length, language and reflection over the steps of RL.

  A panel is left out if no phase has its metric.

  Args:
    workdir: directory of a run.
    phases: names of phases; each is a line in every panel.
    path: of the PNG to write.

  Raises:
    UserError: matplotlib is not installed.
  """
  canvas = need("matplotlib.backends.backend_agg").FigureCanvasAgg
  figure_class = need("matplotlib.figure").Figure
  runs = {p: files.read(f"{workdir}/{p}/{layout.METRICS}") for p in phases}
  panels = [
    (key, title)
    for key, title in _PANELS
    if any(key in row for rows in runs.values() for row in rows)
  ]
  if not panels:
    return
  figure = figure_class(figsize=(3.6 * len(panels), 2.8), layout="constrained")
  canvas(figure)
  axes = figure.subplots(1, len(panels), squeeze=False)[0]
  for axis, (key, title) in zip(axes, panels):
    for i, (name, rows) in enumerate(runs.items()):
      points = [(r["step"], r[key]) for r in rows if r.get(key) is not None]
      if points:
        _draw(axis, points, name, f"C{i}")
    axis.set_title(title, fontsize=9, loc="left")
    axis.set_xlabel("step", fontsize=8)
    axis.tick_params(labelsize=8)
    axis.grid(alpha=0.25, linewidth=0.5)
    axis.spines[["top", "right"]].set_visible(False)
    if key in ("accuracy", "language"):
      axis.set_ylim(-0.02, 1.02)
    else:
      axis.set_ylim(bottom=0)
  handles: dict[str, Any] = {}
  for axis in axes:
    for handle, label in zip(*axis.get_legend_handles_labels()):
      handles.setdefault(label, handle)
  axes[-1].legend(handles.values(), handles.keys(), fontsize=8, frameon=False)
  drawn = io.BytesIO()
  figure.savefig(drawn, dpi=150, format="png")
  files.write_atomically(path, drawn.getvalue())


def _draw(axis, points, name, colour):
  """Draws the values faintly and their running mean.

  Args:
    axis: of matplotlib.
    points: pairs (step, value).
    name: of the line.
    colour: of the line.
  """
  steps, values = zip(*points)
  axis.plot(steps, values, color=colour, alpha=0.2, linewidth=0.8)
  width = max(1, len(values) // 20)
  windows = [values[max(0, i - width) : i + 1] for i in range(len(values))]
  mean = [sum(window) / len(window) for window in windows]
  axis.plot(steps, mean, color=colour, linewidth=1.5, label=name)


def _cell(value, column):
  if isinstance(value, str) or value is None:
    return value or "-"
  return f"{value:.1f}" if column == "tokens" else f"{value:.3f}"
