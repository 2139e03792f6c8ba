"""Measured sinograms from files: .npy, .npz, .mat (versions 5 and 7.3), HDF5 and TIFF, with what is stored beside them.

Arrays go by their names, groups and MATLAB structures by paths such as tb_75_165/sinogram. Read are

    sinogram [views, bins]          line integrals, or `counts` with `flat` and `dark`
    angles_degrees, angles_radians  [views], optional
    parameters                      optional: HelTomo's structure, as in the Helsinki Tomography Challenge's .mat files

Nothing in a file is executed; sizes are checked before memory is taken.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import scipy.io

from padis_jax.errors import UserError
from padis_jax.images import open_source
from padis_jax.images.arrays import header
from padis_jax.images.guard import check_size, decoding, library
from padis_jax.measurements.geometry import ScanGeometry

SUFFIXES = (".npy", ".npz", ".mat", ".h5", ".hdf5", ".tif", ".tiff")
_SINOGRAMS = ("sinogram", "counts", "projections", "proj", "data")
_ANGLES = {"angles_degrees": "degrees", "angles_deg": "degrees", "angles_radians": "radians", "angles_rad": "radians"}
# Names in HelTomo's `parameters`: what they are to us. The detector may have been binned after the scan ("Post").
_HELTOMO = {
    "source_distance_mm": ("distanceSourceOrigin",),
    "source_to_detector": ("distanceSourceDetector",),
    "spacing_mm": ("pixelSizePost", "pixelSize"),
    "bins": ("numDetectorsPost", "numDetectors"),
}


class Measured(NamedTuple):
    """What a file of measurements holds.

    Attributes:
      sinogram: [views, bins], as stored.
      name: of that array.
      flat: counts without an object, [bins] or [n, bins], or None.
      dark: counts without rays, or None.
      angles: [views], or None.
      angle_unit: of `angles`.
      geometry: where the file tells all of it.
    """

    sinogram: np.ndarray
    name: str
    flat: np.ndarray | None = None
    dark: np.ndarray | None = None
    angles: tuple[float, ...] | None = None
    angle_unit: str = "degrees"
    geometry: ScanGeometry | None = None


def read_sinogram(path: str | Path, *, row: int = 0) -> Measured:
    """Reads a measured sinogram.

    Args:
      path: the file, with `::NAME` for one of several arrays or groups. A TIFF of one page is [views, bins]; one of
        several pages has a view on each, [rows, bins].
      row: detector row, where there are several: arrays [views, rows, bins].

    Raises:
      UserError: naming the file, what is wrong with it, and the remedy.
    """
    name, _, wanted = str(path).partition("::")
    file = Path(name)
    if not file.is_file():
        raise UserError(f"{file}: no such file")
    with decoding(file, "measurement file"):
        arrays = _arrays(file)
    return _choose(file, arrays, wanted, row)


def _arrays(file: Path) -> dict[str, np.ndarray]:
    """Every numeric array of a file by its path in it."""
    suffix = file.suffix.lower()
    if suffix == ".npy" or suffix in (".tif", ".tiff"):
        return {"sinogram": _slices(file)}
    if suffix == ".npz":
        return _npz(file)
    with open(file, "rb") as handle:
        head = handle.read(520)
    if b"\x89HDF\r\n\x1a\n" in (head[:8], head[512:]):
        return _hdf5(file)
    if suffix == ".mat":
        shapes = [shape for _, shape, _ in scipy.io.whosmat(str(file), appendmat=False)]
        check_size(file, (1, sum(math.prod(shape) for shape in shapes), 1), 1, file.stat().st_size, compressed=True)
        loaded = scipy.io.loadmat(
            str(file), appendmat=False, simplify_cells=True, verify_compressed_data_integrity=True
        )
        return dict(_flat(loaded, ""))
    raise UserError(f"{file}: not a known type of measurement; use {', '.join(SUFFIXES)}")


def _slices(file: Path) -> np.ndarray:
    """[views, bins] of one page or array, [views, rows, bins] of several."""
    source = open_source(file)
    pages = [source.read(index)[..., 0] for index in range(source.shape[0])]
    return pages[0] if len(pages) == 1 else np.stack(pages)


def _npz(file: Path) -> dict[str, np.ndarray]:
    arrays = {}
    with open(file, "rb") as handle, np.load(handle, allow_pickle=False) as archive:
        declared = sum(info.file_size for info in archive.zip.infolist())
        check_size(file, (1, max(declared, 1), 1), 1, file.stat().st_size, compressed=True)
        for name in archive.files:
            shape, dtype = header(archive.zip, name)
            if dtype.kind in "fiub" and 0 not in shape:
                arrays[name] = archive[name]
    return arrays


def _hdf5(file: Path) -> dict[str, np.ndarray]:
    h5py = library("h5py", "medical", "HDF5 files and MATLAB files of version 7.3")
    arrays: dict[str, np.ndarray] = {}
    with h5py.File(file, "r") as opened:
        matlab = file.suffix.lower() == ".mat"  # whose axes are reversed

        def visit(name: str, item: Any) -> None:  # follows no links into other files
            if not isinstance(item, h5py.Dataset) or item.dtype.kind not in "fiub" or name.startswith("#"):
                return
            if item.external or item.is_virtual:
                raise UserError(f"{file}: the values of {name} are in other files; copy them into this one (h5repack)")
            if not item.size:
                return
            stored = item.id.get_storage_size()
            check_size(file, (1, *(item.shape or (1,)), 1), item.dtype.itemsize, stored, compressed=True)
            values = np.asarray(item[()])
            arrays[name] = values.T if matlab else values

        opened.visititems(visit)
    return arrays


def _flat(value: Any, name: str, depth: int = 0) -> Iterator[tuple[str, np.ndarray]]:
    """The numeric leaves of nested dicts."""
    if isinstance(value, Mapping) and depth < 8:
        for key, item in value.items():
            if not str(key).startswith("__"):
                yield from _flat(item, f"{name}/{key}" if name else str(key), depth + 1)
    elif not isinstance(value, (str, bytes)):
        array = np.asarray(value)
        if array.dtype.kind in "fiub":
            yield name, array


def _choose(file: Path, arrays: Mapping[str, np.ndarray], wanted: str, row: int) -> Measured:
    listed = ", ".join(f"{n} {a.shape}" for n, a in list(arrays.items())[:8]) or "nothing"
    planes = {n: a for n, a in arrays.items() if a.ndim in (2, 3) and min(a.shape) > 1}
    if wanted:
        named = [n for n in planes if n == wanted or n in {f"{wanted}/{last}" for last in _SINOGRAMS}]
    else:
        named = [n for n in planes if n.rsplit("/", 1)[-1].lower() in _SINOGRAMS] or list(planes)
    if len(named) != 1:
        which = f"no array or group {wanted!r}" if wanted else "several arrays" if named else "no array [views, bins]"
        hint = f"; name one: {file}::{named[0]}" if named else ""
        raise UserError(f"{file}: holds {listed}: {which} that could be the sinogram{hint}")
    name = named[0]
    array = planes[name]
    if array.ndim == 3:
        if not 0 <= row < array.shape[1]:
            raise UserError(f"{file}: {name} {array.shape} has {array.shape[1]} detector rows; there is no row {row}")
        array = array[:, row]
    group = name.rpartition("/")[0]
    prefix = f"{group}/" if group else ""
    beside = {n.removeprefix(prefix): a for n, a in arrays.items() if n.startswith(prefix)}
    flat, dark = (_field(beside, kind, row) for kind in ("flat", "dark"))
    angles, unit = None, "degrees"
    for key, angle_unit in _ANGLES.items():
        if key in beside:
            angles, unit = tuple(float(a) for a in np.atleast_1d(beside[key]).ravel()), angle_unit
    found = Measured(np.asarray(array), name, flat, dark, angles, unit)
    try:
        geometry = _heltomo(beside, found)
    except (ValueError, TypeError) as error:
        raise UserError(f"{file}: the parameters next to {name}: {error}") from error
    if geometry is None:
        return found
    return found._replace(geometry=geometry, angles=geometry.angles, angle_unit=geometry.angle_unit)


def _field(beside: Mapping[str, np.ndarray], kind: str, row: int) -> np.ndarray | None:
    found = next((beside[n] for n in (kind, f"{kind}_field", f"{kind}s") if n in beside), None)
    if found is None:
        return None
    return found[:, row] if found.ndim == 3 and row < found.shape[1] else np.squeeze(found)


def _heltomo(beside: Mapping[str, np.ndarray], found: Measured) -> ScanGeometry | None:
    values = {n.rpartition("/")[2]: a for n, a in beside.items() if n.startswith("parameters/")}
    about: dict[str, float] = {}
    for ours, theirs in _HELTOMO.items():
        name = next((n for n in theirs if n in values and np.size(values[n]) == 1), None)
        if name is None:
            return None
        about[ours] = float(np.ravel(values[name])[0])
    angles = found.angles or tuple(float(a) for a in np.ravel(values["angles"])) if "angles" in values else found.angles
    if angles is None:
        return None
    detector = about.pop("source_to_detector") - about["source_distance_mm"]
    bins = int(about.pop("bins"))
    return ScanGeometry("fan", angles, "degrees", bins, detector_distance_mm=detector, **about)
