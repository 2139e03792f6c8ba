"""Where the voxels of a cone beam's volume lie: its shape, the side of a pixel, the distance of slices."""

from __future__ import annotations

import itertools
from typing import NamedTuple

import numpy as np

from padis_jax.errors import UserError
from padis_jax.measurements.cone_geometry import ConeScan
from padis_jax.measurements.scaled import pixel_of
from padis_jax.runs.config import Experiment
from padis_jax.weights import Weights


class Grid(NamedTuple):
    """Voxels of a volume.

    Attributes:
      shape: (D, H, W).
      pixel_mm: side of a voxel in its slice.
      slice_mm: distance of two slices.
      notes: what a user should know of the choice.
    """

    shape: tuple[int, int, int]
    pixel_mm: float
    slice_mm: float
    notes: tuple[str, ...] = ()


def grid_of(config: Experiment, geometry: ConeScan, weights: Weights) -> Grid:
    """The voxels that the config names; pixels that fit the field of view, and cubes, where it does not.

    Args:
      config: of the run.
      geometry: of the scan.
      weights: whose frame says which slices the prior knows.

    Raises:
      UserError: for a missing shape, slices that the weights do not know, and a size that the scan does not tell.
    """
    plane = weights.frame.image_shape if config.volume.shape is None else config.volume.shape[1:]
    pixel = pixel_of(config.measurement, geometry, plane)
    if not pixel > 0:
        raise UserError(
            f"{config.measurement.geometry}: no place is seen by every view of this detector: correct its offset, or "
            "give --measurement.pixel-mm"
        )
    between = config.volume.slice_mm or pixel
    if config.volume.shape is None:
        rows, columns = plane
        depth = max(1, int(geometry.height_mm / between))
        raise UserError(
            f"{config.measurement.geometry}: a cone beam's volume needs a shape, slices, rows and columns: give "
            f"--volume.shape, such as {depth} {rows} {columns}, which the detector sees"
        )
    _check_plane(config, config.volume.shape, weights)
    notes = []
    if not config.volume.slice_mm:
        notes.append(f"slices are taken to be {between:g} mm apart, as pixels are; --volume.slice-mm says otherwise")
    if missed := geometry.note(config.volume.shape, pixel, between):
        notes.append(missed)
    return Grid(config.volume.shape, pixel, between, tuple(notes))


def _check_plane(config: Experiment, shape: tuple[int, int, int], weights: Weights) -> None:
    """Refuses slices of another size than the weights know, with the order of axes that fits."""
    depth, height, width = shape
    if weights.frame_for((height, width)) is not None or config.new_frame:
        return
    rows, columns = weights.frame.image_shape
    fits = [order for order in itertools.permutations(shape) if order[1:] == (rows, columns)]
    remedy = (
        f"read as {' '.join(map(str, fits[0]))} it fits"
        if fits
        else f"give {depth} {rows} {columns}, weights without positions, which serve any size, or --new-frame"
    )
    raise UserError(
        f"--volume.shape {depth} {height} {width}: read as slices, rows and columns its slices are {height} x {width}, "
        f"but {config.weights} knows slices of {rows} x {columns}; {remedy}"
    )


def check_spacing(path: str, spacing: tuple[float, float, float] | None, config: Experiment) -> tuple[float, float]:
    """(side of a pixel, distance of slices) of a volume from a file, which flags may tell instead.

    Raises:
      UserError: where neither tells, or pixels are not square.
    """
    own = 0.0 if config.measurement.path else config.scan.pixel_mm  # rows of a scan have that of the scan
    pixel = own or (spacing[2] if spacing else 0.0)
    between = config.volume.slice_mm or (spacing[0] if spacing else 0.0)
    for name, value, flag in (("wide its pixels", pixel, "--scan.pixel-mm"), ("far apart its slices", between,
                              "--volume.slice-mm")):  # fmt: skip
        if not value > 0:
            raise UserError(f"{path}: does not tell how {name} are: give {flag}")
    if spacing and not own and not np.isclose(spacing[1], spacing[2], rtol=1e-3):
        raise UserError(
            f"{path}: its pixels are {spacing[1]:g} mm high and {spacing[2]:g} mm wide, and those of a volume are "
            "square: resample it, or give --scan.pixel-mm"
        )
    return float(pixel), float(between)
