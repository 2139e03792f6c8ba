"""Names that config files of users import: `padis_jax.runs.config` as it was called before."""

from padis_jax.runs.config import Experiment, ImageConfig, ScanConfig, TVConfig
from padis_jax.runs.solver_config import SolverConfig

__all__ = ["Experiment", "ImageConfig", "ScanConfig", "SolverConfig", "TVConfig"]
