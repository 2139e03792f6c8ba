"""Forward models: linear maps from an image to a measurement, with their transposes."""

from __future__ import annotations

from padis_jax.operators.fbp import fbp
from padis_jax.operators.linear import (
    LinearOperator,
    Operator,
    conjugate_gradient,
    dot_test,
    from_functions,
    operator_norm,
)
from padis_jax.operators.measurement import Measurement, honest_measurement, paper_measurement
from padis_jax.operators.tomography import FanBeam, ParallelBeam, RayTransform

__all__ = [
    "FanBeam",
    "LinearOperator",
    "Measurement",
    "Operator",
    "ParallelBeam",
    "RayTransform",
    "conjugate_gradient",
    "dot_test",
    "fbp",
    "from_functions",
    "honest_measurement",
    "operator_norm",
    "paper_measurement",
]
