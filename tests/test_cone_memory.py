"""What a projection needs: as estimated from the shapes, and never a number for each ray and plane."""

import math

import jax
import numpy as np
import pytest

from padis_jax.operators import cone_rays
from padis_jax.operators.cone_geometry import ConeGeometry, circular
from padis_jax.operators.per_channel import leaf
from padis_jax.operators.working_memory import working_memory

VOLUME, DETECTOR, VIEWS = (40, 128, 120), (40, 160), 20


@pytest.mark.parametrize("which", [0, 1], ids=["forward", "transpose"])
def test_the_estimate_is_what_the_compiler_takes(which):
    angles = np.arange(VIEWS) * 2 * np.pi / VIEWS
    vectors = circular(angles, spacing=(1.0, 1.0), source_distance=300.0, detector_distance=100.0)
    geometry = ConeGeometry(VOLUME, DETECTOR, vectors, pixel_size=1.0, slice_spacing=1.0)
    rays = jax.tree.map(leaf, geometry.rays())
    call = (cone_rays._project_plain, cone_rays._backproject_plain)[which]
    shape = (VOLUME, geometry.measurement_shape)[which]
    found = jax.jit(call).lower(rays, jax.ShapeDtypeStruct(shape, np.float32)).compile().memory_analysis()
    taken = found.temp_size_in_bytes + found.argument_size_in_bytes + found.output_size_in_bytes
    estimate = working_memory(VOLUME, geometry.measurement_shape)[which]
    assert 0.9 < taken / estimate < 1.2
    # Half of what a number for each ray and plane would take.
    assert taken < 0.5 * 4 * math.prod(geometry.measurement_shape) * min(VOLUME[1:])
