"""`padis_jax.runs.config` as it was called before, for config files of users."""

from padis_jax.measurements.load import MeasurementConfig
from padis_jax.runs.config import Experiment, ImageConfig, ScanConfig, TVConfig
from padis_jax.runs.solver_config import SolverConfig

__all__ = ["Experiment", "ImageConfig", "MeasurementConfig", "ScanConfig", "SolverConfig", "TVConfig"]
