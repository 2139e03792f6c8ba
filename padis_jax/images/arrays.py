"""NumPy files: .npy, mapped from the disk, and .npz."""

from __future__ import annotations

import dataclasses
import math
import zipfile
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy

from padis_jax.errors import UserError
from padis_jax.images.guard import check_size, decoding
from padis_jax.images.limit import check_decoded_bytes
from padis_jax.images.source import Source, array_source, stack_arrays
from padis_jax.images.variables import as_places, as_spacing, as_unit, choose, rows_run_up
from padis_jax.window import HOUNSFIELD

_LONGEST = 2**16  # bytes of an array's header


def open_npy(path: Path) -> Source:
    """[H, W], [N, H, W] or [N, H, W, C]; slices are read from the disk when they are needed.

    Raises:
      UserError: for a damaged file, objects, or another shape.
    """
    array = map_npy(path)
    stacked = stack_arrays(path, array)
    check_size(path, stacked.shape, array.dtype.itemsize, path.stat().st_size)
    source = array_source(path, stacked, names=[f"{path.stem} {index}" for index in range(len(stacked))])
    size = path.stat().st_size

    def read(index: int) -> np.ndarray:
        # What lies beyond the end of a mapped file ends the process (SIGBUS) instead of raising.
        try:
            found = path.stat().st_size
        except OSError as error:
            raise UserError(f"{path}: disappeared while it was being read ({error.strerror}); restore it") from error
        if found < size:
            raise UserError(f"{path}: became shorter while it was being read ({found} of {size} bytes); restore it")
        return source.read(index)

    return dataclasses.replace(source, read=read)


def map_npy(path: Path) -> np.ndarray:
    """The array of a .npy file, mapped from the disk.

    Raises:
      UserError: for a damaged file, or objects.
    """
    with decoding(path, ".npy of numbers"):
        _check_magic(path, npy.MAGIC_PREFIX)
        with open(path, "rb") as handle:
            if _array_header(handle)[1].hasobject:
                raise ValueError("it holds Python objects, which are not read")
        return np.load(path, mmap_mode="r", allow_pickle=False)


def open_npz(path: Path, variable: str | None = None) -> Source:
    """`volume` [N, H, W] in Hounsfield units, or the one array of images, or the named one.

    Beside it, `spacing` [3] in mm, `unit`, a text, and the writers' `places` and `affine`. Read whole, because the
    archive is compressed.

    Raises:
      UserError: for a damaged file, objects, an array that is not there, or values that are no Hounsfield units.
    """
    with decoding(path, ".npz of arrays"):
        _check_magic(path, b"PK")
        with open(path, "rb") as handle, np.load(handle, allow_pickle=False) as archive:
            headers = {name: header(archive.zip, name) for name in arrays_in(archive)}
            numeric = {name: shape for name, (shape, dtype) in headers.items() if dtype.kind in "fiub"}
            name = choose(path, numeric, variable, usual="volume")
            near = [key for key in ("spacing", "unit", "places", "affine") if key in headers and key != name]
            for key in (name, *near):
                check_array(path, key, *headers[key])
            array, beside = archive[name], {key: archive[key] for key in near}
    if name == "volume" and (array.ndim != 3 or 0 in array.shape):
        raise UserError(f"{path}: `volume` has shape {array.shape}, expected [slices, rows, columns]")
    stacked = array[..., None] if name == "volume" else stack_arrays(path, array, f"`{name}`")
    unit = as_unit(path, beside["unit"]) if "unit" in beside else HOUNSFIELD.unit if name == "volume" else None
    doubt = _doubt(path, name, array, told="unit" in beside) if unit == HOUNSFIELD.unit else ""
    spacing = as_spacing(path, beside["spacing"]) if "spacing" in beside else None
    names = [f"slice {index}" for index in range(len(stacked))]
    source = array_source(path, stacked, names=names, unit=unit, spacing=spacing)
    # The shipped head and volumes like it lie with the face down; files that tell their unit are our results.
    up = rows_run_up(beside["affine"]) if "affine" in beside else name == "volume" and "unit" not in beside
    places = as_places(path, beside["places"], len(stacked)) if spacing and "places" in beside else ()
    return dataclasses.replace(source, rows_up=up, doubt=doubt, places=places)


def _doubt(path: Path, name: str, array: np.ndarray, *, told: bool) -> str:
    """Why an array is not in Hounsfield units, as it should be; "" where it may be."""
    if array.dtype.kind == "f" and array.min() >= 0.0 and array.max() <= 1.0:
        return f"{path}: `{name}` lies in [0, 1], so it is not in Hounsfield units"
    if array.dtype.itemsize == 1 and not told:
        return f"{path}: `{name}` is {array.dtype}, which does not hold Hounsfield units"
    return ""


def arrays_in(archive: Any) -> list[str]:
    """The names of the arrays of an open .npz; what else an archiver put in (a text, a folder, its own) has none."""
    members = set(archive.zip.namelist())
    return [name for name in archive.files if f"{name}.npy" in members and not name.rpartition("/")[2].startswith("._")]


def check_array(path: str | Path, name: str, shape: tuple[int, ...], dtype: np.dtype) -> None:
    """Raises UserError for an array that takes more memory than the limit."""
    size = "x".join(str(n) for n in shape)
    check_decoded_bytes(path, math.prod(shape) * dtype.itemsize, f"{name}, {size} of {dtype}")


def _check_magic(path: Path, magic: bytes) -> None:
    """NumPy takes a file that starts in any other way for a pickle, and then suggests to allow that."""
    with open(path, "rb") as handle:
        if handle.read(len(magic)) != magic:
            raise ValueError(f"it does not start with {magic!r}")


def _array_header(handle: IO[bytes]) -> tuple[tuple[int, ...], np.dtype]:
    start = handle.read(12)
    if start[6:7] != b"\1" and int.from_bytes(start[8:12], "little") > _LONGEST:  # NumPy would read all of it
        raise ValueError("the header of an array is longer than any that NumPy writes")
    handle.seek(0)
    version = npy.read_magic(handle)
    read = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}[version]
    shape, _, dtype = read(handle)
    return shape, dtype


def header(archive: zipfile.ZipFile, name: str) -> tuple[tuple[int, ...], np.dtype]:
    """(shape, type) of a member; the archive's and the array's own statement of its size must agree."""
    member = name if name in archive.namelist() else f"{name}.npy"
    about = archive.getinfo(member)
    if about.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):  # others are unpacked without a bound
        raise UserError(f"{archive.filename}: `{name}` is compressed in a way that NumPy does not write; save it again")
    with archive.open(member) as handle:
        shape, dtype = _array_header(handle)
    if dtype.hasobject:
        return shape, dtype
    if 0 not in shape:
        needed = int(np.prod(shape, dtype=object)) * dtype.itemsize
        if needed > about.file_size:
            raise UserError(f"{archive.filename}: `{name}` declares {needed} bytes, but holds {about.file_size}")
        stored = about.compress_size + 64
        check_size(f"{archive.filename}", (math.prod(shape), 1), dtype.itemsize, stored, compressed=True)
    return shape, dtype
