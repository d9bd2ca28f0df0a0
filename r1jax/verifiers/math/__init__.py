"""Verifier of mathematics: reading an answer and comparing it."""
