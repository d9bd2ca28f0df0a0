"""Run experiments: the launcher, its plan, sweeps."""

import signal
import sys

if sys.argv[:1] == ["-m"] and signal.getsignal(signal.SIGINT) != signal.SIG_IGN:
  # One of these programs starts: until it answers Ctrl-C itself, that ends the
  # process without the traceback of an import.
  signal.signal(signal.SIGINT, signal.SIG_DFL)
