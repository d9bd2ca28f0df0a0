"""Cells of rows of benchmarks: questions, texts of JSON, packed tests."""

import base64
import binascii
import json
import pickletools
import zlib
from typing import Any

from r1jax.data import jsonl
from r1jax.errors import UserError

# Bytes to which the tests of one problem may unpack.
MOST = 1 << 28


def asked(question: Any) -> str:
  """A question without white space around it.

  Args:
    question: of a row.

  Raises:
    UserError: it is empty.
  """
  if not isinstance(question, str) or not question.strip():
    raise UserError("the question is empty")
  return question.strip()


def value(row: dict[str, Any], column: str) -> Any:
  """The value of a column that may be text of JSON; None if that is empty.

  Args:
    row: the values of a row.
    column: its name.
  """
  cell = row[column]
  if isinstance(cell, str):
    return parsed(cell) if cell.strip() else None
  return cell


def parsed(text: str) -> Any:
  """A value of JSON.

  Args:
    text: of a cell.

  Raises:
    UserError: it is no JSON; the message quotes its beginning.
  """
  try:
    return jsonl.loads(text)
  except UserError as e:
    raise UserError(f"{e}, in {json.dumps(text[:60])}") from None


def unpacked(text: str) -> str:
  """The text in base64 of zlib of a pickle of one text.

  Nothing is unpickled: a pickle can run any program. Only the operations that
  a pickle of one text has are accepted, and none of them is executed.

  Args:
    text: of base64.

  Raises:
    UserError: it is anything else, or unpacks to more than `MOST` bytes.
  """
  try:
    unzip = zlib.decompressobj()
    data = unzip.decompress(base64.b64decode(text, validate=True), MOST)
  except (binascii.Error, ValueError, zlib.error) as e:
    raise UserError(f"packed tests cannot be unpacked: {e}") from None
  if not unzip.eof:
    raise UserError(
      f"packed tests are cut short, or unpack to more than {MOST} bytes"
    )
  found = []
  try:
    for operation, value, _ in pickletools.genops(data):
      if operation.name in ("BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"):
        found.append(value)
      elif operation.name not in (
        "PROTO", "FRAME", "MEMOIZE", "BINPUT", "LONG_BINPUT", "STOP",
      ):  # fmt: skip
        found.append(None)
  except Exception as e:  # the library raises many kinds for broken data
    raise UserError(f"packed tests are no pickle: {e}") from None
  if len(found) != 1 or found[0] is None:
    raise UserError("packed tests must be the pickle of one text, no more")
  return found[0]
