"""Installs r1jax; pyproject.toml holds the metadata and the dependencies."""

from setuptools import setup

setup()
