"""A simulated experiment on a known image, a CT scan or a named problem: measure it, reconstruct it by several methods,
score them.

What sample.py shows and studies/head_ct.py tabulates, as functions of one frozen config.
"""

from padis_jax.runs.case import Scene, image_key, load_scene, missing_default
from padis_jax.runs.config import (
    DEFAULT_IMAGE,
    DEFAULT_WEIGHTS,
    Experiment,
    ImageConfig,
    ScanConfig,
    SolverConfig,
    TVConfig,
)
from padis_jax.runs.defaults import solver_defaults, with_problem_defaults
from padis_jax.runs.score import Row, score, score_mask, timed
from padis_jax.runs.solve import (
    build_prior,
    evaluations,
    make_prior,
    patch_batch,
    run_samples,
    run_solver,
    run_tv,
    solver_settings,
)

__all__ = [
    "DEFAULT_IMAGE",
    "DEFAULT_WEIGHTS",
    "Experiment",
    "ImageConfig",
    "Row",
    "ScanConfig",
    "Scene",
    "SolverConfig",
    "TVConfig",
    "build_prior",
    "evaluations",
    "image_key",
    "load_scene",
    "make_prior",
    "missing_default",
    "patch_batch",
    "run_samples",
    "run_solver",
    "run_tv",
    "score",
    "score_mask",
    "solver_settings",
    "solver_defaults",
    "timed",
    "with_problem_defaults",
]
