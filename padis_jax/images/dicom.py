"""DICOM: one series of single-frame slices, sorted along the normal of their plane.

    value = RescaleSlope * stored + RescaleIntercept  (HU for CT),    position = ImagePositionPatient . (row x column)

The two directions of ImageOrientationPatient span the plane. Several series in one folder are refused by name: which
one is meant is not for a program to guess.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from padis_jax.errors import UserError
from padis_jax.images.guard import MAX_SLICE, decoding, library
from padis_jax.images.source import Origin, Source, Spacing
from padis_jax.streamed import in_parallel
from padis_jax.window import HOUNSFIELD

_TAGS = """SOPClassUID SeriesInstanceUID SeriesNumber SeriesDescription Modality Rows Columns NumberOfFrames
 SamplesPerPixel PhotometricInterpretation BitsAllocated BitsStored PixelRepresentation RescaleSlope RescaleIntercept
 RescaleType ImagePositionPatient ImageOrientationPatient PixelSpacing SliceThickness TransferSyntaxUID""".split()


class Slice(NamedTuple):
    """What the header of one slice tells; `position` [3] and `orientation` [6] are None where it does not."""

    file: Path
    series: str
    description: str
    modality: str
    rows: int
    columns: int
    dtype: np.dtype
    slope: float
    intercept: float
    unit: str | None
    position: np.ndarray | None
    orientation: np.ndarray | None
    pixel_spacing: tuple[float, float] | None
    thickness: float | None


def open_dicom(files: Sequence[Path]) -> Source:
    """The slices of one series, in the order of their positions. Only the headers are read here.

    Raises:
      UserError: for a damaged file, several series, slices of different size or direction, two at one place, or kinds
        of DICOM that are not read (several frames, colour).
    """
    headers: dict[int, Slice] = {}
    in_parallel(lambda index: headers.__setitem__(index, read_header(files[index])), range(len(files)))
    slices = [headers[index] for index in range(len(files))]
    folder = str(files[0].parent if len(files) > 1 else files[0])
    _one_series(slices, folder)
    first = slices[0]
    for item in slices[1:]:
        _same_plane(first, item)
    slices, gap, notes = _sorted(slices, folder)
    spacing: Spacing | None = None
    between = gap or first.thickness
    if first.pixel_spacing is not None and between:
        spacing = (between, *first.pixel_spacing)
    return Source(
        path=folder,
        read=lambda index: read_values(slices[index]),
        shape=(len(slices), first.rows, first.columns, 1),
        dtype=first.dtype,
        names=tuple(item.file.name for item in slices),
        origins=tuple(Origin(item.file, 0, "") for item in slices),
        unit=first.unit,
        spacing=spacing,
        rows_up=first.orientation is not None and first.orientation[4] < -0.5,  # rows run to the patient's front
        notes=tuple(notes),
    )


def read_header(file: Path) -> Slice:
    """The header of one slice.

    Raises:
      UserError: if it is no DICOM image of one grey frame, or lacks what is needed.
    """
    pydicom = library("pydicom", "medical", "DICOM files")
    with decoding(file, "DICOM header"):
        found = pydicom.dcmread(file, stop_before_pixels=True, specific_tags=_TAGS)
        get = found.get
        rows, columns = int(get("Rows") or 0), int(get("Columns") or 0)
        bits, signed = int(get("BitsAllocated") or 0), int(get("PixelRepresentation") or 0)
        frames, samples = int(get("NumberOfFrames") or 1), int(get("SamplesPerPixel") or 1)
        photometric, modality = str(get("PhotometricInterpretation", "")), str(get("Modality", ""))
        scaling = [None if get(name) is None else float(get(name)) for name in ("RescaleSlope", "RescaleIntercept")]
        position = _numbers(get("ImagePositionPatient"), 3)
        orientation = _numbers(get("ImageOrientationPatient"), 6)
        spacing = _numbers(get("PixelSpacing"), 2)
        thickness = None if get("SliceThickness") is None else float(get("SliceThickness"))
        series, rescale_type = str(get("SeriesInstanceUID", "")), str(get("RescaleType", ""))
        description = " ".join(f"{get('SeriesNumber', '')} {get('SeriesDescription', '')}".split())
    if not rows or not columns:
        raise UserError(f"{file}: a DICOM file without an image (no Rows and Columns); leave it out")
    if rows * columns > MAX_SLICE or bits not in (8, 16, 32) or signed not in (0, 1):
        raise UserError(f"{file}: declares {rows} x {columns} pixels of {bits} bits; is it damaged?")
    if frames != 1:
        raise UserError(f"{file}: has {frames} frames; split it into single slices (dcm4che's emf2sf does)")
    if samples != 1 or photometric != "MONOCHROME2":
        raise UserError(
            f"{file}: photometric interpretation {photometric!r} with {samples} samples is not supported, only grey "
            "MONOCHROME2; leave out files that are not slices (a report?), or convert them with dcmtk's dcmj2pnm"
        )
    if modality == "CT" and None in scaling:
        raise UserError(f"{file}: a CT slice without RescaleSlope and RescaleIntercept; its unit is unknown")
    slope, intercept = (1.0 if scaling[0] is None else scaling[0]), (scaling[1] or 0.0)
    if not (np.isfinite(slope) and slope != 0.0 and np.isfinite(intercept)):
        raise UserError(f"{file}: RescaleSlope {slope} or RescaleIntercept {intercept} is invalid; is it damaged?")
    if spacing is not None and not (spacing > 0.0).all():
        raise UserError(f"{file}: PixelSpacing {spacing.tolist()} must be positive; fix the header")
    if orientation is not None and not np.allclose(_gram(orientation), np.eye(2), atol=1e-2):
        raise UserError(f"{file}: ImageOrientationPatient {orientation.tolist()} is not a pair of directions")
    hounsfield = (modality == "CT" and rescale_type in ("", "HU")) or rescale_type == "HU"
    return Slice(
        file=file,
        series=series,
        description=description,
        modality=modality,
        rows=rows,
        columns=columns,
        dtype=np.dtype(f"{'int' if signed else 'uint'}{bits}"),
        slope=slope,
        intercept=intercept,
        unit=HOUNSFIELD.unit if hounsfield else None,
        position=position,
        orientation=orientation,
        pixel_spacing=None if spacing is None else (float(spacing[0]), float(spacing[1])),
        thickness=thickness if thickness is not None and thickness > 0.0 and np.isfinite(thickness) else None,
    )


def read_values(item: Slice) -> np.ndarray:
    """The rescaled values of a slice, float32 [H, W, 1]."""
    pydicom = library("pydicom", "medical", "DICOM files")
    with decoding(item.file, "DICOM image (compressed ones may need pylibjpeg, or dcmdjpeg to unpack them)"):
        pixels = np.asarray(pydicom.dcmread(item.file).pixel_array)
        if pixels.shape != (item.rows, item.columns):
            raise ValueError(f"{pixels.shape} pixels instead of {(item.rows, item.columns)}")
    return (pixels.astype(np.float64) * item.slope + item.intercept).astype(np.float32)[..., None]


def _numbers(value: Any, count: int) -> np.ndarray | None:
    if value is None or value == "":
        return None
    numbers = np.array([float(entry) for entry in value])
    if numbers.shape != (count,) or not np.isfinite(numbers).all():
        raise ValueError(f"{value} is not {count} finite numbers")
    return numbers


def _gram(orientation: np.ndarray) -> np.ndarray:
    pair = orientation.reshape(2, 3)
    return pair @ pair.T


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
        same = one == other if one is None or other is None or what == "unit" else np.allclose(one, other, atol=1e-3)
        if not same:
            raise UserError(
                f"{item.file}: its {what} is {_text(other)}, but {first.file.name} has {_text(one)}; a series must "
                "have one, leave out what does not belong (a localiser?)"
            )


def _text(value: Any) -> str:
    return str(value.tolist() if isinstance(value, np.ndarray) else value)


def _sorted(slices: list[Slice], folder: str) -> tuple[list[Slice], float | None, list[str]]:
    """(slices by position, millimetres between them, notes)."""
    if len(slices) == 1:
        return slices, None, []
    along = []
    for item in slices:
        if item.position is None or item.orientation is None:
            raise UserError(
                f"{item.file}: has no ImagePositionPatient or ImageOrientationPatient, so its place in the series is "
                "not known; name the file alone"
            )
        along.append(float(item.position @ np.cross(item.orientation[:3], item.orientation[3:])))
    order = np.argsort(along, kind="stable")
    ordered = [slices[index] for index in order]
    gaps = np.diff(np.asarray(along)[order])
    for index in np.flatnonzero(gaps < 1e-3):
        raise UserError(
            f"{folder}: {ordered[index].file.name} and {ordered[index + 1].file.name} are at the same position; "
            "keep one acquisition"
        )
    usual = float(np.median(gaps))
    odd = np.flatnonzero(np.abs(gaps - usual) > 0.02 * usual + 1e-3)
    notes = [
        f"{folder}: {ordered[index].file.name} and {ordered[index + 1].file.name} are {gaps[index]:g} mm apart, others "
        f"{usual:g} mm; a slice may be missing"
        for index in odd[:3]
    ]
    return ordered, usual, notes
