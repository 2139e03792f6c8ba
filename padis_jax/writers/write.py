"""Writes a result in a format that is named on the command line."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from padis_jax.errors import UserError
from padis_jax.files import write_bytes
from padis_jax.images.guard import library
from padis_jax.writers.affine import volume_affine
from padis_jax.writers.dicom import dicom_files
from padis_jax.writers.nifti import nifti_bytes
from padis_jax.writers.pictures import png_bytes, tiff_bytes
from padis_jax.writers.result import Result

Format = Literal["dicom", "nifti", "png", "tiff", "npz", "hdf5"]
FORMATS: tuple[Format, ...] = get_args(Format)


def write_result(stem: str | Path, kind: Format, result: Result) -> list[Path]:
    """Writes `stem/00001.dcm` ..., `stem.nii.gz`, `stem.png` (several: `stem_00001.png` ...), `stem.tif`, .npz, .h5.

    Args:
      stem: path without suffix.
      kind: the format.
      result: what is written.

    Returns:
      The files.

    Raises:
      UserError: if the source lacks what the format needs, the folder of a series holds other DICOM files, or a file
        cannot be written; no file is half written.
    """
    encoded = _encoded(Path(stem), kind, result)
    for path, data in encoded.items():
        write_bytes(path, data)
    return list(encoded)


def check_format(stem: str | Path, kind: Format, result: Result) -> list[Path]:
    """The files that `write_result` would write, before any long work; writes nothing.

    Raises:
      UserError: as `write_result` would.
    """
    return list(_encoded(Path(stem), kind, result))


def _encoded(stem: Path, kind: Format, result: Result) -> dict[Path, bytes]:
    """Name -> contents of all files."""
    count = len(result.values)
    if kind == "dicom":
        encoded = {stem / f"{index + 1:05d}.dcm": data for index, data in enumerate(dicom_files(result))}
        if others := sorted({*stem.glob("*.dcm")} - {*encoded}):
            raise UserError(f"{others[0]}: would mix with the new series; move it, or choose another folder")
        return encoded
    if kind == "nifti":
        return {stem.with_name(f"{stem.name}.nii.gz"): nifti_bytes(result)}
    if kind == "png":
        names = [stem.name] if count == 1 else [f"{stem.name}_{index + 1:05d}" for index in range(count)]
        return {stem.with_name(f"{name}.png"): png_bytes(result, index) for index, name in enumerate(names)}
    if kind == "tiff":
        return {stem.with_name(f"{stem.name}.tif"): tiff_bytes(result)}
    if kind == "npz":
        return {stem.with_name(f"{stem.name}.npz"): _npz_bytes(result)}
    if kind == "hdf5":
        return {stem.with_name(f"{stem.name}.h5"): _hdf5_bytes(result)}
    raise ValueError(f"write_result: format {kind!r} is none of {', '.join(FORMATS)}")


def _npz_bytes(result: Result) -> bytes:
    """`volume` [N, H, W] (`images` [N, H, W, C] for colour) in the unit, and what `_about` says of it."""
    values = result.values
    arrays = {"volume": values[..., 0]} if values.shape[-1] == 1 else {"images": values}
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **arrays, **_about(result))  # type: ignore[arg-type]
    return buffer.getvalue()


def _hdf5_bytes(result: Result) -> bytes:
    """The same as one data set with attributes."""
    h5py = library("h5py", "medical", "HDF5 files")
    values, buffer = result.values, io.BytesIO()
    name, values = ("volume", values[..., 0]) if values.shape[-1] == 1 else ("images", values)
    with h5py.File(buffer, "w") as file:
        data = file.create_dataset(
            name, data=values, chunks=(1, *values.shape[1:]), compression="gzip", shuffle=True, track_times=False
        )
        for key, value in _about(result).items():
            data.attrs[key] = str(value) if value.dtype.kind == "U" else value
    return buffer.getvalue()


def _about(result: Result) -> dict[str, np.ndarray]:
    """`description`, `unit`, and where they are known `spacing` in mm, `places` of uneven slices, `affine`.

    `affine` [4, 4] takes (column, row, slice, 1) to mm to the right, front and head, as NIfTI's does.
    """
    about = {"description": np.asarray(result.description), "unit": np.asarray(result.window.unit)}
    if result.source.spacing is not None:
        about["spacing"] = np.asarray(result.source.spacing)
    if result.source.places:
        about["places"] = np.asarray(result.source.places)
    affine = volume_affine(result)
    if affine is not None:
        about["affine"] = affine
    return about
