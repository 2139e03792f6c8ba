"""What no scan can have, refused in one line."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jax import Array

from padis_jax.operators.per_channel import checked_size, real, whole

TURNED = 1e6  # radians
MANY = 90.0  # radians that a scan seldom spans, and degrees often
WIDEST, FARTHEST = 1e4, 1e12  # of pixels and offsets, and of distances, in bins: tables grow with the first


def checked_angles(name: str, angles: Sequence[float] | np.ndarray | Array) -> np.ndarray:
    """[views] in float64; ValueError for what is no list of finite angles."""
    theta = np.asarray(angles)
    if theta.ndim != 1 or theta.size == 0 or theta.dtype.kind not in "biuf" or not (np.abs(theta) <= TURNED).all():
        raise ValueError(
            f"{name}: angles must be a non-empty list of radians of at most {TURNED:g}, got {theta.dtype}{theta.shape}"
        )
    return theta.astype(np.float64)


def warn_of_degrees(name: str, angles: Sequence[float] | np.ndarray | Array) -> None:
    """A warning, at the line that called the factory, where angles in radians span what angles in degrees do."""
    span = float(np.ptp(np.asarray(angles, np.float64)))
    if span > MANY:
        warnings.warn(
            f"{name}: the angles span {span:.4g} radians: are they degrees? Then give np.radians(angles)", stacklevel=3
        )


def check_numbers(name: str, lengths: Mapping[str, Any], places: Mapping[str, Any]) -> None:
    """ValueError unless all are numbers, lengths positive, and places finite.

    Args:
      name: of the scan's factory.
      lengths: by the names of its arguments.
      places: likewise.
    """
    for field, length in (*lengths.items(), *places.items()):
        if not real(length):
            raise ValueError(f"{name}: {field} is {length!r}: it must be a number")
    for field, length in lengths.items():
        if not (np.isfinite(length) and length > 0):
            raise ValueError(f"{name}: {field} must be positive, got {length}")
    for field, length in places.items():
        if not np.isfinite(length):
            raise ValueError(f"{name}: {field} must be finite, got {length}")


def check_sizes(name: str, sizes: Mapping[str, float], unit: float, of: str = "detector_spacing") -> None:
    """ValueError unless all are of a size that tables and float32 can hold beside the unit, which is called `of`."""
    for field, length in sizes.items():
        most = FARTHEST if field.endswith("distance") else WIDEST
        if abs(length) / unit > most or 0 < length < unit / FARTHEST:
            raise ValueError(
                f"{name}: {field} is {length:g} and {of} {unit:g}: one is too large beside the other "
                f"(more than {most:g} or less than {1 / FARTHEST:g} times); are both in one unit?"
            )


def checked_scan(
    name: str,
    image_shape: Sequence[int],
    angles: Sequence[float] | np.ndarray | Array,
    detector_count: int,
    lengths: Mapping[str, float],
    offsets: Mapping[str, float],
) -> dict[str, Any]:
    """The fields of a geometry; ValueError for what no scan can have."""
    theta = checked_angles(name, angles)
    shape = checked_size(name, image_shape)
    if not whole(detector_count):
        raise ValueError(f"{name}: detector_count must be a positive whole number, got {detector_count}")
    check_numbers(name, lengths, offsets)
    numbers = {field: float(length) for field, length in {**lengths, **offsets}.items()}
    height = numbers["pixel_size"] * numbers["pixel_aspect"]
    sizes = {"the height of a pixel" if field == "pixel_aspect" else field: size for field, size in numbers.items()}
    check_sizes(name, sizes | {"the height of a pixel": height}, numbers["detector_spacing"])
    return {"image_shape": shape, "angles": tuple(theta.tolist()), "detector_count": int(detector_count), **numbers}
