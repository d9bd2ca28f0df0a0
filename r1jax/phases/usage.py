"""Memory that the process and its devices have used at most."""

import resource

import jax


def memory() -> dict[str, float]:
  """The most memory used so far, in GiB.

  Returns:
    dict of "host_memory_gib", of this process; and "device_memory_gib", of the
    fullest of its devices, where they tell it. CPUs do not.
  """
  # In kibibytes, on Linux.
  peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
  found = {"host_memory_gib": peak / 2**20}
  stats = [device.memory_stats() or {} for device in jax.local_devices()]
  peaks = [s["peak_bytes_in_use"] for s in stats if "peak_bytes_in_use" in s]
  if peaks:
    found["device_memory_gib"] = max(peaks) / 2**30
  return found
