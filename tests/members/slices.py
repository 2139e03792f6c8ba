"""Volumes of which a part is damaged, read slice by slice as `--image.index` and `--measurement.row` read them."""

from __future__ import annotations

import functools
import json
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import nibabel
import numpy as np
import scipy.io
import tifffile
from medical import write_nifti, write_series
from tiny import write_weights

from members import EITHER, Member
from members.damage import damaged
from padis_jax.errors import UserError
from padis_jax.images import HOUNSFIELD, PLAIN
from padis_jax.measurements.load import MeasurementConfig
from padis_jax.runs.config import Experiment
from padis_jax.runs.image_config import ImageConfig
from padis_jax.runs.scan_config import ScanConfig
from padis_jax.runs.volume import open_volume, refused_slices
from padis_jax.weights import Weights, load_weights

KIND = "volumes"
DEPTH, SIDE, VIEWS, BINS = 4, 16, 10, 12
HU = np.random.default_rng(6).integers(-1000, 1000, (DEPTH, SIDE, SIDE)).astype(np.int16)
GREY = np.random.default_rng(8).integers(0, 256, HU.shape).astype(np.uint8)
LINES = np.random.default_rng(7).uniform(0.1, 2, (VIEWS, DEPTH, BINS))
GEOMETRY = {"beam": "parallel", "angles": [18.0 * i for i in range(VIEWS)], "bins": BINS, "spacing_mm": 1.0,
            "angle_unit": "degrees"}  # fmt: skip


@functools.cache
def _weights(name: str) -> tuple[bytes, Weights]:
    """Of images in the unit of a file of that name."""
    with tempfile.TemporaryDirectory() as folder:
        window = HOUNSFIELD if name in ("x.nii", "x.nii.gz", "series", "x.npz") else PLAIN
        path = write_weights(Path(folder, "w.safetensors"), window=window)
        return path.read_bytes(), load_weights(path)


def _hdf5(path: Path, name: str, array: np.ndarray, **packing: Any) -> None:
    with h5py.File(path, "w") as file:
        file.create_dataset(name, data=array, **packing)


# name -> what writes it; of a folder one of its files is damaged.
IMAGES: dict[str, Callable[[Path], object]] = {
    "x.nii": lambda p: write_nifti(p, HU),
    "x.nii.gz": lambda p: nibabel.save(nibabel.Nifti1Image(HU.T.copy(), np.eye(4)), p),
    "series": lambda p: write_series(p, HU),
    "x.tif": lambda p: tifffile.imwrite(p, GREY, photometric="minisblack"),
    "packed.tif": lambda p: tifffile.imwrite(p, GREY, photometric="minisblack", compression="zlib"),
    "imagej.tif": lambda p: tifffile.imwrite(p, GREY, imagej=True),
    "x.npy": lambda p: np.save(p, GREY),
    "x.npz": lambda p: np.savez_compressed(p, volume=HU, spacing=np.ones(3)),
    "x.h5": lambda p: _hdf5(p, "images", GREY, chunks=(1, SIDE, SIDE), compression="gzip"),
    "x.mat": lambda p: scipy.io.savemat(p, {"images": GREY.transpose(1, 2, 0)}),
}
SCANS: dict[str, Callable[[Path], object]] = {
    "y.npy": lambda p: np.save(p, LINES),
    "y.npz": lambda p: np.savez_compressed(p, sinogram=LINES),
    "y.h5": lambda p: _hdf5(p, "sinogram", LINES, chunks=(VIEWS, 1, BINS), compression="gzip"),
    "y.mat": lambda p: scipy.io.savemat(p, {"sinogram": LINES}),
    "y.tif": lambda p: tifffile.imwrite(p, LINES.astype(np.float32), photometric="minisblack"),
}


def _config(path: Path) -> Experiment:
    if path.name in SCANS:
        scan = MeasurementConfig(str(path), str(path.parent / "g.json"), row="all")
        return Experiment(measurement=scan)
    return Experiment(image=ImageConfig(str(path), "all"), scan=ScanConfig(protocol="paper"))


def _read(path: Path) -> None:
    """Every slice is one of the right shape, finite and in the window, or is refused in one line; all, if none is."""
    volume = open_volume(_config(path), _weights(path.name)[1])
    refused = {number: str(error) for number, error in refused_slices(volume) if error is not None}
    assert all(0 < len(line) < 2000 and "\n" not in line for line in refused.values()), refused
    if len(refused) == len(volume.numbers):
        raise UserError(next(iter(refused.values())))
    for number in volume.numbers if volume.truth else ():
        if number not in refused:
            values = volume.source.images[volume.numbers.index(number)]
            assert values.shape[-1] == 1 and np.isfinite(values).all() and 0 <= values.min() <= values.max() <= 1


def _command(path: Path) -> list[str]:
    (path.parent / "w.safetensors").write_bytes(_weights(path.name)[0])
    chosen = ["--image.path", str(path), "--image.index", "all", "--scan.protocol", "paper"]
    if path.name in SCANS:
        chosen = ["--measurement.path", str(path), "--measurement.row", "all", "--measurement.geometry",
                  str(path.parent / "g.json")]  # fmt: skip
    return ["sample", "--weights", f"{path.parent}/w.safetensors", *chosen, "--dry-run", "--quiet", "--json",
            "--workdir", f"{path.parent}/out"]  # fmt: skip


def members(seed: int, count: int) -> Iterator[Member]:
    """Each file in turn, as it is and after accidents."""
    files = {**IMAGES, **SCANS}
    for case in range(count):
        name = list(files)[case % len(files)]

        def make(folder: Path, name: str = name, case: int = case) -> Path:
            rng = np.random.default_rng([seed, 6, case])
            (folder / "g.json").write_text(json.dumps(GEOMETRY))
            files[name](folder / name)
            inside = sorted((folder / name).iterdir()) if name == "series" else [folder / name]
            path = inside[rng.integers(len(inside))]
            if case >= len(files):
                path.write_bytes(damaged(path.read_bytes(), rng))
            return folder / name

        yield Member(KIND, f"{name}: damage {case}", make, _read, EITHER, command=_command)
