"""Patch-based diffusion priors for inverse problems (PaDIS, arXiv 2406.02462) in JAX."""

__version__ = "0.1.0"
