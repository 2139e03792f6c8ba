"""What is no file, wherever one is named (pipes, devices, folders, links to nothing and in a circle), and odd names."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import nibabel
import numpy as np
import scipy.io
from medical import write_slice
from PIL import Image

from members import EITHER, REFUSED, Member, inspected
from members.pictures import stored
from padis_jax.config import Config, load_config_file
from padis_jax.conversion.torch_files import read_torch
from padis_jax.files import read_records
from padis_jax.lock import locked
from padis_jax.measurements.geometry import read_geometry
from padis_jax.measurements.load import MeasurementConfig, load_scan
from padis_jax.outputs import check_outputs
from padis_jax.problems.user_files import read_kernel, read_mask
from padis_jax.runs import batch_job
from padis_jax.weights import load_weights

KIND = "special files"
VALUES = np.random.default_rng(0).integers(0, 255, (9, 13), np.uint8)


def _job(path: Path) -> object:
    return batch_job.run({}, path.parent, None, None, {}, batch=1)  # type: ignore[arg-type]


def _locked(path: Path) -> None:
    with locked(path.parent):
        pass


READERS: dict[str, tuple[str, Callable[[Path], object]]] = {
    **{f"x{suffix}": (f"image {suffix}", stored) for suffix in
       (".png", ".jpg", ".tif", ".npy", ".npz", ".mat", ".h5", ".nii", ".nii.gz", ".dcm", "")},
    **{f"s{suffix}": (f"scan {suffix}", lambda p: load_scan(MeasurementConfig(path=str(p)))) for suffix in
       (".npy", ".npz", ".mat", ".h5", ".tif")},
    "g.json": ("geometry", read_geometry),
    "w.safetensors": ("weights", load_weights),
    "k.npy": ("kernel", lambda p: read_kernel(str(p), (9, 13))),
    "m.png": ("mask", lambda p: read_mask(str(p), (9, 13))),
    "c.py": ("config", lambda p: load_config_file(p, Config)),
    "t.pt": ("network", read_torch),
    "log.jsonl": ("log", read_records),
    "manifest.jsonl": ("manifest", _job),
    "job.json": ("job", _job),
    "results.json": ("results", lambda p: check_outputs(p.parent, ["a"], [])),
    "lock.json": ("lock", _locked),
    "scan.npz": ("batch item", lambda p: batch_job.read_sinogram(p, (9, 13))),
    "items/a.npz": ("batch folder", lambda p: batch_job.list_items(p.parent, (".npz",))),
}  # fmt: skip


def _pipe(path: Path) -> None:
    os.mkfifo(path)


def _device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def _circle(path: Path) -> None:
    path.with_name("other").symlink_to(path)
    path.symlink_to(path.with_name("other"))


THINGS: dict[str, Callable[[Path], object]] = {
    "a pipe": _pipe,
    "a device": _device,
    "/dev/null": lambda p: p.symlink_to("/dev/null"),
    "a folder": lambda p: p.mkdir(),
    "a link to nothing": lambda p: p.symlink_to("gone"),
    "links in a circle": _circle,
    "an empty file": lambda p: p.write_bytes(b""),
    "no permission": lambda p: (p.write_bytes(b"x"), p.chmod(0)),
}
# Where nothing at all is as good as a file.
_OPTIONAL = {"manifest.jsonl", "job.json", "results.json", "lock.json", "log.jsonl", "items/a.npz"}


def _saved(name: str) -> Callable[[Path], object]:
    """What writes VALUES to a file of that kind."""

    def save(path: Path) -> None:
        if name.endswith(".npy"):
            with open(path, "wb") as handle:
                np.save(handle, VALUES)
        elif name.endswith(".npz"):
            with open(path, "wb") as handle:
                np.savez(handle, images=VALUES)
        elif name.endswith(".mat"):
            with open(path, "wb") as handle:
                scipy.io.savemat(handle, {"images": VALUES})
        elif name.endswith(".h5"):
            with h5py.File(os.fsencode(path), "w") as file:
                file["images"] = VALUES
        elif name.endswith(".nii"):
            data = nibabel.Nifti1Image(VALUES.T[..., None], np.diag([-1.0, -1.0, 1.0, 1.0])).to_bytes()
            path.write_bytes(data)
        elif name.endswith(".dcm"):
            with tempfile.TemporaryDirectory() as plain:
                made = write_slice(Path(plain, "x.dcm"), VALUES.astype(float), intercept=0.0)
                path.write_bytes(made.read_bytes())
        else:
            with open(path, "wb") as handle:
                Image.fromarray(VALUES).save(handle, {"png": "PNG", "tif": "TIFF"}[name[-3:]])

    return save


NAMES = (b"a b", b"[1]", b"a[0-9]*?", b"\x1b[31mred", b"line\nbreak", b"caf\xe9", "\u202egnp".encode(), b"-flag",
         b"a::b", b"::", b"'\"`$(touch CANARY)`", b"x" * 200, b"~", b"{}", b"%s%n", b"\xff\xfe", b".. ..",
         b"a\\b")  # fmt: skip


def members() -> Iterator[Member]:
    """All of them."""
    for name, (what, read) in READERS.items():
        for thing, make in THINGS.items():
            if thing == "no permission" and os.geteuid() == 0:
                continue

            def made(folder: Path, name: str = name, make: Any = make) -> Path:
                path = folder / "it" / name
                path.parent.mkdir(parents=True)
                make(path)
                return path

            optional = name in _OPTIONAL or (thing == "a folder" and what.startswith("image"))
            command = inspected if what.startswith("image") else None
            yield Member(KIND, f"{thing} for {what}", made, read, EITHER if optional else REFUSED, command=command)
    for index, name in enumerate(NAMES):
        for suffix in (".png", ".tif", ".npy", ".npz", ".mat", ".h5", ".nii", ".dcm"):
            for how in ("itself", "in a folder", "a folder"):

                def named(folder: Path, name: bytes = name, suffix: str = suffix, how: str = how) -> Path:
                    held = folder / "it" / (os.fsdecode(name) if how == "a folder" else "")
                    held.mkdir(parents=True)
                    path = held / (f"x{suffix}" if how == "a folder" else os.fsdecode(name) + suffix)
                    _saved(suffix)(path)
                    return path if how == "itself" else held

                hidden = name.startswith(b".") and how == "in a folder"
                right = VALUES[None, ..., None] if not hidden else REFUSED
                what = f"{suffix} with the name {index} ({how})"
                yield Member(KIND, what, named, stored, right, command=inspected)
