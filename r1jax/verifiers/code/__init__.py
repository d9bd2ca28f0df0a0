"""Verifier of programs: tests that run in a sandbox."""
