"""Names that config files of users import: `padis_jax.runs.config` as it was called before."""

from padis_jax.runs.config import Experiment, ImageConfig, ScanConfig, SolverConfig, TVConfig

__all__ = ["Experiment", "ImageConfig", "ScanConfig", "SolverConfig", "TVConfig"]
