"""Layouts of benchmarks that need more than a map of columns.

A layout is a function from the values of a row to those of a problem's fields.
It may return None, which leaves the row out, and raise a `UserError`.
"""

import importlib
from collections.abc import Callable
from typing import Any

from r1jax.data.layouts import answers, programs
from r1jax.errors import UserError, nearest

Layout = Callable[[dict[str, Any]], dict[str, Any] | None]

LAYOUTS: dict[str, Layout] = {
  "apps": programs.apps,
  "dapo": answers.dapo,
  "gpqa": answers.gpqa,
  "humaneval": programs.humaneval,
  "ifeval": answers.ifeval,
  "livecodebench": programs.livecodebench,
  "mbpp": programs.mbpp,
  "numinamath": answers.numinamath,
}


def check_name(layout: str) -> None:
  """Raises a `UserError` if a name is none of `LAYOUTS` and no function's."""
  if layout and layout not in LAYOUTS and ":" not in layout:
    close = nearest(layout, LAYOUTS)
    raise UserError(
      f'layout="{layout}" is unknown;'
      + (f' did you mean "{close}"?' if close else "")
      + f' known: {", ".join(LAYOUTS)}, or "package.module:function" for your'
      " own"
    )


def find(layout: str) -> Layout:
  """A layout.

  Args:
    layout: one of `LAYOUTS`, or "package.module:function" of your own.

  Raises:
    UserError: there is no such layout.
  """
  check_name(layout)
  if layout in LAYOUTS:
    return LAYOUTS[layout]
  name, _, function = layout.partition(":")
  try:
    return getattr(importlib.import_module(name), function)
  except (ImportError, AttributeError, ValueError) as e:
    raise UserError(f'layout="{layout}" cannot be imported: {e}') from None


__all__ = ["LAYOUTS", "Layout", "check_name", "find"]
