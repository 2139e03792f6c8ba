"""A measured scan of a volume: all detector rows of a file, as the operators on volumes take them.

Files hold [views, rows, bins] or another order that is named. Of a parallel or a fan beam every row is a slice:
[rows, views, bins]. A cone beam takes [views, rows, columns].
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from padis_jax.errors import UserError
from padis_jax.files import read_text
from padis_jax.images.guard import decoding
from padis_jax.measurements.angles import other_note, unit_note
from padis_jax.measurements.cone_geometry import ConeScan, check_memory, cone_from_astra, says_cone
from padis_jax.measurements.containers import Stored
from padis_jax.measurements.geometry import ScanGeometry, read_geometry
from padis_jax.measurements.line_integrals import field_note, integrals_of
from padis_jax.measurements.sinogram_files import AXES, Held, Measured, open_sinogram
from padis_jax.operators.slices import SliceTransform, of_slices
from padis_jax.serialization import MAX_TEXT, from_json, parse_json


class VolumeScan(NamedTuple):
    """Line integrals of a volume with their geometry.

    Attributes:
      projections: float32, dimensionless: [rows, views, bins] of a parallel or fan beam, [views, rows, columns] of a
        cone.
      geometry: of every row, or of the cone beam.
      repaired: unusable counts that were filled.
      notes: how the file was understood where it could be read in several ways.
      relative_std: of `projections` up to a common factor; None where nothing tells them apart, or nobody asked.
    """

    projections: np.ndarray
    geometry: ScanGeometry | ConeScan
    repaired: int
    notes: tuple[str, ...] = ()
    relative_std: np.ndarray | None = None


def read_scan_geometry(path: str | Path, **beside: Any) -> ScanGeometry | ConeScan:
    """Reads a geometry file of any beam: `read_geometry`'s, and those of cone beams.

    Args:
      path: JSON, ours or ASTRA's.
      **beside: angles in the sinogram's file, as in `read_geometry`.

    Raises:
      UserError: naming the file and the field.
    """
    try:
        value = parse_json(read_text(path, 4 * MAX_TEXT), f"{path}: the geometry")
    except (OSError, UnicodeDecodeError):
        return read_geometry(path, **beside)  # which says what is wrong with it
    if not says_cone(value):
        return read_geometry(path, **beside)
    try:
        if "beam" not in value:
            return cone_from_astra(value)
        angles = beside.get("angles")
        if not value.get("angles") and not value.get("vectors_mm") and angles is not None:
            value = {**value, "angles": angles, "angle_unit": beside.get("angle_unit") or value.get("angle_unit")}
        if value.get("angles") and value.get("angle_unit") is None:
            raise ValueError('it does not tell the unit of its angles: add "angle_unit", "degrees" or "radians"')
        return from_json(ConeScan, value, "geometry")
    except (ValueError, OverflowError) as error:
        raise UserError(f"{path}: {error}") from error


def load_volume(
    path: str | Path,
    geometry: ScanGeometry | ConeScan | None = None,
    *,
    axes: str = ",".join(AXES),
    counts: bool = False,
    flat: float = 0.0,
    dark: float = 0.0,
) -> VolumeScan:
    """Reads all detector rows.

    Args:
      path: of the measurements, as in `open_sinogram`.
      geometry: of every row, or a cone's; None where the file tells it.
      axes: of the stored array, in their order.
      counts: whether they are photon counts, whose flat and dark fields are used.
      flat: counts without an object, for a file without a flat field.
      dark: counts without rays, likewise.

    Raises:
      UserError: naming the file and what is wrong with it: an order of axes that does not fit where another does, rows
        that are not numbers.
    """
    held = open_sinogram(path)
    geometry = geometry or held.geometry
    if geometry is None:
        raise UserError(f"{path}: it has no geometry, which says what the views are: give one")
    return read_volume(held, path, geometry, axes=axes, tell=lambda _: (counts, ""), flat=flat, dark=dark)


def read_volume(
    held: Held,
    path: str | Path,
    geometry: ScanGeometry | ConeScan,
    *,
    axes: str,
    tell: Callable[[Measured], tuple[bool, str]],
    flat: float = 0.0,
    dark: float = 0.0,
    relative: bool = False,
) -> VolumeScan:
    """`load_volume` of a file that is open.

    Args:
      held: the file.
      path: as the user named it, for messages.
      geometry: of every row, or a cone's.
      axes: as in `load_volume`.
      tell: the row in the middle -> (whether all are counts, a note or "").
      flat: as in `load_volume`.
      dark: likewise.
      relative: whether to keep what counts tell of the noise of each ray.

    Raises:
      UserError: as `load_volume`.
    """
    if len(held.stored.shape) != 3:
        raise UserError(f"{path}: {held.name} {held.stored.shape} has no axis of detector rows, which a volume needs")
    order, note = _order(held, axes, geometry)
    held = _in_memory(held)
    rows = held.stored.shape[order.index("rows")]
    middle = held.read(order, row=rows // 2)
    counts, told = tell(middle)
    found, repaired, noise = [], 0, []
    for row in range(rows):
        measured = held.read(order, row=row)
        try:
            plane, filled, std = integrals_of(measured, flat, dark, counts=counts)
        except ValueError as error:
            raise UserError(f"{path}: row {row}: {error}") from error
        found.append(plane)
        repaired += filled
        if relative and std is not None:
            noise.append(std)
    stacked, cone = np.stack(found), isinstance(geometry, ConeScan)
    _refuse_numbers(path, held.name, stacked, views=cone)
    if not stacked.any():
        raise UserError(f"{path}: {held.name} is zero everywhere")
    unit = unit_note(geometry.angles, geometry.angle_unit)
    others = (other_note(geometry, held.angles, held.angle_unit), field_note(middle, flat, dark))
    notes = tuple(filter(None, (note, told, *others, unit, _air_note(stacked, held.name))))
    if cone:
        stacked = np.ascontiguousarray(np.moveaxis(stacked, 0, 1))
        noise = [np.stack(noise, 1)] if noise else []
    else:
        noise = [np.stack(noise)] if noise else []
    return VolumeScan(stacked, geometry, repaired, notes, noise[0] if noise else None)


def _refuse_numbers(path: str | Path, name: str, stacked: np.ndarray, *, views: bool) -> None:
    """Refuses rows [rows, views, bins] that are not numbers; of a cone beam, whose rows are no slices, views."""
    what, axes = ("views", (0, 2)) if views else ("rows", (1, 2))
    good = np.isfinite(stacked).all(axes)
    if not good.all():
        bad = np.flatnonzero(~good)
        remedy = "fill them in, or leave them out of the file and of the geometry's angles"
        raise UserError(
            f"{path}: {len(bad)} of {len(good)} {what} of {name} have NaN or infinity, the first of them "
            f"{what[:-1]} {bad[0]}: {remedy if views else 'leave them out or fill them in'}"
        )


def slices_operator(scan: VolumeScan, image_shape: tuple[int, int], pixel_mm: float = 0.0) -> SliceTransform:
    """The operator of a scan whose rows are slices, in pixels.

    Args:
      scan: of a parallel or a fan beam.
      image_shape: of a slice.
      pixel_mm: side of a pixel; 0 fits the field of view into the image.

    Raises:
      UserError: for a cone beam, whose rows are no slices, or a volume that does not fit into memory.
    """
    if isinstance(scan.geometry, ConeScan):
        raise UserError("geometry: the rows of a cone beam are no slices: use the geometry's operator of a volume")
    rows = len(scan.projections)
    check_memory((rows, *image_shape), scan.projections.shape)
    plane = scan.geometry.operator(image_shape, pixel_mm or scan.geometry.field_mm / max(image_shape))
    return of_slices(plane, rows)


def _order(held: Held, axes: str, geometry: ScanGeometry | ConeScan) -> tuple[tuple[str, ...], str]:
    """(axes of the stored array, a note or ""), checked against all that the geometry tells of their lengths."""
    if not isinstance(geometry, ConeScan):
        return held.order(axes, len(geometry.angles), geometry.bins)
    names = held.order(axes)[0]
    wanted = dict(zip(AXES, geometry.measurement_shape, strict=True))
    shape = held.stored.shape

    def read_as(order: tuple[str, ...]) -> dict[str, int]:
        return dict(zip(order, shape, strict=True))

    fits = [order for order in itertools.permutations(AXES) if read_as(order) == wanted]
    if names in fits:
        others = " or ".join(",".join(order) for order in fits if order != names)
        return names, f"{held.name} {shape} was read as {','.join(names)}; {others} would fit too" if others else ""

    def said(lengths: dict[str, int]) -> str:
        return f"{lengths['views']} views of {lengths['rows']} x {lengths['bins']}"

    remedy = f"; read as {','.join(fits[0])} it fits: give --measurement.axes {','.join(fits[0])}" if fits else ""
    raise UserError(
        f"{held.file}: {held.name} {shape} read as {','.join(names)} has {said(read_as(names))} (rows x columns), but "
        f"the geometry has {said(wanted)}{remedy}"
    )


def _in_memory(held: Held) -> Held:
    """The same with its arrays read, once for all rows."""

    def read(stored: Stored) -> Stored:
        with decoding(held.file, "measurement file"):
            values = stored.read(())
        return stored._replace(read=lambda place: np.asarray(values[place]))

    fields = {name: read(stored) for name, stored in held.beside.items() if len(stored.shape) > 1}
    return held._replace(stored=read(held.stored), beside={**held.beside, **fields})


def _air_note(stacked: np.ndarray, name: str) -> str:
    empty = np.flatnonzero(~stacked.any((1, 2)))
    if not len(empty):
        return ""
    return f"{len(empty)} of {len(stacked)} rows of {name} are zero everywhere, the first of them row {empty[0]}"
