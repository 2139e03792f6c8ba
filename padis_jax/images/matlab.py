"""MATLAB .mat files: version 5 (and 4) by SciPy, version 7.3, which is HDF5, by h5py.

MATLAB counts the slices last: [rows, columns, slices], or [rows, columns, channels, images].
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from padis_jax.images.guard import check_size, decoding
from padis_jax.images.hdf5 import COLOUR, open_hdf5
from padis_jax.images.mat_file import list_variables, load
from padis_jax.images.source import Source, array_source, stack_arrays
from padis_jax.images.variables import as_spacing, check_spacing, choose


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
        variables = {variable.name: variable for variable in list_variables(path) if variable.numeric}
    name = choose(path, {n: v.shape for n, v in variables.items()}, variable)
    check_size(path, slices_first(variables[name].shape), 1, path.stat().st_size, compressed=True)
    beside = variables.get("spacing")
    near = [beside] if beside is not None and name != "spacing" else []
    for found in near:
        check_spacing(path, found.shape)
    with decoding(path, f"variable {name} of a .mat file"):
        loaded = load(path, [variables[name], *near])
        array = np.asarray(loaded[name])
        if array.shape != variables[name].shape:
            raise ValueError(f"its shape {array.shape} is not that of the header")
    stacked = stack_arrays(path, _slices_first(array), f"`{name}`")
    spacing = as_spacing(path, loaded["spacing"]) if near else None
    names = [f"{name} {i}" for i in range(len(stacked))]
    return array_source(path, stacked, names=names, spacing=spacing, colour=COLOUR)


def slices_first(shape: tuple[int, ...]) -> tuple[int, ...]:
    """[rows, columns(, channels)(, slices)] -> [slices, rows, columns(, channels)]."""
    return shape if len(shape) < 3 else (shape[-1], *shape[:-1])


def _slices_first(array: np.ndarray) -> np.ndarray:
    return array if array.ndim < 3 else np.moveaxis(array, -1, 0)
