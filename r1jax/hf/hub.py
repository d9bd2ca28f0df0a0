"""From a directory or a hub id to a directory."""

import re
from pathlib import Path

from r1jax.errors import UserError

# What a model's shape and tokenizer need.
SMALL = ("*.json", "*.jinja")
# Weights in other formats are the bulk of many repositories.
PATTERNS = (*SMALL, "*.safetensors", "*.gguf")


def directory(name: str | Path, weights: bool = True) -> Path:
  """The directory of a model.

  Args:
    name: a directory, or an id ("Qwen/Qwen2.5-Math-1.5B"), which is fetched
      to the cache of `huggingface_hub`.
    weights: whether the weights are fetched too.

  Raises:
    UserError: it is neither, or the hub cannot be reached.
  """
  path = Path(name).expanduser()
  if path.is_dir():
    return path
  if not re.fullmatch(r"[\w.-]+/[\w.-]+", str(name)):
    raise UserError(
      f"{name}: there is no such directory; `python -m tools.get_smollm2"
      " --out=DIR` fetches a model without a hub"
    )
  import huggingface_hub
  from huggingface_hub import errors

  try:
    return Path(
      huggingface_hub.snapshot_download(
        str(name), allow_patterns=list(PATTERNS if weights else SMALL)
      )
    )
  except errors.RepositoryNotFoundError:
    raise UserError(
      f"{name} is neither a directory nor a model of the hub"
    ) from None
  except Exception as e:  # each transport raises its own
    reason = next(iter(str(e).splitlines()), "") or type(e).__name__
    raise UserError(
      f"{name} is no directory, and the hub cannot be reached"
      f" ({type(e).__name__}: {reason[:120]}); fetch it elsewhere and name its"
      " directory"
    ) from None
