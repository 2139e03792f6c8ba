"""DICOM: one series of slices, sorted along the normal of their plane; `dicom_slice` reads each.

    position = ImagePositionPatient . (row x column)

The two directions of ImageOrientationPatient span the plane. Several series in one folder are refused by name: which
one is meant is not for a program to guess.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from padis_jax.errors import UserError
from padis_jax.images.dicom_slice import Slice, read_headers, read_values
from padis_jax.images.source import Origin, Source, Spacing
from padis_jax.streamed import in_parallel

ROUNDED = 1e-3  # mm, by which headers round places; of what is smaller than that a part, as in microscopy


def open_dicom(files: Sequence[Path]) -> Source:
    """The slices of one series, in the order of their positions. Only the headers are read here.

    Raises:
      UserError: for a damaged file, several series, slices of different size or direction, two at one place, or kinds
        of DICOM that are not read (frames without a place, colour).
    """
    headers: dict[int, list[Slice]] = {}
    in_parallel(lambda index: headers.__setitem__(index, read_headers(files[index])), range(len(files)))
    slices = [item for index in range(len(files)) for item in headers[index]]
    folder = str(files[0].parent if len(files) > 1 else files[0])
    _one_series(slices, folder)
    first = slices[0]
    for item in slices[1:]:
        _same_plane(first, item)
    slices, gap, places, notes = _sorted(slices, folder)
    spacing: Spacing | None = None
    between = gap or first.thickness
    if first.pixel_spacing is not None and between:
        spacing = (between, *first.pixel_spacing)
    return Source(
        path=folder,
        read=lambda index: read_values(slices[index]),
        shape=(len(slices), first.rows, first.columns, 1),
        dtype=first.dtype,
        names=tuple(item.name for item in slices),
        origins=tuple(Origin(item.file, item.frame, "") for item in slices),
        unit=first.unit,
        other=first.other,
        spacing=spacing,
        rows_up=first.orientation is not None and first.orientation[4] < -0.5,  # rows run to the patient's front
        notes=(*notes, *_inverted(slices, folder)),
        places=places,
    )


def _inverted(slices: Sequence[Slice], folder: str) -> list[str]:
    found = {item.mirror for item in slices} - {None}
    return [f"{folder}: MONOCHROME1, whose low values are white, read as {found.pop()} - v"] if found else []


def _one_series(slices: Sequence[Slice], folder: str) -> None:
    series: dict[str, list[Slice]] = {}
    for item in slices:
        series.setdefault(item.series, []).append(item)
    if len(series) > 1:
        listed = "; ".join(
            f"{found[0].modality} {found[0].description or uid!r} ({len(found)} files, {found[0].file.name})"
            for uid, found in list(series.items())[:6]
        )
        raise UserError(
            f"{folder}: holds {len(series)} series: {listed}; put each in its own folder, or name the files of one"
        )


def _same_plane(first: Slice, item: Slice) -> None:
    for what, one, other in (
        ("size", (first.rows, first.columns), (item.rows, item.columns)),
        ("orientation", first.orientation, item.orientation),
        ("pixel spacing", first.pixel_spacing, item.pixel_spacing),
        ("unit", first.unit, item.unit),
    ):
        near = min(ROUNDED, 0.01 * min(first.pixel_spacing or [1.0])) if what == "pixel spacing" else ROUNDED
        same = one == other if one is None or other is None or what == "unit" else np.allclose(one, other, atol=near)
        if not same:
            raise UserError(
                f"{_named(item)}: its {what} is {_text(other)}, but {first.name} has {_text(one)}; a series must "
                "have one, leave out what does not belong (a localiser?)"
            )


def _named(item: Slice) -> str:
    return str(item.file.parent / item.name)


def _text(value: Any) -> str:
    return str(value.tolist() if isinstance(value, np.ndarray) else value)


def _sorted(slices: list[Slice], folder: str) -> tuple[list[Slice], float | None, tuple[float, ...], list[str]]:
    """(slices by position, millimetres between most of them, their places where some are not so far apart, notes)."""
    if len(slices) == 1:
        return slices, None, (), []
    along = []
    for item in slices:
        if item.position is None or item.orientation is None:
            raise UserError(
                f"{_named(item)}: has no ImagePositionPatient or ImageOrientationPatient, so its place in the series "
                "is not known; name the file alone"
            )
        along.append(float(item.position @ np.cross(item.orientation[:3], item.orientation[3:])))
    order = np.argsort(along, kind="stable")
    ordered = [slices[index] for index in order]
    gaps = np.diff(np.asarray(along)[order])
    for index in np.flatnonzero(gaps <= min(ROUNDED, 0.01 * gaps.max())):
        raise UserError(
            f"{folder}: {ordered[index].name} and {ordered[index + 1].name} are at the same position; "
            "keep one acquisition (of an enhanced file: save its frames as an array [slices, rows, columns])"
        )
    usual = float(np.median(gaps))
    odd = np.flatnonzero(np.abs(gaps - usual) > 0.02 * usual + min(ROUNDED, 0.25 * usual))
    notes = [
        f"{folder}: {ordered[index].name} and {ordered[index + 1].name} are {gaps[index]:g} mm apart, others "
        f"{usual:g} mm; a slice may be missing"
        for index in odd[:3]
    ]
    return ordered, usual, tuple(np.sort(along).tolist()) if odd.size else (), notes
