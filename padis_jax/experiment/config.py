"""`padis_jax.runs.config` as it was called before, for config files of users."""

from padis_jax.measurements.load import MeasurementConfig
from padis_jax.runs.config import Experiment
from padis_jax.runs.image_config import ImageConfig
from padis_jax.runs.scan_config import ScanConfig
from padis_jax.runs.solver_config import SolverConfig
from padis_jax.runs.tv_config import TVConfig

__all__ = ["Experiment", "ImageConfig", "MeasurementConfig", "ScanConfig", "SolverConfig", "TVConfig"]
