"""NIfTI: float32 in the unit of the values, at the position that the source had.

A NIfTI source gives its header and affine; the result goes back into its order of axes. `affine` has that of other
sources.
"""

from __future__ import annotations

import gzip
import io
import warnings
from typing import Any

import numpy as np

from padis_jax.errors import UserError
from padis_jax.images.guard import decoding, library
from padis_jax.images.locate import kind_of
from padis_jax.images.nifti import layout
from padis_jax.writers.affine import dicom_affine, plain_affine
from padis_jax.writers.result import Result


def nifti_bytes(result: Result) -> bytes:
    """All images as one gzipped NIfTI volume.

    Raises:
      UserError: if the source tells no spacing, or its images are not neighbours in one volume, or are colour.
    """
    nibabel = library("nibabel", "medical", "NIfTI files")
    source = result.source
    if result.values.shape[-1] != 1:
        raise UserError("colour results cannot be written as NIfTI; use png, tiff or npz")
    if result.uneven:
        raise UserError(f"{result.uneven}: NIfTI has one distance for all; use dicom, npz or hdf5, or leave some out")
    kind = kind_of(source.origins[0].file) if source.origins else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if kind == "nifti":
            image = _like_nifti(nibabel, result)
        else:
            affine = dicom_affine(result) if kind == "dicom" else plain_affine(result)
            image = nibabel.Nifti1Image(
                result.stored_values[..., 0].transpose(2, 1, 0), affine
            )  # [columns, rows, slices]
            image.set_sform(affine, code=1)
            # Slices of a tilted gantry are sheared, which a quaternion cannot say: code 0, to be ignored.
            image.set_qform(affine, code=int(_turned(affine)))
            image.header.set_xyzt_units("mm")
        image.header["descrip"] = result.description.encode("ascii", "replace")[:79]
    buffer = io.BytesIO()
    with gzip.GzipFile(fileobj=buffer, mode="wb", mtime=0) as packed:  # no time: equal results, equal files
        packed.write(image.to_bytes())
    return buffer.getvalue()


def _like_nifti(nibabel: Any, result: Result) -> Any:
    origins = result.source.origins
    file, first = origins[0].file, origins[0].number
    step = origins[1].number - first if len(origins) > 1 else 1
    if step < 1 or [(o.file, o.number) for o in origins] != [(file, first + at * step) for at in range(len(origins))]:
        raise UserError(f"{file}: the images of a NIfTI result must be evenly spaced slices of one volume; use npz")
    with decoding(file, "NIfTI header that is to be carried over"):
        source = nibabel.load(file)
        header, order = source.header.copy(), layout(source.affine)
        count = source.shape[order.axes[0]]
        forms = header.get_sform(coded=True), header.get_qform(coded=True)
    data = result.stored_values[..., 0]
    data = data[tuple(slice(None, None, -1 if flip else 1) for flip in order.reversed)]
    data = data.transpose([order.axes.index(axis) for axis in range(3)])
    start = np.zeros(4)
    start[order.axes[0]] = count - 1 - origins[-1].number if order.reversed[0] else first
    start[3] = 1.0
    for affine in (source.affine, forms[0][0], forms[1][0]):
        if affine is not None:
            affine[:, 3] = affine @ start
            affine[:3, order.axes[0]] *= step
    if result.anonymous:
        header.extensions.clear()  # which may hold all of a DICOM header
        for name in ("data_type", "db_name", "aux_file", "intent_name"):
            if name in header:  # version 2 has only some
                header[name] = b""
    header.set_data_dtype(np.float32)
    header.set_data_shape(data.shape)
    header.set_slope_inter(1.0, 0.0)
    header["cal_min"] = header["cal_max"] = 0.0  # the source's display range
    image = nibabel.Nifti1Image(data, source.affine, header)
    for (affine, code), place in zip(forms, (image.set_sform, image.set_qform), strict=True):
        place(affine, code=int(code))
    if not forms[0][1] and not forms[1][1]:
        image.set_sform(source.affine, code=1)
    return image


def _turned(affine: np.ndarray) -> bool:
    """Whether the axes of an affine are at right angles."""
    axes = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    return bool(np.allclose(axes.T @ axes, np.eye(3), atol=1e-4))
