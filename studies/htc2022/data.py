"""Real fan-beam measurements: acrylic discs with holes, of the Helsinki Tomography Challenge 2022.

The data (University of Helsinki, Zenodo record 8041800) are not part of this project; the functions here read a .npz
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

_ARC = re.compile(r"([A-Za-z0-9]+)_(\d+)_(\d+)")


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
        match = _ARC.fullmatch(name)
        sinogram, degrees = arrays[f"{name}/sinogram"], arrays.get(f"{name}/angles_degrees")
        if match is None or degrees is None:
            raise UserError(f"{path}: {name} should be called PHANTOM_FROM_TO and have `{name}/angles_degrees`")
        if degrees.ndim != 1 or sinogram.shape != (len(degrees), BINS):
            raise UserError(
                f"{path}: `{name}/sinogram` has shape {sinogram.shape} for angles {degrees.shape}, not views x {BINS}"
            )
        if not (np.isfinite(sinogram).all() and np.isfinite(degrees).all()):
            raise UserError(f"{path}: {name} holds numbers that are not finite; fetch the file again")
        scans.setdefault(match[1], []).append(Arc(name, np.deg2rad(degrees), sinogram.astype(np.float32)))
    if not scans:
        raise UserError(f"{path}: holds no scan PHANTOM_FROM_TO/sinogram")
    phantoms = {}
    for name, arcs in scans.items():
        truth = arrays.get(f"{name}/truth")
        if truth is None or truth.shape != (TRUTH_SIDE, TRUTH_SIDE):
            raise UserError(f"{path}: `{name}/truth` is missing or not {TRUTH_SIDE} x {TRUTH_SIDE}")
        phantoms[name] = Phantom(tuple(sorted(arcs, key=lambda arc: arc.degrees)), truth > 0)
    return phantoms


def join(arcs: Sequence[Arc], name: str = "joined") -> Arc:
    """All views of several arcs in order; where arcs overlap, that of the first arc only."""
    views: dict[float, tuple[float, np.ndarray]] = {}
    if len({arc.shift for arc in arcs}) > 1:
        raise UserError(f"{name}: the detector of {', '.join(arc.name for arc in arcs)} is not shifted alike")
    for arc in arcs:
        for angle, row in zip(arc.angles, arc.sinogram, strict=True):
            views.setdefault(round(float(np.rad2deg(angle)) % 360, 3), (float(angle), row))
    chosen = [views[key] for key in sorted(views)]
    return Arc(name, np.asarray([angle for angle, _ in chosen]), np.stack([row for _, row in chosen]), arcs[0].shift)


def draw_views(arc: Arc, count: int) -> Arc:
    """`count` of the views, as evenly spaced in their order as possible, the first one among them."""
    if not 1 <= count <= len(arc.angles):
        raise UserError(f"{arc.name}: cannot draw {count} of {len(arc.angles)} views")
    chosen = (np.arange(count) * len(arc.angles)) // count
    return Arc(f"{arc.name}, {count} views", arc.angles[chosen], arc.sinogram[chosen], arc.shift)


def bin_detector(arc: Arc, by: int) -> Arc:
    """Every `by` neighbouring bins replaced by their mean; `by` divides 560."""
    if by < 1 or BINS % by:
        raise UserError(f"{arc.name}: {BINS} bins cannot be joined by {by}")
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
        pixel_size=TRUTH_PIXEL_MM * TRUTH_SIDE / side,
    )
