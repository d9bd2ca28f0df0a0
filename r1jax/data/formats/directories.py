"""Directories of data: what `datasets` saved, a hub's, TFDS, array_record."""

from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path
from typing import Any

from r1jax.data.formats import records, tables
from r1jax.data.rows import Faults, Row, one_line
from r1jax.errors import UserError
from r1jax.extras import need


def read(
  path: str,
  faults: Faults,
  columns: Collection[str] | None,
  named: str,
  split: str,
) -> Iterator[Row]:
  """The rows of a split of a directory.

  Args:
    path: of the directory.
    faults: gets the rows that cannot be read.
    columns: the columns to read; None reads all.
    named: the split, or SUBSET/SPLIT, that the path names; "" if none.
    split: the split to read if the path names none. If the directory has only
      one split, that one is read.

  Yields:
    `Row`, whose place is "DIR:SPLIT: row N".

  Raises:
    UserError: the directory cannot be read, or has no such split.
  """
  place = Path(path)
  versions = [f.parent for f in place.glob("**/features.json")]
  if len(versions) > 1:
    raise UserError(
      f"{place}: name one of its sets: {', '.join(map(str, sorted(versions)))}"
    )
  if versions:
    place = versions[0]
    yield from _tfds(place, faults, columns, named, split)
  elif (place / "dataset_dict.json").exists() or (
    (place / "state.json").exists()
  ):
    yield from _saved(place, faults, columns, named, split)
  elif found := {p.stem: p for p in sorted(place.glob("*.array_record"))}:
    one = choose(place, list(found), named, split)
    yield from records.array_record(str(found[one]), columns, faults)
  else:
    yield from _hub(place, faults, columns, named, split)


def choose(place: Path, known: Collection[str], named: str, split: str) -> str:
  """The split that is meant.

  Args:
    place: the directory.
    known: its splits.
    named: the split that the path names; "" if none.
    split: the split to read if the path names none; "" if none.

  Raises:
    UserError: there is no such split.
  """
  if named in known:
    return named
  if not named and split in known:
    return split
  if not named and len(known) == 1:
    return next(iter(known))
  if not known:
    raise UserError(f"{place}: no data is in this directory")
  lacks = named or split
  raise UserError(
    f"{place}: "
    + (f'there is no split "{lacks}" here' if lacks else "no split is named")
    + f"; splits: {', '.join(known)}; name one, as in"
    f' "{place}:{next(iter(known))}"'
  )


def _saved(place, faults, columns, named, split):
  """What `save_to_disk` of the library `datasets` wrote."""
  datasets = need("datasets")
  found = _tried(place, lambda: datasets.load_from_disk(str(place)))
  at = str(place)
  if isinstance(found, dict):
    one = choose(place, list(found), named, split)
    found, at = found[one], f"{place}:{one}"
  elif named:
    raise UserError(f'{place}: this set has no splits; leave ":{named}" out')
  names = found.column_names
  found = found.select_columns(_wanted(names, columns))
  yield from _rows(at, _labelled(found), names, faults)


def _hub(place, faults, columns, named, split):
  """The files of a data set as a hub keeps them, read by `datasets`."""
  datasets = need("datasets")
  subset, _, named = named.rpartition("/")
  subsets = _tried(place, lambda: datasets.get_dataset_config_names(str(place)))
  if not subset and named in subsets and len(subsets) > 1:
    subset, named = named, ""
  if subset not in subsets:
    if subset or (len(subsets) > 1 and "default" not in subsets):
      raise UserError(
        f'{place}: name one of its subsets, as in "{place}:{subsets[0]}";'
        f" subsets: {', '.join(subsets)}"
      )
    subset = "default" if "default" in subsets else subsets[0]
  known = _tried(
    place, lambda: datasets.get_dataset_split_names(str(place), subset)
  )
  one = choose(place, known, named, split)
  found = _tried(
    place,
    lambda: datasets.load_dataset(
      str(place), subset, split=one, streaming=True
    ),
  )
  at = f"{place}:{one}"
  names = _tried(place, lambda: found.column_names)
  if names is not None:
    found = found.select_columns(_wanted(names, columns))
  yield from _rows(at, _labelled(found), names, faults)


def _labelled(found):
  """Yields the rows of a set of `datasets`, with the names of its labels."""
  labels = {
    column: feature.names
    for column, feature in (found.features or {}).items()
    if type(feature).__name__ == "ClassLabel"
  }
  for row in found:
    for column, names in labels.items():
      number = row.get(column)
      row[column] = names[number] if number in range(len(names)) else None
    yield row


def _tfds(place, faults, columns, named, split):
  """A set of TensorFlow Datasets in array_record files; needs no TensorFlow."""
  tfds = need("tensorflow_datasets")
  builder = _tried(place, lambda: tfds.builder_from_directory(str(place)))
  one = choose(place, list(builder.info.splits), named, split)
  names = list(builder.info.features)
  source = _tried(place, lambda: builder.as_data_source(split=one))
  wanted = _wanted(names, columns)
  rows = ({n: row[n] for n in wanted} for row in source)
  yield from _rows(f"{place}:{one}", rows, names, faults)


def _wanted(names, columns):
  return [n for n in names if columns is None or n in columns]


def _tried(place: Path, do: Callable[[], Any]) -> Any:
  """What a library's function returns; its errors as a `UserError`."""
  try:
    return do()
  except UserError:
    raise
  except Exception as e:  # these libraries raise many kinds
    reason = str(e).strip() or type(e).__name__
    raise UserError(f"{place}: cannot be read: {one_line(reason)}") from None


def _rows(
  at: str, found: Iterable[Any], names: list[str] | None, faults: Faults
) -> Iterator[Row]:
  """Yields `Row`s of mappings.

  Args:
    at: DIR:SPLIT.
    found: iterable of mappings.
    names: of all columns; None takes each row's own.
    faults: gets the rows whose values are not those of JSON.
  """
  iterator, number = iter(found), 0
  while True:
    values = _tried(Path(at), lambda: next(iterator, None))
    if values is None:
      return
    number += 1
    where = f"{at}: row {number}"
    try:
      values = {key: tables.plain(value) for key, value in values.items()}
    except UserError as e:
      faults.unread(where, str(e))
      continue
    yield Row(where, f"{Path(at).name}:{number}", values, names or list(values))
