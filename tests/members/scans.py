"""Measured scans in the files of other programs: one sinogram in every container, order of axes and type of counts."""

from __future__ import annotations

import functools
import itertools
import json
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import scipy.io
import scipy.sparse
import tifffile
from tiny import write_weights

from members import REFUSED, Member
from padis_jax.measurements.load import MeasurementConfig, load_scan

KIND = "measurement files"
RNG = np.random.default_rng(5)
VIEWS, ROWS, BINS = 10, 3, 12
LINES = RNG.uniform(0.1, 2.0, (VIEWS, ROWS, BINS))
ANGLES = np.arange(VIEWS) * 18.0
ROW = 1
ORDERS = tuple(itertools.permutations(("views", "rows", "bins")))


def ordered(array: np.ndarray, order: tuple[str, ...]) -> np.ndarray:
    """[views, rows, bins] with its axes in another order."""
    return np.ascontiguousarray(array.transpose([("views", "rows", "bins").index(name) for name in order]))


def _npz(path: Path, arrays: dict[str, Any]) -> None:
    np.savez(path, **{name.rpartition("/")[2]: array for name, array in arrays.items()})


def _mat(path: Path, arrays: dict[str, Any]) -> None:
    scipy.io.savemat(path, {name.rpartition("/")[2]: array for name, array in arrays.items()}, do_compression=True)


def _hdf5(path: Path, arrays: dict[str, Any]) -> None:
    matlab = path.suffix == ".mat"
    with h5py.File(path, "w", userblock_size=512 if matlab else 0) as file:
        for name, array in arrays.items():
            file[name] = np.asarray(array).T if matlab else array


CONTAINERS: dict[str, tuple[str, Callable[[Path, dict[str, Any]], None]]] = {
    "npz": ("x.npz", _npz), "mat 5": ("x.mat", _mat), "mat 7.3": ("x.mat", _hdf5), "HDF5": ("x.h5", _hdf5),
}  # fmt: skip


def scanned(folder: Path, arrays: dict[str, Any], container: str, *, angles: bool = True) -> Path:
    """The file, and its geometry with or without the angles."""
    name, write = CONTAINERS[container]
    write(folder / name, arrays)
    about: dict[str, Any] = {"beam": "parallel", "angle_unit": "degrees", "bins": BINS, "spacing_mm": 1.0}
    (folder / "g.json").write_text(json.dumps(about | ({"angles": ANGLES.tolist()} if angles else {})))
    return folder / name


def loaded(path: Path, **settings: Any) -> np.ndarray:
    """Line integrals and the angles in degrees."""
    found = load_scan(MeasurementConfig(path=str(path), geometry=str(path.parent / "g.json"), **settings))
    return np.concatenate([found.sinogram, np.degrees(found.geometry.radians)[:, None]], 1)


@functools.cache
def _weights() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        return write_weights(Path(folder, "w.safetensors")).read_bytes()


def planned(path: Path, geometry: Path, *flags: str) -> list[str]:
    """The words by which sample.py reads a scan and says what it would do."""
    (path.parent / "w.safetensors").write_bytes(_weights())
    return ["sample", "--weights", f"{path.parent}/w.safetensors", "--measurement.path", str(path), *flags,
            "--measurement.geometry", str(geometry), "--measurement.attenuation", "0.1", "--dry-run",
            "--workdir", f"{path.parent}/out"]  # fmt: skip


def expected(lines: np.ndarray) -> np.ndarray:
    """What `loaded` gives of line integrals [views, bins]."""
    return np.concatenate([lines, ANGLES[:, None]], 1)


def members() -> Iterator[Member]:
    """All of them."""

    def one(
        name: str, arrays: dict[str, Any], container: str, right: Any, *, angles: bool = True, **settings: Any
    ) -> Member:
        def make(folder: Path) -> Path:
            return scanned(folder, arrays, container, angles=angles)

        def command(path: Path) -> list[str]:
            flags = [f"--measurement.{k}={v}" for k, v in settings.items()]
            return planned(path, path.parent / "g.json", *flags)

        def read(path: Path) -> np.ndarray:
            return loaded(path, **settings)

        return Member(KIND, name, make, read, right, command=command)

    plane = LINES[:, ROW]
    for container, transposed, kind in itertools.product(CONTAINERS, (False, True), ("f4", "f8", ">f4", "i2")):
        values = np.rint(50 * plane) if kind == "i2" else plane
        stored = (values.T if transposed else values).astype(kind if container != "mat 5" else kind.strip(">"))
        what = f"{container} of {kind}, {'bins by views' if transposed else 'views by bins'}"
        if transposed:  # which the geometry tells, and a flag corrects
            yield one(f"{what}, no flag", {"sinogram": stored}, container, REFUSED)
        axes = {"axes": "bins,views"} if transposed else {}
        yield one(what, {"sinogram": stored}, container, expected(values), **axes)
    for container, order in itertools.product(CONTAINERS, ORDERS):
        arrays = {"projections": ordered(LINES, order)}
        yield one(f"{container} in {order}", arrays, container, expected(plane), axes=",".join(order), row=ROW)
        if order != ORDERS[0]:
            yield one(f"{container} in {order}, no flag", arrays, container, REFUSED, row=ROW)
    flat, dark = RNG.uniform(4e4, 6e4, (ROWS, BINS)), RNG.uniform(50, 150, (ROWS, BINS))
    counts = np.rint(dark + (flat - dark) * np.exp(-LINES))
    flat, dark = np.rint(flat), np.rint(dark)
    right = -np.log((counts - dark) / (flat - dark))[:, ROW]
    for container, order, fields in itertools.product(CONTAINERS, ORDERS, ("stack", "plane", "one")):
        if container == "mat 5" and fields == "one":
            continue  # MATLAB 5 has no arrays of one axis
        for kind, group in (("u2", "exchange/"), ("f4", ""), ("i4", "exchange/")):
            if group and container in ("npz", "mat 5"):
                group = ""
            about = {"axes": ",".join(order), "row": ROW} if fields != "one" else {"row": 0}

            def field(array: np.ndarray, fields: str = fields, order: tuple[str, ...] = order) -> np.ndarray:
                if fields == "one":
                    return array[ROW]
                without = tuple(name for name in order if name != "views")
                turned = array if without == ("rows", "bins") else array.T
                return turned if fields == "plane" else ordered(np.repeat(array[None], 4, 0), order)

            stored = ordered(counts, order) if fields != "one" else counts[:, ROW]
            arrays = {"data": stored, "data_white": field(flat), "data_dark": field(dark), "theta": ANGLES}
            arrays = {f"{group}{name}": a.astype(kind) if name != "theta" else a for name, a in arrays.items()}
            what = f"counts, {container}, {kind}, {order}, {fields} fields"
            if fields == "one" and order != ORDERS[0]:
                continue
            yield one(what, arrays, container, expected(right), angles=False, **about)
            bare = {name: a for name, a in arrays.items() if "white" not in name and "dark" not in name}
            yield one(f"{what}, without", bare, container, REFUSED, angles=False, **about)
    for container in CONTAINERS:
        two = {"first": plane, "second": plane + 1}
        yield one(f"{container}, two arrays", two, container, REFUSED)
        nan = plane.copy()
        nan[3, 4] = np.nan
        yield one(f"{container} without angles", {"sinogram": plane}, container, REFUSED, angles=False)
        yield one(f"{container}, too few bins", {"sinogram": plane[:, 1:]}, container, REFUSED)
        radians = {"sinogram": plane, "angles_radians": np.radians(ANGLES)}
        yield one(f"{container}, radians", radians, container, expected(plane), angles=False)
        yield one(f"{container}, theta", {"sinogram": plane, "theta": ANGLES}, container, expected(plane), angles=False)
        yield one(f"{container}, complex", {"sinogram": plane.astype(complex)}, container, REFUSED)
        yield one(f"{container}, no such row", {"data": LINES}, container, REFUSED, row=9)
    sparse = scipy.sparse.random(400, 900, 0.01, "csc", random_state=0)
    for name, more in (
        ("sparse", {"A": sparse}),
        ("text", {"note": "x"}),
        ("cell", {"c": np.array([{"a": 1}], object)}),
    ):
        yield one(f"mat 5 beside a {name}", {"m": plane, **more}, "mat 5", expected(plane))
    for kind, stack in itertools.product(("f4", "f8", "u2"), (False, True)):
        values = np.rint(100 * LINES) if kind == "u2" else LINES

        def tiff(folder: Path, values: np.ndarray = values, kind: str = kind, stack: bool = stack) -> Path:
            scanned(folder, {"a": plane}, "npz")
            shown = (values if stack else values[:, ROW]).astype(kind)
            tifffile.imwrite(folder / "x.tif", shown, photometric="minisblack")
            return folder / "x.tif"

        def pages(path: Path, row: int = ROW if stack else 0) -> np.ndarray:
            return loaded(path, row=row)

        what = f"TIFF of {kind}{', a page each view' if stack else ''}"
        yield Member(KIND, what, tiff, pages, expected(values[:, ROW]))
