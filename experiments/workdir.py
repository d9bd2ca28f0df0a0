"""The directory of a run: claimed by one launch, and what it was made with.

Each phase writes `keys.json` when it begins: its keys, and a digest of each
phase that it was made from. A config may change whatever would have changed
nothing of what is there.
"""

import contextlib
import dataclasses
import errno
import fcntl
import hashlib
import json
import os
import shlex
import socket

from r1jax import disk, files, hosts
from r1jax.errors import UserError
from r1jax.run import checkpoint, layout
from r1jax.run.logs import say

# What a file system answers that has no locks.
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP)


@contextlib.contextmanager
def claim(workdir, values, phases):
  """Makes a directory ours, and brings it to what a config wants.

  Args:
    workdir: Path of the directory. It is made if it is absent.
    values: the config, nested dicts.
    phases: its phases, as `plan.resolve` returns them.

  Raises:
    UserError: another run is in the directory, it cannot be written, or what
      is there was made with other keys. Nothing is changed then.
  """
  check(workdir, phases)
  hosts.barrier("launch.claim")
  with hosts.entered_on_first(_locked(workdir)):
    # Another launch may have been here in between.
    longer = check(workdir, phases)
    hosts.barrier("launch.checked")
    hosts.on_first(_prepare, workdir, values, phases, longer)
    yield


def record(phase, phases):
  """What `keys.json` holds of a phase.

  Args:
    phase: a dataclass of keys.
    phases: all phases of the config.

  Returns:
    dict: "keys", and "from", which maps names of phases to digests.
  """
  return {
    "keys": json.loads(json.dumps(dataclasses.asdict(phase), default=str)),
    "from": {p.name: _digest(p, phases) for p in _origins(phase, phases)},
  }


def check(workdir, phases):
  """Compares the phases in a directory with those of a config.

  Args:
    workdir: Path of the directory; it may be absent.
    phases: of the config.

  Returns:
    the finished phases that are to go on, since they have more steps now.

  Raises:
    UserError: a phase was made with keys that cannot be changed any more.
  """
  longer, wrong, altered = [], {}, {}
  for phase in phases:
    directory = workdir / phase.name
    finished = (directory / layout.DONE).exists()
    steps = checkpoint.steps(directory / layout.CHECKPOINTS)
    if not steps and not finished and not (directory / layout.KEPT).exists():
      continue  # nothing is kept of it
    there, here = _read(directory / layout.KEYS), record(phase, phases)
    before = there["keys"]
    done = before.get("steps", 0) if finished else max(steps, default=0)
    changed = {
      key: said
      for key, said in differences(before, here["keys"]).items()
      # A later version of the program may have keys that this one had not.
      if "absent there" not in said or not _is_default(phase, key)
    }
    altered[phase.name] = [f"{phase.name}.{said}" for said in changed.values()]
    refused = [k for k in changed if not phase.may_change(k, before, done)]
    origins = [n for n, d in here["from"].items() if there["from"].get(n) != d]
    if refused:
      wrong[phase.name] = [f"{phase.name}.{changed[key]}" for key in refused]
    elif origins:
      wrong[phase.name] = [
        f"{phase.name} was made from {name} as it was before"
        + "".join(f" ({text})" for text in altered.get(name, ()))
        for name in origins
      ]
    elif finished and not all(map(phase.is_free, changed)):
      longer.append(phase)
  if wrong:
    raise UserError(_refusal(workdir, phases, wrong))
  return longer


def differences(there, here):
  """What differs between two nested dicts of JSON values.

  Returns:
    dict from each dotted key that differs to words.
  """
  there, here = dict(_flat(there)), dict(_flat(here))
  return {
    key: f"{key} is {there.get(key, 'absent')} there,"
    f" {here.get(key, 'absent')} here"
    for key in sorted(there.keys() | here.keys())
    if key not in there or key not in here or there[key] != here[key]
  }


@contextlib.contextmanager
def _locked(workdir):
  """Makes a directory and keeps other runs out of it.

  The lock goes with the process, however it ends.

  Raises:
    UserError: another run is in it, or it cannot be written.
  """
  path = workdir / layout.LOCK
  with contextlib.ExitStack() as stack:
    try:
      workdir.mkdir(parents=True, exist_ok=True)
      # Not "w": what the other run wrote there stays.
      lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
      stack.callback(os.close, lock)
      fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
      owner = os.pread(lock, 200, 0).decode(errors="replace").strip()
      raise UserError(
        f"workdir {workdir} is in use by another process"
        f"{owner and f' ({owner})'}; wait for it, or use another --workdir"
      ) from None
    except OSError as e:
      if e.errno not in _NO_LOCKS:
        raise UserError(
          f"workdir {workdir} cannot be written ({e.strerror}); use another"
          " --workdir"
        ) from None
      say(f"{path}: this file system has no locks; start only one run here")
    with contextlib.suppress(OSError):  # a full disk: nobody needs the name
      os.ftruncate(lock, 0)
      os.pwrite(lock, f"{os.getpid()} on {socket.gethostname()}".encode(), 0)
    yield


def _prepare(workdir, values, phases, longer):
  """Brings a directory that is ours to what a config wants.

  Args:
    workdir: Path of the directory.
    values: the config.
    phases: its phases.
    longer: the finished ones that are to go on.
  """
  for phase in phases:
    for place in (
      workdir / phase.name,
      workdir / phase.name / layout.CHECKPOINTS,
    ):
      files.sweep(place)
  files.sweep(workdir / layout.DATA)
  text = json.dumps(values, default=str, indent=1) + "\n"
  path = workdir / layout.CONFIG
  if not path.exists() or path.read_bytes() != text.encode():
    files.write_atomically(path, text)
  for phase in longer:
    with disk.room(workdir):
      (workdir / phase.name / layout.DONE).unlink()


def _refusal(workdir, phases, wrong, most=3):
  """The message for phases that were made with other keys.

  Args:
    workdir: Path of the directory.
    phases: of the config.
    wrong: name of a phase -> what differs, in words.
    most: how many differences are named.
  """
  # A phase that was made from a wrong one has to be made again with it.
  again = set(wrong)
  for phase in phases:
    if any(p.name in again for p in _origins(phase, phases)):
      again.add(phase.name)
  there = [
    shlex.quote(str(workdir / p.name))
    for p in phases
    if p.name in again and (workdir / p.name).exists()
  ]
  said = [text for texts in wrong.values() for text in texts]
  if len(said) > most:
    said[most:] = [f"and {len(said) - most} more"]
  return (
    f"workdir {workdir} was made with another config: {'; '.join(said)}; set"
    " that back, or use another --workdir, or make these phases again: rm -r"
    f" {' '.join(there)}"
  )


def _read(path):
  """The content of a `keys.json`."""
  try:
    found = json.loads(path.read_text())
    return {"keys": dict(found["keys"]), "from": dict(found["from"])}
  except OSError:
    raise UserError(
      f"{path} is missing, so nobody knows what {path.parent} was made with;"
      " use another --workdir, or remove that directory"
    ) from None
  except (ValueError, TypeError, KeyError):
    raise UserError(
      f"{path} is damaged; use another --workdir, or remove {path.parent} to"
      " make it again"
    ) from None


def _origins(phase, phases):
  """The phases whose results a phase uses."""
  names = {phase.init, getattr(phase, "data", ""), *phase.parents.values()}
  return [p for p in phases if p.name in names and p.name != phase.name]


def _digest(phase, phases):
  """A number that tells apart the results that a phase can have."""
  keys = dict(_flat(record(phase, phases)))
  for key in list(keys):
    name = key.removeprefix("keys.")
    if name != key and (phase.is_free(name) or _is_default(phase, name)):
      del keys[key]
  text = json.dumps(keys, sort_keys=True)
  return hashlib.sha256(text.encode()).hexdigest()[:16]


def _is_default(value, key):
  """Whether a dotted key of a dataclass, or a group around it, has its default.

  Args:
    value: a dataclass.
    key: the dotted key.
  """
  name, _, rest = key.partition(".")
  if not dataclasses.is_dataclass(value) or not hasattr(value, name):
    return False
  (field,) = [f for f in dataclasses.fields(value) if f.name == name]
  made = field.default_factory
  default = field.default if made is dataclasses.MISSING else made()
  inner = getattr(value, name)
  return inner == default or bool(rest) and _is_default(inner, rest)


def _flat(tree, prefix=""):
  for key, value in tree.items():
    if isinstance(value, dict) and value:
      yield from _flat(value, f"{prefix}{key}.")
    else:
      yield f"{prefix}{key}", value
