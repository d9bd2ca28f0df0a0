"""Checksums of the files of a directory: any changed bit is found and named.

They lie in the directory, in the format of the program sha256sum, which can
check them too: `sha256sum --check checksums.sha256`. The last line is the
checksum of the lines before it.
"""

import hashlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from r1jax import hosts

NAME = "checksums.sha256"


def write(directory: str | Path) -> None:
  """Writes the checksums of all files below a directory; all hosts call it.

  Args:
    directory: a directory that is complete but for this file. All hosts see
      the same files in it.
  """
  directory = Path(directory)
  names = hosts.broadcast(_names(directory))
  sums = _of_all(directory, names)
  lines = "".join(f"{s}  {name}\n" for s, name in zip(sums, names))
  if hosts.is_first():
    text = f"{lines}# {hashlib.sha256(lines.encode()).hexdigest()}\n"
    (directory / NAME).write_text(text)


def find_damage(directory: str | Path) -> str:
  """Compares the files below a directory with their checksums, on all hosts.

  Args:
    directory: with the file that `write` makes.

  Returns:
    what is wrong with the first file that was changed, cut short or lost,
    in words that begin with its name; "" if nothing is.
  """
  directory = Path(directory)
  written = hosts.broadcast(_read(directory))
  if isinstance(written, str):
    return written
  for name, found in zip(written, _of_all(directory, list(written))):
    if found is None:
      return f"{name} is missing"
    if found != written[name]:
      return f"{name} is not what was written"
  return ""


def of_file(path: str | Path) -> str:
  """The SHA-256 of a file, in hexadecimal digits."""
  with open(path, "rb") as file:
    return hashlib.file_digest(file, "sha256").hexdigest()


def _read(directory):
  """Name -> checksum; or in words what is wrong with the file of these."""
  try:
    data = (directory / NAME).read_bytes()
  except OSError:
    return f"{NAME} is missing"
  lines, _, last = data.rpartition(b"# ")
  if last != hashlib.sha256(lines).hexdigest().encode() + b"\n":
    return f"{NAME} is not what was written"
  rows = [line.split("  ", 1) for line in lines.decode().splitlines()]
  return {name: found for found, name in rows}


def _names(directory):
  """The files below a directory, relative to it."""
  found = (p for p in directory.rglob("*") if p.is_file())
  return sorted(str(p.relative_to(directory)) for p in found)


def _of_all(directory, names):
  """The checksum of each file, None for one that cannot be read.

  Each host reads its share of them.
  """

  def one(name):
    try:
      return of_file(directory / name)
    except OSError:
      return None

  with ThreadPoolExecutor(4) as threads:
    return hosts.gather(list(threads.map(one, hosts.share(names))))
