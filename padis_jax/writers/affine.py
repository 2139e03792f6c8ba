"""Where the voxels of a result lie: [4, 4], (column, row, slice, 1) -> mm towards right, front and head, as in NIfTI.

Of a DICOM series it is

    x = position + column index * column spacing * row direction + row index * row spacing * column direction

with x and y negated, since DICOM counts towards left and back. Other sources need a spacing; their axes are taken as
axial (rows to the back, or to the front where row 0 is shown at the bottom, columns to the left, slices to the head).
"""

from __future__ import annotations

import numpy as np

from padis_jax.errors import UserError
from padis_jax.images.dicom_slice import read_headers
from padis_jax.images.guard import decoding, library
from padis_jax.images.locate import kind_of
from padis_jax.images.nifti import MM, layout
from padis_jax.writers.result import Result

_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


def volume_affine(result: Result) -> np.ndarray | None:
    """The affine of an evenly spaced volume, None where the source does not tell it."""
    source = result.source
    if result.uneven or source.spacing is None or result.values.shape[-1] != 1:
        return None
    kind = kind_of(source.origins[0].file) if source.origins else None
    if kind == "nifti":
        return _nifti_affine(result)
    try:
        return dicom_affine(result) if kind == "dicom" else plain_affine(result)
    except UserError:  # a header without a position
        return None


def dicom_affine(result: Result) -> np.ndarray:
    """Of a DICOM series; UserError for a header without a position."""
    origins = result.source.origins
    slices = [read_headers(origin.file)[origin.number] for origin in (origins[0], origins[-1])]
    first = slices[0]
    if first.position is None or first.orientation is None or first.pixel_spacing is None:
        raise UserError(f"{first.file}: has no position, orientation or pixel spacing, which NIfTI needs; use npz")
    along_row, along_column = first.orientation[:3], first.orientation[3:]
    step = np.cross(along_row, along_column) * (result.source.spacing[0] if result.source.spacing else 1.0)
    if len(origins) > 1 and slices[1].position is not None:
        step = (slices[1].position - first.position) / (len(origins) - 1)
    affine = np.eye(4)
    affine[:3, 0] = along_row * first.pixel_spacing[1]
    affine[:3, 1] = along_column * first.pixel_spacing[0]
    affine[:3, 2] = step
    affine[:3, 3] = first.position
    return _LPS_TO_RAS @ affine


def plain_affine(result: Result) -> np.ndarray:
    """Of an axial volume; UserError without a spacing."""
    if result.source.spacing is None:
        raise UserError("a NIfTI result needs the spacing of the voxels, which the source does not have; use npz")
    between, rows, columns = result.source.spacing
    return _LPS_TO_RAS @ np.diag([columns, -rows if result.source.rows_up else rows, between, 1.0])


def _nifti_affine(result: Result) -> np.ndarray:
    """Of the images of a NIfTI file, whose axes were turned as `images.nifti` does."""
    origins = result.source.origins
    nibabel = library("nibabel", "medical", "NIfTI files")
    with decoding(origins[0].file, "NIfTI header that is to be carried over"):
        stored = nibabel.load(origins[0].file)
        affine, order = np.array(stored.affine, float), layout(stored.affine)
        affine[:3] *= MM[int(stored.header["xyzt_units"]) & 7]
        shape = stored.shape
    step = origins[1].number - origins[0].number if len(origins) > 1 else 1
    turned, start = np.eye(4), np.zeros(4)
    start[3] = 1.0
    for ours, axis, back, first, by in zip(
        (2, 1, 0), order.axes, order.reversed, (origins[0].number, 0, 0), (step, 1, 1), strict=True
    ):
        turned[:, ours] = affine[:, axis] * (-by if back else by)
        start[axis] = shape[axis] - 1 - first if back else first
    turned[:, 3] = affine @ start
    return turned
