"""MATLAB .mat files: version 5 (and 4) by SciPy, version 7.3, which is HDF5, by h5py.

MATLAB counts the slices last: [rows, columns, slices], or [rows, columns, channels, images].
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import scipy.io

from padis_jax.images.guard import MAX_RATIO, check_size, decoding
from padis_jax.images.hdf5 import open_hdf5
from padis_jax.images.source import Source, array_source, stack_arrays
from padis_jax.images.variables import as_spacing, choose

_NUMERIC = {"double", "single", "logical", *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64))}


def open_mat(path: Path, variable: str | None = None) -> Source:
    """The named variable, or the only one that can be images; `spacing` (slices, rows, columns; mm) is read beside it.

    Raises:
      UserError: for a damaged file, a variable that is not there, or several that could be meant.
    """
    with decoding(path, ".mat file"), open(path, "rb") as handle:
        hdf5 = handle.read(520)[512:].startswith(b"\x89HDF\r\n\x1a\n")
    if hdf5:
        return open_hdf5(path, variable, matlab=True)
    with decoding(path, ".mat file"):
        contents = scipy.io.whosmat(str(path), appendmat=False)
    shapes = {name: tuple(int(n) for n in shape) for name, shape, kind in contents if kind in _NUMERIC}
    name = choose(path, shapes, variable)
    # At least a byte per value is stored, before compression.
    check_size(path, slices_first(shapes[name]), 1, path.stat().st_size * MAX_RATIO)
    with decoding(path, f"variable {name} of a .mat file"):
        loaded = scipy.io.loadmat(
            str(path), appendmat=False, variable_names=[name, "spacing"], verify_compressed_data_integrity=True
        )
        array = np.asarray(loaded[name])
        if array.shape != shapes[name]:
            raise ValueError(f"its shape {array.shape} is not that of the header")
    stacked = stack_arrays(path, _slices_first(array), f"`{name}`")
    spacing = as_spacing(path, loaded["spacing"]) if "spacing" in loaded and name != "spacing" else None
    return array_source(path, stacked, names=[f"{name} {i}" for i in range(len(stacked))], spacing=spacing)


def slices_first(shape: tuple[int, ...]) -> tuple[int, ...]:
    """[rows, columns(, channels)(, slices)] -> [slices, rows, columns(, channels)]."""
    return shape if len(shape) < 3 else (shape[-1], *shape[:-1])


def _slices_first(array: np.ndarray) -> np.ndarray:
    return array if array.ndim < 3 else np.moveaxis(array, -1, 0)
