"""Run experiments: the launcher, its plan, sweeps."""
