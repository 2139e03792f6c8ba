"""Patch-based diffusion priors for inverse problems (PaDIS, arXiv 2406.02462) in JAX."""

from padis_jax.prior import patch_prior
from padis_jax.solvers.reconstruct import reconstruct
from padis_jax.weights import load_prior

__version__ = "0.1.0"
__all__ = ["load_prior", "patch_prior", "reconstruct"]
