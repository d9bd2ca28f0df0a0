"""The processes of one run: which is the first, and how they share work.

A run on several hosts, such as a TPU pod, has one process on each host. All
of them run the same program and call the functions of this file together, in
the same order. With one process these functions cost nothing. No other file
asks which process it runs in.
"""

import contextlib
import pickle
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from r1jax.errors import UserError


def is_first() -> bool:
  """Whether this is the process that writes files and prints."""
  return jax.process_index() == 0


def is_alone() -> bool:
  """Whether there is one process only."""
  return jax.process_count() == 1


def greatest(value: int) -> int:
  """The greatest of the processes' values, in every process."""
  return max(_exchange(value))


def barrier(name: str) -> None:
  """Returns when every process has called it.

  Args:
    name: of the place in the program; the same in every process.
  """
  multihost_utils.sync_global_devices(f"r1jax.{name}")


def share(items: Sequence) -> Sequence:
  """This process's share of a sequence: every n-th item of n processes.

  Args:
    items: a sequence, equal in every process. A share of a `range` is a
      `range`.

  Returns:
    a sequence of the same kind; `gather` undoes the sharing.
  """
  return items[jax.process_index() :: jax.process_count()]


def gather(own: Sequence) -> list:
  """Joins what the processes made of their shares.

  Args:
    own: a list with one picklable object for each item of this process's
      `share`.

  Returns:
    the list for all items, in the order of the shared sequence; it is equal
    in every process.
  """
  parts = _exchange(list(own))
  count = len(parts)
  total = sum(len(part) for part in parts)
  return [parts[i % count][i // count] for i in range(total)]


def broadcast(value: Any) -> Any:
  """The first process's value, in every process.

  Args:
    value: a picklable object; only the first process's counts.
  """
  return _exchange(value if is_first() else None)[0]


def on_first(function: Callable, *args: Any) -> Any:
  """Calls a function in the first process only.

  Args:
    function: with a picklable result.
    *args: its arguments.

  Returns:
    the result, in every process.

  Raises:
    Exception: in every process, the one that the function raised.
  """
  value = error = None
  if is_first():
    try:
      value = function(*args)
    except Exception as e:
      error = e
  value, error = broadcast((value, error))
  if error is not None:
    raise error
  return value


@contextlib.contextmanager
def entered_on_first(
  context: contextlib.AbstractContextManager,
) -> Iterator[Any]:
  """Enters a context manager in the first process only.

  Args:
    context: a context manager with a picklable value.

  Yields:
    the context manager's value, in every process.

  Raises:
    Exception: in every process, the one that entering or leaving raised.
  """
  stack = contextlib.ExitStack()
  value = on_first(stack.enter_context, context)
  try:
    yield value
  except BaseException:
    stack.__exit__(*sys.exc_info())
    raise
  on_first(stack.close)


def split_devices(
  devices: Sequence[jax.Device], count: int
) -> tuple[list[jax.Device], list[jax.Device]]:
  """Splits devices in two, so that every process has some of both parts.

  Args:
    devices: list of `jax.Device`.
    count: number of devices of the second part.

  Returns:
    two lists of devices.

  Raises:
    UserError: the processes cannot have equally many of the second part, or
      the first part would be empty.
  """
  of_process: dict[int, list[jax.Device]] = {}
  for device in devices:
    of_process.setdefault(device.process_index, []).append(device)
  each, rest = divmod(count, len(of_process))
  if rest or not all(0 < each < len(own) for own in of_process.values()):
    raise UserError(
      f"{count} of {len(devices)} devices cannot be set apart:"
      f" {len(of_process)} hosts must have equally many of them, and others"
    )
  first = [d for own in of_process.values() for d in own[:-each]]
  second = [d for own in of_process.values() for d in own[-each:]]
  return first, second


def whole(array: jax.Array) -> np.ndarray:
  """An array as numpy array in every process, however it is sharded."""
  if getattr(array, "is_fully_addressable", True):
    return np.asarray(array)
  return np.asarray(multihost_utils.process_allgather(array, tiled=True))


def _exchange(value):
  """List of every process's value, in the order of the processes."""
  if is_alone():
    return [value]
  data = np.frombuffer(pickle.dumps(value), np.uint8)
  sizes = multihost_utils.process_allgather(np.int32(len(data)))
  # A power of two, so that few programs are compiled.
  padded = np.zeros(1 << int(sizes.max() - 1).bit_length(), np.uint8)
  padded[: len(data)] = data
  rows = multihost_utils.process_allgather(padded)
  return [pickle.loads(row[:n].tobytes()) for row, n in zip(rows, sizes)]
