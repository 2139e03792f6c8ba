"""The arrays of a file by their paths in it, described by its headers and read one at a time.

Files are .npy, .npz, .mat (versions 5 and 7.3), HDF5 and TIFF. Sizes are checked before memory is taken, an array that
is not asked for is not read, and nothing in a file is executed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from padis_jax.errors import UserError
from padis_jax.images import open_source
from padis_jax.images.arrays import arrays_in, check_array, header, map_npy
from padis_jax.images.guard import check_size, decoding, library
from padis_jax.images.limit import check_decoded_bytes
from padis_jax.images.mat_file import STRUCTURES, list_variables, load
from padis_jax.images.variables import as_text

SUFFIXES = (".npy", ".npz", ".mat", ".h5", ".hdf5", ".tif", ".tiff")
Place = tuple[int | slice, ...]


class Stored(NamedTuple):
    """An array in a file: shape, type, what reads it, or the part at a place, and its unit where that is told.

    `partial` arrays are read in part at the cost of the part; of others all is unpacked.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    read: Callable[[Place], np.ndarray]
    unit: str = ""
    partial: bool = False

    @property
    def trouble(self) -> str:
        """Why these are no real numbers, "" where they are."""
        if 0 in self.shape:
            return f"is empty {self.shape}"
        return "" if self.dtype.kind in "fiub" else f"holds no real numbers ({self.dtype})"


def open_arrays(file: Path) -> dict[str, Stored]:
    """Every array of a file by its path in it; of those with `trouble` nothing can be read.

    Raises:
      UserError: naming the file, what is wrong with it, and the remedy.
    """
    with decoding(file, "measurement file"):
        suffix = file.suffix.lower()
        with open(file, "rb") as handle:
            head = handle.read(520)
        if b"\x89HDF\r\n\x1a\n" in (head[:8], head[512:]):
            return _hdf5(file)
        readers = {".npy": _npy, ".npz": _npz, ".mat": _mat, ".tif": _tiff, ".tiff": _tiff}
        if suffix not in readers:
            raise UserError(f"{file}: not a known type of measurement; use {', '.join(SUFFIXES)}")
        return readers[suffix](file)


def held_array(array: np.ndarray) -> Stored:
    """An array in memory, or mapped from the disk."""
    return Stored(array.shape, array.dtype, lambda place: np.asarray(array[place]), partial=True)


def _npy(file: Path) -> dict[str, Stored]:
    return {"sinogram": held_array(map_npy(file))}


def _tiff(file: Path) -> dict[str, Stored]:
    """[rows or views, bins] of one page, [views, rows, bins] of several."""
    source = open_source(file)
    count, height, width, channels = source.shape
    if channels != 1:
        raise UserError(f"{file}: is in colour; a sinogram has one value in each place")
    shape = (height, width) if count == 1 else (count, height, width)

    def read(place: Place) -> np.ndarray:
        check_decoded_bytes(file, math.prod(shape) * source.dtype.itemsize, f"{count} pages")
        pages = np.stack([source.read(index)[..., 0] for index in range(count)])
        return np.asarray(pages.reshape(shape)[place])

    return {"sinogram": Stored(shape, source.dtype, read)}


def _npz(file: Path) -> dict[str, Stored]:
    with open(file, "rb") as handle, np.load(handle, allow_pickle=False) as archive:
        headers = {name: header(archive.zip, name) for name in arrays_in(archive)}

    def stored(name: str, shape: tuple[int, ...], dtype: np.dtype) -> Stored:
        def read(place: Place) -> np.ndarray:
            check_array(file, name, shape, dtype)
            with open(file, "rb") as handle, np.load(handle, allow_pickle=False) as archive:
                return np.asarray(archive[name][place])

        return Stored(shape, dtype, read)

    return {name: stored(name, *about) for name, about in headers.items()}


def _hdf5(file: Path) -> dict[str, Stored]:
    h5py = library("h5py", "medical", "HDF5 files and MATLAB files of version 7.3")
    arrays: dict[str, Stored] = {}
    matlab = file.suffix.lower() == ".mat"  # whose axes are reversed

    def stored(name: str, item: Any) -> Stored:
        shape, unit = tuple((0,) if item.shape is None else item.shape), as_text(item.attrs.get("units", ""))

        def read(place: Place) -> np.ndarray:
            with h5py.File(file, "r") as opened:
                data = opened[name]
                if data.external or data.is_virtual:
                    raise UserError(
                        f"{file}: the values of {name} are in other files; copy them into this one (h5repack)"
                    )
                kept = data.id.get_storage_size()
                check_size(file, (math.prod(shape), 1), data.dtype.itemsize, kept, compressed=True)
                full = (*place, *(slice(None) for _ in range(len(shape) - len(place))))
                part = math.prod(
                    n for n, at in zip(shape[::-1] if matlab else shape, full, strict=True) if at == slice(None)
                )
                most = max(part, math.prod(data.chunks or ())) * data.dtype.itemsize  # whole chunks are unpacked
                check_decoded_bytes(file, most, f"{name}, {'x'.join(map(str, shape))} of {data.dtype}")
                values = np.asarray(data[full[::-1] if matlab else full])
            return values.T if matlab else values

        return Stored(shape[::-1] if matlab else shape, item.dtype, read, unit, partial=item.chunks is None)

    def visit(name: str, item: Any) -> None:  # follows no links into other files
        if isinstance(item, h5py.Dataset) and not name.startswith("#"):
            arrays[name] = stored(name, item)

    with h5py.File(file, "r") as opened:
        opened.visititems(visit)
    return arrays


def _mat(file: Path) -> dict[str, Stored]:
    """Full arrays, and those in structures; a sparse matrix, such as the system's, is left in the file."""
    variables = list_variables(file)

    def stored(variable: Any) -> Stored:
        if variable.numeric and 0 not in variable.shape:
            check_size(file, (math.prod(variable.shape), 1), 1, file.stat().st_size, compressed=True)
        return Stored(
            variable.shape,
            np.dtype(float if variable.numeric else object),
            lambda place: np.asarray(load(file, [variable])[variable.name][place]),
        )

    arrays = {v.name: stored(v) for v in variables if v.kind not in STRUCTURES}
    inside = load(file, [v for v in variables if v.kind in STRUCTURES], simplify=True)
    return arrays | {name: held_array(array) for name, array in _flat(inside, "")}


def _flat(value: Any, name: str, depth: int = 0) -> Iterator[tuple[str, np.ndarray]]:
    """The arrays in nested dicts; lists are cells, and arrays of structures, which have no names within."""
    if isinstance(value, Mapping) and depth < 8:
        for key, item in value.items():
            if not str(key).startswith("__"):
                yield from _flat(item, f"{name}/{key}" if name else str(key), depth + 1)
    elif not isinstance(value, (str, bytes, list)):
        yield name, np.asarray(value)
