"""The angles of a scan's views: under which names they lie in files, what they cannot be, and what looks wrong."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from padis_jax.operators.scan_checks import MANY

FEW = 8  # views, of which a span can tell more
# Names under which angles lie beside a sinogram, and their unit where the name tells it.
ANGLES = {
    "angles_degrees": "degrees",
    "angles_deg": "degrees",
    "angles_radians": "radians",
    "angles_rad": "radians",
    "theta": "",
    "angles": "",
}


def check_angles(angles: tuple[float, ...]) -> None:
    """ValueError unless they are finite, and not all the same."""
    if not all(map(math.isfinite, angles)):
        raise ValueError("angles: all must be finite")
    if len(angles) > 1 and len(set(angles)) == 1:
        raise ValueError(f"angles: all {len(angles)} are {angles[0]:g}: give one for each view")


def unit_note(angles: tuple[float, ...], unit: str) -> str:
    """A note where the angles look as if they were in the other unit, or ""."""
    span = float(np.ptp(angles)) if angles else 0.0
    if unit == "degrees" and 2 < span < 6.3 and len(angles) >= FEW:
        return f"the angles span {span:.3g} degrees only: are they radians?"
    if unit == "radians" and span > MANY:
        return f"the angles span {span:.4g} radians: are they degrees?"
    return ""


def other_note(geometry: Any, angles: tuple[float, ...] | None, unit: str) -> str:
    """A note where the angles [views] beside a sinogram are not those of its `ScanGeometry` or `ConeScan`, or ""."""
    if angles is None or not geometry.angles:
        return ""
    of_file, used = (
        np.radians(values) if told == "degrees" else np.asarray(values)
        for values, told in ((angles, unit or geometry.angle_unit), (geometry.angles, geometry.angle_unit))
    )
    if of_file.shape == used.shape and np.allclose(of_file, used, atol=1e-4):
        return ""
    return (
        f"the angles of the geometry file are used, {len(used)} from {geometry.angles[0]:g} to {geometry.angles[-1]:g} "
        f"{geometry.angle_unit}; beside the sinogram are {len(angles)} others, from {angles[0]:g} to {angles[-1]:g}"
    )
