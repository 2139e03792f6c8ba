"""Real fan-beam measurements: acrylic discs with holes, of the Helsinki Tomography Challenge 2022.

The data (University of Helsinki, Zenodo record 8041800) are not part of this project. The functions here read a .npz
made of them, with, for a phantom P scanned from A to B degrees, `P_A_B/sinogram` [views, 560] (line integrals),
`P_A_B/angles_degrees` [views], and `P/truth` [512, 512], 0 or 1.

Lengths are in mm and attenuations per mm. The angles are those of `FanBeam`, and row 0 of a truth is the top, as there.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from padis_jax.errors import UserError
from padis_jax.operators.tomography import FanBeam, RayTransform

SOURCE_DISTANCE = 410.66
DETECTOR_DISTANCE = 553.74 - 410.66
BINS, BIN_MM = 560, 0.2
TRUTH_SIDE, TRUTH_PIXEL_MM = 512, 0.14832232
FIELD = TRUTH_PIXEL_MM * TRUTH_SIDE  # side of every image


class Arc(NamedTuple):
    """A scan: its name, the angle of every view in radians, the line integrals [views, bins], the detector's shift."""

    name: str
    angles: np.ndarray
    sinogram: np.ndarray
    shift: float = 0.0  # mm, along the bins; known from a calibration

    @property
    def degrees(self) -> float:
        """From the first view to the last."""
        return float(np.rad2deg(np.ptp(self.angles)))


class Phantom(NamedTuple):
    """All scans of one disc, and its segmentation [512, 512], True in the material."""

    arcs: tuple[Arc, ...]
    truth: np.ndarray


def read_htc2022(path: str | Path) -> dict[str, Phantom]:
    """Phantoms by name, their arcs from narrow to wide.

    Raises:
      UserError: a file that is missing or damaged, an array that is missing or of another shape than the module says.
    """
    try:
        with open(path, "rb") as handle, np.load(handle, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file; give the .npz of the Helsinki Tomography Challenge 2022") from error
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, TypeError, AttributeError) as error:
        raise UserError(f"{path}: not a readable .npz of arrays (damaged, or holds objects): {error}") from error
    scans: dict[str, list[Arc]] = {}
    for name in sorted({key.split("/")[0] for key in arrays if key.endswith("/sinogram")}):
        match = re.fullmatch(r"([A-Za-z0-9]+)_(\d+)_(\d+)", name)
        sinogram, degrees = arrays[f"{name}/sinogram"], arrays.get(f"{name}/angles_degrees")
        if match is None or degrees is None:
            raise UserError(f"{path}: {name} should be called PHANTOM_FROM_TO and have `{name}/angles_degrees`")
        if sinogram.shape != (degrees.size, BINS) or not np.isfinite(sinogram).all():
            raise UserError(f"{path}: `{name}/sinogram` should be {degrees.size} x {BINS} finite numbers")
        scans.setdefault(match[1], []).append(Arc(name, np.deg2rad(degrees), sinogram.astype(np.float32)))
    phantoms = {}
    for name, arcs in scans.items():
        truth = arrays.get(f"{name}/truth")
        if truth is None or truth.shape != (TRUTH_SIDE, TRUTH_SIDE):
            raise UserError(f"{path}: `{name}/truth` is missing or not {TRUTH_SIDE} x {TRUTH_SIDE}")
        phantoms[name] = Phantom(tuple(sorted(arcs, key=lambda arc: arc.degrees)), truth > 0)
    return phantoms


def join(arcs: Sequence[Arc], name: str = "joined") -> Arc:
    """All views of several arcs, whose detector is shifted alike, in order; where arcs overlap, those of the first."""
    views: dict[float, tuple[float, np.ndarray]] = {}
    for arc in arcs:
        for angle, row in zip(arc.angles, arc.sinogram, strict=True):
            views.setdefault(round(float(np.rad2deg(angle)) % 360, 3), (float(angle), row))
    chosen = [views[key] for key in sorted(views)]
    return Arc(name, np.asarray([angle for angle, _ in chosen]), np.stack([row for _, row in chosen]), arcs[0].shift)


def draw_views(arc: Arc, count: int) -> Arc:
    """`count` of the views, as evenly spaced in their order as possible, the first one among them."""
    chosen = (np.arange(count) * len(arc.angles)) // count
    return arc._replace(angles=arc.angles[chosen], sinogram=arc.sinogram[chosen])


def bin_detector(arc: Arc, by: int) -> Arc:
    """Every `by` neighbouring bins replaced by their mean; `by` divides 560."""
    return arc._replace(sinogram=arc.sinogram.reshape(len(arc.angles), BINS // by, by).mean(2))


def scanner(arc: Arc, side: int) -> RayTransform:
    """The forward model of an arc, its bins joined or not, for images [side, side] that cover what the truth does."""
    bins = arc.sinogram.shape[1]
    return FanBeam(
        image_shape=(side, side),
        angles=arc.angles,
        source_distance=SOURCE_DISTANCE,
        detector_distance=DETECTOR_DISTANCE,
        detector_count=bins,
        detector_spacing=BIN_MM * BINS / bins,
        detector_offset=arc.shift,
        pixel_size=FIELD / side,
    )
