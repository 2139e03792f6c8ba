"""The geometry of a cone-beam scan as a file: our JSON (docs/geometry.md), a dictionary of ASTRA, or an XML of RTK.

Lengths are in mm. The conventions are those of `ConeBeam`: the source of view t is at d (sin t, -cos t, 0), columns
ascend along (cos t, sin t, 0) and rows along z, which is the axis. Views that are placed one by one have the 12 numbers
of ASTRA's cone_vec each.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np

from padis_jax.devices.memory import free_memory
from padis_jax.errors import UserError
from padis_jax.fields import check_length
from padis_jax.measurements.angles import check_angles
from padis_jax.measurements.geometry import ScanGeometry, astra_number, astra_numbers
from padis_jax.operators.cone import ConeBeam, ConeTransform
from padis_jax.operators.cone_geometry import ConeGeometry, circular, seen_from_edge
from padis_jax.operators.working_memory import working_memory

MISSED = 0.01  # fraction of rays beside the detector that is worth a note


@dataclasses.dataclass(frozen=True)
class ConeScan:
    """A cone-beam scan with a flat detector, lengths in mm. Either `angles` and distances are given, or `vectors_mm`.

    Attributes:
      beam: "cone".
      rows: of the detector.
      columns: of the detector.
      angles: of the views of a circular orbit, in `angle_unit`.
      angle_unit: "degrees" or "radians".
      row_spacing_mm: distance of two rows, on the detector.
      column_spacing_mm: distance of two columns.
      row_offset_mm: of the detector's centre along the axis.
      column_offset_mm: of the detector's centre along its columns' order; 0 if the axis is seen in its middle.
      source_distance_mm: from the source to the rotation axis.
      detector_distance_mm: from the rotation axis to the detector.
      vectors_mm: for each view (x, y, z) of source, detector centre, step between columns, step between rows.
    """

    beam: Literal["cone"]
    rows: int
    columns: int
    angles: tuple[float, ...] = ()
    angle_unit: Literal["degrees", "radians"] = "degrees"
    row_spacing_mm: float = 0.0
    column_spacing_mm: float = 0.0
    row_offset_mm: float = 0.0
    column_offset_mm: float = 0.0
    source_distance_mm: float = 0.0
    detector_distance_mm: float = 0.0
    vectors_mm: tuple[tuple[float, ...], ...] = ()

    def __post_init__(self) -> None:
        if self.rows < 1 or self.columns < 1:
            raise ValueError(f"rows {self.rows} and columns {self.columns} must be positive")
        lengths = [f.name for f in dataclasses.fields(self) if f.name.endswith("_mm") and f.name != "vectors_mm"]
        if bool(self.angles) == bool(self.vectors_mm):
            raise ValueError("give angles (of a circular orbit) or vectors_mm (of views that are placed one by one)")
        if self.vectors_mm:
            for view, numbers in enumerate(self.vectors_mm):
                if len(numbers) != 12 or not all(map(math.isfinite, numbers)):
                    raise ValueError(f"vectors_mm[{view}]: expected 12 finite numbers, got {len(numbers)}")
            edge = seen_from_edge(self.placed)
            if edge.any():
                raise ValueError(
                    f"vectors_mm[{int(np.argmax(edge))}]: the detector is seen from its edge; its numbers are (x, y, "
                    "z) of source, detector's centre, step between columns and step between rows"
                )
            if given := [name for name in lengths if getattr(self, name)]:
                raise ValueError(f"vectors_mm say where all is, so leave out {given[0]}")
            return
        check_angles(self.angles)
        for name in lengths:
            value, positive = getattr(self, name), name.startswith(("row_sp", "column_sp", "source"))
            if not math.isfinite(value) or (positive and not value > 0):
                raise ValueError(f"{name} is {value}: it must be {'positive' if positive else 'finite'}")
            check_length(name, value, 1e-9 if positive else 0.0)
        if self.detector_distance_mm < 0:
            raise ValueError(f"detector_distance_mm is {self.detector_distance_mm}: it must not be negative")

    @property
    def measurement_shape(self) -> tuple[int, int, int]:
        """(views, rows, columns)."""
        return len(self.angles) or len(self.vectors_mm), self.rows, self.columns

    @property
    def placed(self) -> np.ndarray:
        """The 12 numbers of all views, [views, 12]."""
        if self.vectors_mm:
            return np.asarray(self.vectors_mm, np.float64)
        flat = circular(
            np.radians(self.angles) if self.angle_unit == "degrees" else np.asarray(self.angles, np.float64),
            spacing=(self.row_spacing_mm, self.column_spacing_mm),
            source_distance=self.source_distance_mm,
            detector_distance=self.detector_distance_mm,
            offset=(self.row_offset_mm, self.column_offset_mm),
        )
        return np.reshape(flat, (-1, 12))

    @property
    def fan(self) -> ScanGeometry | None:
        """The scan in the plane of the orbit; None where the views are no circular orbit about the z axis."""
        found = ConeGeometry((1, 1, 1), (self.rows, self.columns), tuple(self.placed.ravel()), 1.0, 1.0).fan()
        if found is None:
            return None
        fan, _ = found
        d, e = fan.source_distance, fan.detector_distance
        offset = fan.detector_offset - fan.rotation_offset * (d + e) / d
        return ScanGeometry("fan", fan.angles, "radians", self.columns, fan.detector_spacing, offset, d, e)

    @property
    def field_mm(self) -> float:
        """Side of the square around the disc that is seen in the plane of the orbit (`ScanGeometry.field_mm`).

        Raises:
          UserError: where the views are no circular orbit.
        """
        if self.fan is None:
            raise UserError(
                "geometry: the views are no circular orbit about the z axis: give the size of a voxel "
                "(--measurement.pixel-mm)"
            )
        return self.fan.field_mm

    @property
    def height_mm(self) -> float:
        """Height along z of what the detector's rows see at the rotation axis; of an orbit's mean view."""
        source, centre, _, row = np.moveaxis(self.placed.reshape(-1, 4, 3), 1, 0)
        near = np.linalg.norm(source, axis=1) / np.linalg.norm(centre - source, axis=1)
        return float(self.rows * np.mean(np.linalg.norm(row, axis=1) * near))

    def operator(self, volume_shape: tuple[int, int, int], pixel_mm: float, slice_mm: float) -> ConeTransform:
        """The scan of a volume in pixels: line integrals are volume value times pixels.

        Raises:
          UserError: for a missing slice distance, a volume that reaches behind the source or does not fit into memory.
        """
        for name, value in (("pixel size", pixel_mm), ("slice spacing", slice_mm)):
            if not 0 < value < math.inf:
                raise UserError(f"geometry: the {name} is {value} mm: it must be positive")
        check_memory(volume_shape, self.measurement_shape)
        try:
            return ConeBeam(
                volume_shape=volume_shape,
                detector_shape=(self.rows, self.columns),
                slice_spacing=slice_mm / pixel_mm,
                per_view=self.placed / pixel_mm,
            )
        except ValueError as error:
            raise UserError(f"geometry: {error}") from error

    def note(self, volume_shape: tuple[int, int, int], pixel_mm: float, slice_mm: float) -> str:
        """A note where the detector does not see all of the cylinder inscribed in a volume, or ""."""
        placed = tuple((self.placed / pixel_mm).ravel().tolist())
        missed = ConeGeometry(volume_shape, (self.rows, self.columns), placed, 1.0, slice_mm / pixel_mm).truncated()
        if missed <= MISSED:
            return ""
        return (
            f"{100 * missed:.0f}% of the rays through the volume pass beside the detector: what lies there is seen "
            "from some sides only; fewer slices or a smaller field leave it out"
        )


def check_memory(volume_shape: tuple[int, ...], measurement_shape: tuple[int, ...], *, free: int | None = None) -> None:
    """Refuses a volume whose projection does not fit into the memory that is free.

    Raises:
      UserError: with the estimate.
    """
    free = free_memory() if free is None else free
    needed = max(working_memory(volume_shape, measurement_shape))
    if needed > free:
        raise UserError(
            f"a volume of {'x'.join(map(str, volume_shape))} with measurements of "
            f"{'x'.join(map(str, measurement_shape))} needs about {needed / 2**30:.1f} GiB to be projected, and "
            f"{free / 2**30:.1f} GiB are free: use fewer slices, larger voxels or fewer views"
        )


def says_cone(value: Any) -> bool:
    """Whether JSON is the geometry of a cone beam, ours or ASTRA's."""
    return isinstance(value, Mapping) and (value.get("beam") == "cone" or str(value.get("type")).startswith("cone"))


def cone_from_astra(geometry: Mapping[str, Any], *, mm_per_unit: float = 1.0) -> ConeScan:
    """The scan of an ASTRA projection geometry of type cone or cone_vec.

    ASTRA's three-dimensional volumes have y ascending with the row, ours descending, as in two dimensions.

    Args:
      geometry: the dictionary of `astra.create_proj_geom`; arrays may be lists.
      mm_per_unit: ASTRA knows no unit of length; without this its numbers are taken as mm.

    Raises:
      ValueError: for another type or a missing field.
    """
    kind = geometry.get("type")
    if kind not in ("cone", "cone_vec"):
        raise ValueError(f"ASTRA geometry: type {str(kind)[:40]!r}; use cone or cone_vec")
    counts = [astra_number(geometry, name) for name in ("DetectorRowCount", "DetectorColCount")]
    for name, count in zip(("DetectorRowCount", "DetectorColCount"), counts, strict=True):
        if count != int(count):
            raise ValueError(f"ASTRA geometry: {name} is {count}, expected a whole number")
    rows, columns = map(int, counts)
    if kind == "cone_vec":
        vectors = astra_numbers(geometry, "Vectors", 2) * mm_per_unit
        return ConeScan("cone", rows, columns, vectors_mm=tuple(map(tuple, vectors.tolist())))
    lengths = {
        "row_spacing_mm": "DetectorSpacingY",
        "column_spacing_mm": "DetectorSpacingX",
        "source_distance_mm": "DistanceOriginSource",
        "detector_distance_mm": "DistanceOriginDetector",
    }
    angles = tuple(astra_numbers(geometry, "ProjectionAngles", 1).tolist())
    about: dict[str, Any] = {ours: astra_number(geometry, theirs) * mm_per_unit for ours, theirs in lengths.items()}
    return ConeScan("cone", rows, columns, angles, "radians", **about)
