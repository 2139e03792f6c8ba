"""NIfTI: a volume as axial slices, shown as DICOM shows them, whatever the order of the axes in the file.

NIfTI's affine maps voxels to millimetres towards right, anterior, superior. Slices here go from feet to head, their
rows to the back and their columns to the patient's left, so that a volume exported from a DICOM series gives the same
images. Axes are permuted and reversed for that, never interpolated; an oblique volume keeps its nearest axes.
"""

from __future__ import annotations

import gzip
import math
import threading
from pathlib import Path
from typing import NamedTuple

import numpy as np

from padis_jax.errors import UserError
from padis_jax.images.guard import check_size, decoding, library, quiet
from padis_jax.images.limit import check_decoded_bytes
from padis_jax.images.source import Origin, Source, full_scale

# NIfTI's code of the unit of length -> mm; 0 is "unknown", which programs that leave it out mean mm by.
MM = {0: 1.0, 1: 1000.0, 2: 1.0, 3: 0.001}
# The affine's axes (0 right, 1 anterior, 2 superior) of slices, rows and columns, and their sense.
_SHOWN = ((2, 1), (1, -1), (0, -1))


_EXTENSIONS = 2**24  # bytes between the header and the values: nibabel unpacks all of them


class Layout(NamedTuple):
    """Stored axes of (slices, rows, columns), and whether each runs against the stored direction."""

    axes: tuple[int, int, int]
    reversed: tuple[bool, bool, bool]


def layout(affine: np.ndarray) -> Layout:
    """How a volume with this affine [4, 4] is stored."""
    nibabel = library("nibabel", "medical", "NIfTI files")
    orientation = nibabel.io_orientation(affine)  # for each stored axis: (axis of the affine, sense)
    axes, flips = [], []
    for wanted, sense in _SHOWN:
        stored = int(np.flatnonzero(orientation[:, 0] == wanted)[0])
        axes.append(stored)
        flips.append(orientation[stored, 1] != sense)
    return Layout((axes[0], axes[1], axes[2]), (bool(flips[0]), bool(flips[1]), bool(flips[2])))


def open_nifti(path: Path, variable: str | None = None) -> Source:
    """A volume of three axes, or of a series of them (a fourth axis) the one whose number is `variable`.

    The unit is not told; the scaling of the header is applied.

    A .nii is read slice by slice; a .nii.gz is unpacked when the first slice is read, and kept in its stored type.

    Raises:
      UserError: for a damaged file, other axes, or values that are not real numbers.
    """
    nibabel = library("nibabel", "medical", "NIfTI files")
    with decoding(path, "NIfTI file"), quiet(nibabel.imageglobals.logger):
        _check_start(path)
        image = nibabel.load(path, mmap=True)
        if not isinstance(image, nibabel.Nifti1Image):
            raise UserError(f"{path}: is {type(image).__name__}, not NIfTI; convert it")
        shape = tuple(int(n) for n in image.shape)
        dtype = np.dtype(image.get_data_dtype())
        affine = np.asarray(image.affine, float)
        millimetres = MM.get(int(image.header["xyzt_units"]) & 7)
        slope, intercept, offset = image.dataobj.slope, image.dataobj.inter, int(image.dataobj.offset)
    frames = max(shape[3:4] + (1,))
    if len(shape) < 3 or min(shape) < 1 or max((*shape[4:], 1)) > 1:
        raise UserError(f"{path}: has {len(shape)} axes {shape}, expected a volume with 3, or a series of them")
    if (variable is None and frames > 1) or (variable is not None and variable not in map(str, range(frames))):
        known = f"{path}::0 to {path.name}::{frames - 1}" if frames > 1 else f"leave ::{variable} out"
        raise UserError(f"{path}: has {len(shape)} axes {shape}, {frames} volumes; name one of them: {known}")
    frame = int(variable or 0)
    if dtype.kind not in "fiub":
        raise UserError(f"{path}: voxels of type {dtype} are not real numbers")
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    if not (np.isfinite(affine).all() and abs(np.linalg.det(affine[:3, :3])) > 1e-6 * np.prod(lengths) > 0.0):
        raise UserError(f"{path}: its affine {affine.tolist()} is singular; repair the header")
    if millimetres is None:
        raise UserError(f"{path}: its unit of length (xyzt_units) is none of NIfTI's; repair the header")
    if not (np.isfinite(slope) and np.isfinite(intercept)):
        raise UserError(f"{path}: scl_slope {slope} and scl_inter {intercept} must be finite; repair the header")
    gzipped = path.name.lower().endswith(".gz")
    stored = path.stat().st_size - (0 if gzipped else offset)
    check_size(path, (shape[0] * frames, shape[1], shape[2], 1), dtype.itemsize, max(stored, 0), compressed=gzipped)
    if gzipped:  # which is unpacked whole
        size = "x".join(str(n) for n in shape)
        check_decoded_bytes(path, math.prod(shape) * dtype.itemsize, f"{size} of {dtype}")
    order = layout(affine)
    count, height, width = (shape[axis] for axis in order.axes)
    check_size(path, (count, height, width, 1), 0, 0)
    axes = millimetres * affine[:3, :3]
    rows, columns = (millimetres * float(lengths[axis]) for axis in order.axes[1:])
    # Slices of a tilted gantry are sheared: what counts is their distance along the normal of their plane.
    normal = np.cross(axes[:, order.axes[1]], axes[:, order.axes[2]])
    between = float(abs(np.linalg.det(axes)) / np.linalg.norm(normal))
    whole: list[np.ndarray] = []
    lock = threading.Lock()

    def read(index: int) -> np.ndarray:
        at = count - 1 - index if order.reversed[0] else index
        place: list[int | slice] = [slice(None)] * len(image.shape)
        place[order.axes[0]] = at
        place[3:] = [frame, *[0] * (len(image.shape) - 4)][: len(image.shape) - 3]
        with decoding(path, "NIfTI file"):
            if gzipped:
                with lock:
                    if not whole:
                        whole.append(_unpacked(path, shape, dtype, offset))
                plane = whole[0][tuple(place)]
                plane = plane if (slope, intercept) == (1.0, 0.0) else plane * slope + intercept
            else:
                plane = np.asarray(image.dataobj[tuple(place)])
        plane = plane.T if order.axes[1] > order.axes[2] else plane
        return plane[:: -1 if order.reversed[1] else 1, :: -1 if order.reversed[2] else 1, None]

    return Source(
        path=str(path),
        read=read,
        shape=(count, height, width, 1),
        dtype=dtype if (slope, intercept) == (1.0, 0.0) else np.dtype(np.float64),
        names=tuple(f"slice {index}" for index in range(count)),
        origins=tuple(Origin(path, index, variable or "") for index in range(count)),
        full=full_scale(dtype) if (slope, intercept) == (1.0, 0.0) else None,
        spacing=(between, rows, columns),
    )


def _unpacked(path: Path, shape: tuple[int, ...], dtype: np.dtype, offset: int) -> np.ndarray:
    """The voxels as stored. The file is read to its end, where its checksum is; without, damage would pass unseen."""
    nibabel = library("nibabel", "medical", "NIfTI files")
    with gzip.open(path, "rb") as handle:
        voxels = nibabel.volumeutils.array_from_file(shape, dtype, handle, offset, order="F", mmap=False)
        if len(handle.read(_EXTENSIONS + 1)) > _EXTENSIONS:
            raise ValueError("it holds far more than its header says")
    return np.asarray(voxels)


def _check_start(path: Path) -> None:
    """Refuses values that begin further behind the header than any extension reaches."""
    named = path.name.lower().endswith(".gz")
    with open(path, "rb") as plain:
        packed = plain.read(2) == b"\x1f\x8b"
    if packed != named:  # browsers unpack what they load, and keep the name
        is_, name = ("", path.name + ".gz") if packed else ("not ", path.name[:-3])
        raise UserError(f"{path}: is {is_}compressed by gzip, against its name; rename it to {name}")
    with (gzip.open if named else open)(path, "rb") as handle:
        start = handle.read(540)
    for order in "<>":
        size = np.frombuffer(start[:4], f"{order}i4")
        form = {348: ("f4", 108), 540: ("i8", 168)}.get(int(size[0]) if len(size) else 0)
        if form is not None and len(start) >= form[1] + 8:
            offset = float(np.frombuffer(start, f"{order}{form[0]}", 1, form[1])[0])
            if not offset <= _EXTENSIONS:
                raise ValueError(f"its values begin at byte {offset:g}")
