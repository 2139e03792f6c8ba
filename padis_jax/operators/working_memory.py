"""Bytes that operators on volumes need, by their shapes alone: before anything is built."""

from __future__ import annotations

import math
from typing import NamedTuple

from padis_jax.operators.cone_rays import PLANES, chunk_of
from padis_jax.operators.joseph import LANES, side

BYTES = 4  # of a float32
TABLES = 8  # numbers for each ray of a chunk: its line, and sums


class WorkingMemory(NamedTuple):
    """Bytes in use at the peak of a call, what goes in and comes out included."""

    forward: int
    transpose: int


def working_memory(volume_shape: tuple[int, ...], measurement_shape: tuple[int, ...]) -> WorkingMemory:
    """Of a cone beam, [D, H, W] -> [views, rows, columns], whose main axes are those of rows and columns.

    A projection holds the volume, cut into planes both ways with a frame around them, a few numbers for each ray of a
    chunk of views, and the measurement; the transpose what it gives, and the volume twice, filled up to strips, or
    three times where that takes filling. Slices that are projected one by one need less.
    """
    (depth, *plane), (views, *detector) = volume_shape, measurement_shape
    across, volume, rays = side(tuple(plane)), math.prod(volume_shape), math.prod(measurement_shape)
    lines = -(-across // PLANES) * PLANES
    planes = 2 * lines * (depth + 4) * (across + 4)
    chunk = chunk_of(views, (detector[0], detector[1])) * math.prod(detector)
    strips = depth * plane[0] * -(-plane[1] // LANES) * LANES
    return WorkingMemory(
        BYTES * (volume + planes + rays + TABLES * chunk),
        BYTES * (volume + rays + (3 if plane[1] % LANES else 2) * strips + TABLES * math.prod(detector)),
    )
