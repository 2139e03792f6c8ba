"""HDF5 files, and MATLAB's version 7.3, which is HDF5 with the axes reversed. Slices are read when they are needed."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from padis_jax.errors import UserError
from padis_jax.images.guard import check_size, decoding, library
from padis_jax.images.limit import check_decoded_bytes
from padis_jax.images.source import Origin, Source, colour_note, full_scale
from padis_jax.images.variables import as_places, as_spacing, as_text, as_unit, check_spacing, choose, rows_run_up

COLOUR = "[rows, columns, channels, images]"  # in MATLAB's files


def open_hdf5(path: Path, variable: str | None = None, *, matlab: bool = False) -> Source:
    """The named data set, or the only one that can be images: [H, W], [N, H, W] or [N, H, W, C].

    `spacing` (3 lengths in mm) and `unit` are read from its attributes, or `spacing` from a data set of that name.

    Args:
      path: the file.
      variable: name of the data set, such as "images" or "scan/volume".
      matlab: axes are MATLAB's, reversed: [(slices, )(channels, )columns, rows] stands for what MATLAB shows as
        [rows, columns(, channels)(, slices)].

    Raises:
      UserError: for a damaged file, a data set that is not there or lies in another file, or several that could be
        meant.
    """
    h5py = library("h5py", "medical", "HDF5 files and MATLAB files of version 7.3")
    with decoding(path, "HDF5 file"), h5py.File(path, "r") as file:
        shapes: dict[str, tuple[int, ...]] = {}

        def visit(name: str, item: Any) -> None:  # does not follow links into other files
            numbers = isinstance(item, h5py.Dataset) and item.dtype.kind in "fiub" and item.shape is not None
            if numbers and not name.startswith("#"):
                shapes[name] = tuple(item.shape[::-1] if matlab else item.shape)

        file.visititems(visit)
        name = choose(path, shapes, variable)
        data = file[name]
        if data.external or data.is_virtual:
            raise UserError(f"{path}: the values of {name} are in other files; copy them into this one (h5repack)")
        pieces = math.prod(data.chunks or ()) * data.dtype.itemsize  # HDF5 unpacks whole chunks
        check_decoded_bytes(path, pieces if data.chunks else 0, f"a chunk of {name}, {data.chunks} of {data.dtype}")
        shape, dtype, stored = tuple(data.shape), data.dtype, data.id.get_storage_size()
        itemsize, truth = dtype.itemsize, matlab and as_text(data.attrs.get("MATLAB_class", "")) == "logical"
        dtype = np.dtype(bool) if truth else dtype  # MATLAB keeps truth values as bytes of 0 and 1
        spacing = data.attrs.get("spacing")
        if spacing is None and "spacing" in shapes and name != "spacing":
            check_spacing(path, shapes["spacing"])
            spacing = file["spacing"][()]
        unit, places, affine = (data.attrs.get(key) for key in ("unit", "places", "affine"))
    shown = shape[::-1] if matlab else shape
    if matlab and len(shown) > 2:
        shown = (shown[-1], *shown[:-1])
    if len(shown) == 3 and shown[-1] <= 4:
        raise UserError(f"{path}: {name} of shape {shown} is read as [N, H, W]; store colour images as [N, H, W, C]")
    if len(shown) not in (2, 3, 4):
        raise UserError(f"{path}: {name} has {len(shape)} axes ({shape}), expected 2 to 4")
    full = shown if len(shown) == 4 else (*shown, 1) if len(shown) == 3 else (1, *shown, 1)
    check_size(path, full, itemsize, stored, compressed=True)

    def read(index: int) -> np.ndarray:
        with decoding(path, f"slice {index} of {name}"), h5py.File(path, "r") as file:
            data = file[name]
            values = np.asarray(data[()] if len(shape) == 2 else data[index])
        values = values != 0 if truth else values
        return np.ascontiguousarray(values.T if matlab else values).reshape(full[1:])

    count, height, width, channels = full
    return Source(
        path=str(path),
        read=read,
        shape=(count, height, width, channels),
        dtype=dtype,
        names=tuple(f"{name} {index}" for index in range(count)),
        origins=tuple(Origin(path, index, "") for index in range(count)),
        unit=None if unit is None else as_unit(path, unit),
        full=full_scale(dtype) if unit is None else None,
        spacing=None if spacing is None else as_spacing(path, spacing),
        rows_up=rows_run_up(affine),
        places=() if spacing is None or places is None else as_places(path, places, count),
        notes=() if unit is not None else colour_note(path, full, *[COLOUR] * matlab),
    )
