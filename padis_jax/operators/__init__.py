"""Forward models: linear maps from an image to a measurement, with their transposes."""

from __future__ import annotations

from padis_jax.operators.algebra import Composition, Scaled
from padis_jax.operators.blur import Blur, Convolution, gaussian_kernel, motion_kernel, uniform_kernel
from padis_jax.operators.cone import ConeBeam, ConeTransform
from padis_jax.operators.fbp import fbp
from padis_jax.operators.fdk import fdk
from padis_jax.operators.free_form import free_form_mask
from padis_jax.operators.kept import forget
from padis_jax.operators.least_squares import conjugate_gradient
from padis_jax.operators.linear import LinearOperator, Operator, dot_test, from_functions
from padis_jax.operators.mask import Identity, Inpaint, Masking, Unchanged, box_mask, random_mask, stroke_mask
from padis_jax.operators.norm import operator_norm
from padis_jax.operators.resample import Downsample, Resampling
from padis_jax.operators.slices import SliceTransform
from padis_jax.operators.stack import Stack, stack
from padis_jax.operators.tomography import FanBeam, ParallelBeam, RayTransform

__all__ = [
    "Blur",
    "Composition",
    "ConeBeam",
    "ConeTransform",
    "Convolution",
    "Downsample",
    "FanBeam",
    "Identity",
    "Inpaint",
    "LinearOperator",
    "Masking",
    "Operator",
    "ParallelBeam",
    "RayTransform",
    "Resampling",
    "Scaled",
    "SliceTransform",
    "Stack",
    "Unchanged",
    "box_mask",
    "conjugate_gradient",
    "dot_test",
    "fbp",
    "fdk",
    "forget",
    "free_form_mask",
    "from_functions",
    "gaussian_kernel",
    "motion_kernel",
    "operator_norm",
    "random_mask",
    "stack",
    "stroke_mask",
    "uniform_kernel",
]
