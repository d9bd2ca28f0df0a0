"""Benchmarks: sampler, learner, whole iteration, verifiers."""
