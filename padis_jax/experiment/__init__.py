"""Names that a config file of sample.py imports: docs/settings.md."""

from padis_jax.runs.config import Experiment
from padis_jax.runs.image_config import ImageConfig
from padis_jax.runs.scan_config import ScanConfig
from padis_jax.runs.solver_config import SolverConfig
from padis_jax.runs.tv_config import TVConfig

__all__ = ["Experiment", "ImageConfig", "ScanConfig", "SolverConfig", "TVConfig"]
