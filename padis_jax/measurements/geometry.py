"""The geometry of a measured scan as a file: our JSON (docs/geometry.md), or a geometry dictionary of ASTRA.

Lengths are in mm; the file states whether angles are in degrees or radians. The conventions are those of `ParallelBeam`
and `FanBeam`, which are ASTRA's: in view t bins lie along (cos t, sin t), the source is at d (sin t, -cos t).
"""

from __future__ import annotations

import dataclasses
import math
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np

from padis_jax.errors import UserError, cut
from padis_jax.fields import check_length
from padis_jax.files import read_text, write_json
from padis_jax.measurements.angles import ANGLES, check_angles
from padis_jax.operators.shares import full_turn
from padis_jax.operators.tomography import FanBeam, ParallelBeam, RayTransform
from padis_jax.serialization import MAX_TEXT, from_json, parse_json


@dataclasses.dataclass(frozen=True)
class ScanGeometry:
    """A scan with a flat detector, lengths in mm.

    Attributes:
      beam: "parallel" or "fan".
      angles: of the views, in `angle_unit`.
      angle_unit: "degrees" or "radians".
      bins: detector bins per view.
      spacing_mm: distance of two bins, on the detector.
      offset_mm: u of the detector's centre; 0 if the rotation axis is seen in the middle of the detector.
      source_distance_mm: from the source to the rotation axis; fan only.
      detector_distance_mm: from the rotation axis to the detector; fan only.
    """

    beam: Literal["parallel", "fan"]
    angles: tuple[float, ...]
    angle_unit: Literal["degrees", "radians"]
    bins: int
    spacing_mm: float
    offset_mm: float = 0.0
    source_distance_mm: float = 0.0
    detector_distance_mm: float = 0.0

    def __post_init__(self) -> None:
        if not self.angles:
            raise ValueError("angles: at least one is needed")
        check_angles(self.angles)
        if self.bins < 1 or not 0 < self.spacing_mm < math.inf:
            raise ValueError(f"bins {self.bins} and spacing_mm {self.spacing_mm} must be positive")
        if not math.isfinite(self.offset_mm):
            raise ValueError(f"offset_mm is {self.offset_mm}, expected a length")
        d, e = self.source_distance_mm, self.detector_distance_mm
        check_length("spacing_mm", self.spacing_mm, 1e-9)
        for name in ("offset_mm", "source_distance_mm", "detector_distance_mm"):
            check_length(name, getattr(self, name))
        if self.beam == "fan" and not (0 < d < math.inf and 0 <= e < math.inf):
            raise ValueError(f"a fan beam needs source_distance_mm and detector_distance_mm, got {d} and {e}")
        if self.beam == "parallel" and (d or e):
            raise ValueError("a parallel beam has no source_distance_mm and detector_distance_mm; leave them out")

    @property
    def radians(self) -> np.ndarray:
        """The angles, [views]."""
        return np.radians(self.angles) if self.angle_unit == "degrees" else np.asarray(self.angles, np.float64)

    @property
    def magnification(self) -> float:
        """Of the rotation axis on the detector: 1 for a parallel beam."""
        return 1.0 if self.beam == "parallel" else 1.0 + self.detector_distance_mm / self.source_distance_mm

    @property
    def field_mm(self) -> float:
        """Side of the square around the disc that every view sees whole; on a full turn, whose views complete each
        other, the disc that half of them see to its edge."""
        width, beside = self.bins * self.spacing_mm / 2, abs(self.offset_mm)
        half = max(0.0, width - beside)
        if half and full_turn(tuple(self.radians)):
            half = width + beside
        if self.beam == "parallel":
            return 2 * half
        d = self.source_distance_mm
        return 2 * d * half / math.hypot(half, d + self.detector_distance_mm)

    @property
    def _nearest_mm(self) -> float:
        """From the rotation axis to the nearest ray."""
        u = float(np.abs((np.arange(self.bins) - (self.bins - 1) / 2) * self.spacing_mm + self.offset_mm).min())
        if self.beam == "parallel":
            return u
        return self.source_distance_mm * u / math.hypot(u, self.source_distance_mm + self.detector_distance_mm)

    def operator(self, image_shape: tuple[int, int], pixel_mm: float) -> RayTransform:
        """The scan of an image with pixels of `pixel_mm`, in pixels: line integrals are image value times pixels.

        Raises:
          UserError: if the image reaches beyond the source, no ray meets it, or the pixels have no size, as where
            `field_mm` is 0.
        """
        if not pixel_mm:
            raise UserError(
                f"geometry: with offset_mm {self.offset_mm:g}, no place is seen by every view of {self.bins} bins of "
                f"{self.spacing_mm:g} mm: correct it, or give --measurement.pixel-mm"
            )
        if not 0 < pixel_mm < math.inf:
            raise UserError(f"geometry: a pixel size of {pixel_mm} mm must be positive; give --measurement.pixel-mm")
        if self._nearest_mm > (math.hypot(*image_shape) / 2 + 1) * pixel_mm:
            raise UserError(
                f"geometry: no ray meets the image, whose pixels are {pixel_mm:g} mm wide; the nearest passes its "
                f"middle at {self._nearest_mm:g} mm: correct offset_mm, or give --measurement.pixel-mm"
            )
        about: dict[str, Any] = {
            "image_shape": image_shape,
            "angles": self.radians,
            "detector_count": self.bins,
            "detector_spacing": self.spacing_mm / pixel_mm,
            "detector_offset": self.offset_mm / pixel_mm,
        }
        if self.beam == "fan":
            about["source_distance"] = self.source_distance_mm / pixel_mm
            about["detector_distance"] = self.detector_distance_mm / pixel_mm
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of degrees: `unit_note` names the file, and a check tries both
                return (ParallelBeam if self.beam == "parallel" else FanBeam)(**about)
        except ValueError as error:
            raise UserError(f"geometry: {error}") from error


def read_geometry(
    path: str | Path, *, angles: tuple[float, ...] | None = None, angle_unit: str = "degrees"
) -> ScanGeometry:
    """Reads a geometry file.

    Args:
      path: JSON, of the fields of `ScanGeometry`, or an ASTRA geometry dictionary with its arrays as lists.
      angles: those in the sinogram's file, for a geometry file that has none.
      angle_unit: of `angles`; "" for that of the geometry file.

    Raises:
      UserError: naming the file and the field.
    """
    try:
        text = read_text(path, 4 * MAX_TEXT)
    except OSError as error:
        raise UserError(f"{path}: the geometry cannot be read ({error.strerror or error})") from error
    except UserError:
        raise
    except ValueError as error:  # no UTF-8, or no path
        raise UserError(f"{path}: the geometry is not JSON: {cut(error)}") from error
    value = parse_json(text, f"{path}: the geometry")
    if not isinstance(value, Mapping):
        raise UserError(
            f"{path}: the geometry is a {type(value).__name__}, expected an object; docs/geometry.md lists its fields"
        )
    try:
        if value.get("beam") == "cone":
            raise ValueError("beam is 'cone': this is the geometry of a volume, and a slice is asked for")
        if "type" in value and "beam" not in value:
            return from_astra(value)
        if "angles" not in value:
            value = {**value, **_beside(value, angles, angle_unit)}
        return from_json(ScanGeometry, value, "geometry")
    except (ValueError, OverflowError) as error:
        raise UserError(f"{path}: {cut(error)}") from error


def _beside(value: Mapping[str, Any], angles: tuple[float, ...] | None, unit: str) -> dict[str, Any]:
    """The angles in the sinogram's file, as fields of the geometry."""
    if angles is None:
        names = ", ".join(ANGLES)
        raise ValueError(f"it has no `angles`, and beside the sinogram none of {names} or parameters/angles was found")
    if not unit and "angle_unit" not in value:
        raise ValueError('the sinogram\'s file does not tell the unit of its angles: add "angle_unit" to the geometry')
    return {"angles": angles, "angle_unit": unit or value["angle_unit"]}


def write_geometry(path: str | Path, geometry: Any) -> None:
    """Writes a geometry file of a `ScanGeometry` or a `ConeScan`, atomically."""
    write_json(path, geometry)


def from_astra(geometry: Mapping[str, Any], *, mm_per_unit: float = 1.0) -> ScanGeometry:
    """The scan of an ASTRA projection geometry: parallel, fanflat, parallel_vec or fanflat_vec.

    Args:
      geometry: the dictionary of `astra.create_proj_geom`; arrays may be lists.
      mm_per_unit: ASTRA knows no unit of length; without this its numbers are taken as mm.

    Raises:
      ValueError: for another type, a missing field, or vectors of a scan that is not a regular turn around the origin.
    """
    kind = geometry.get("type")
    if kind not in ("parallel", "fanflat", "parallel_vec", "fanflat_vec"):
        raise ValueError(f"ASTRA geometry: type {str(kind)[:40]!r}; use parallel, fanflat or their _vec forms")
    bins = astra_number(geometry, "DetectorCount")
    if bins != int(bins):
        raise ValueError(f"ASTRA geometry: DetectorCount is {bins}, expected a whole number")
    if kind.endswith("_vec"):
        about = _from_vectors(astra_numbers(geometry, "Vectors", 2), fan=kind == "fanflat_vec")
    else:
        about = {
            "angles": astra_numbers(geometry, "ProjectionAngles", 1),
            "spacing_mm": astra_number(geometry, "DetectorWidth"),
        }
        if kind == "fanflat":
            about["source_distance_mm"] = astra_number(geometry, "DistanceOriginSource")
            about["detector_distance_mm"] = astra_number(geometry, "DistanceOriginDetector")
    angles = tuple(float(a) for a in about.pop("angles"))
    lengths = {name: float(value) * mm_per_unit for name, value in about.items()}
    beam: Literal["parallel", "fan"] = "fan" if kind.startswith("fan") else "parallel"
    return ScanGeometry(beam=beam, angles=angles, angle_unit="radians", bins=int(bins), **lengths)


def _from_vectors(vectors: np.ndarray, *, fan: bool) -> dict[str, Any]:
    """Angles and lengths of rows (source or ray direction, detector centre, step between bins), each two numbers."""
    if vectors.shape[1] != 6 or not len(vectors):
        raise ValueError(f"ASTRA geometry: Vectors has shape {vectors.shape}, expected [views, 6]")
    first, centre, step = vectors[:, :2], vectors[:, 2:4], vectors[:, 4:]
    spacing = np.hypot(*step.T)
    if not (spacing > 0).all():
        raise ValueError("ASTRA geometry: Vectors has a detector step of length 0")
    along = step / spacing[:, None]
    across = np.stack([-along[:, 1], along[:, 0]], 1)  # from the source to the detector
    if not fan:
        first = first / np.maximum(np.hypot(*first.T), 1e-30)[:, None]
    values = {
        "spacing_mm": spacing,
        "offset_mm": (centre * along).sum(1),
        "source_distance_mm": -(first * across).sum(1),
        "detector_distance_mm": (centre * across).sum(1),
        "the source's offset": (first * along).sum(1),
    }
    scale = spacing.mean()
    for name, value in values.items():
        if name == "detector_distance_mm" and not fan:
            continue  # where a parallel ray ends does not matter
        if np.ptp(value) > 1e-4 * max(scale, np.abs(value).max()):
            raise ValueError(f"ASTRA geometry: {name.removesuffix('_mm')} changes with the view: not supported")
    if abs(values["the source's offset"].mean()) > 1e-4 * (scale if fan else 1.0):
        raise ValueError("ASTRA geometry: source, rotation axis and detector normal are not in line; not supported")
    if fan and values["source_distance_mm"].mean() <= 0:
        raise ValueError("ASTRA geometry: the bins run in the opposite direction; reverse them in data and Vectors")
    about: dict[str, Any] = {"angles": np.unwrap(np.arctan2(along[:, 1], along[:, 0]))}
    names = ("spacing_mm", "offset_mm", "source_distance_mm", "detector_distance_mm")[: 4 if fan else 2]
    return about | {name: values[name].mean() for name in names}


def astra_number(geometry: Mapping[str, Any], name: str) -> float:
    """A field of an ASTRA geometry; ValueError unless it is a number."""
    value = geometry.get(name)
    number = float(value) if isinstance(value, (int, float, np.number)) and not isinstance(value, bool) else math.nan
    if not abs(number) < 1e12:
        raise ValueError(f"ASTRA geometry: {name} is {str(value)[:40]!r}, expected a number")
    return number


def astra_numbers(geometry: Mapping[str, Any], name: str, axes: int) -> np.ndarray:
    """A list of an ASTRA geometry, or a list of lists; ValueError unless all of it are finite numbers."""
    try:
        found = np.asarray(geometry.get(name), np.float64)
    except (ValueError, TypeError, OverflowError) as error:
        raise ValueError(f"ASTRA geometry: {name} is not a list of numbers") from error
    if found.ndim != axes or not np.isfinite(found).all():
        raise ValueError(f"ASTRA geometry: {name} has shape {found.shape}, expected {axes} axes of finite numbers")
    return found
