"""A measured fan-beam scan, small enough to be reconstructed in a test, and the arguments of sample.py for it."""

import dataclasses

import numpy as np
from tiny import write_weights

from padis_jax.images import PLAIN
from padis_jax.measurements.geometry import ScanGeometry, write_geometry

QUICK = (
    "--tv.weight 0.01 --tv.iterations 20 --solver.levels 3 --solver.sigma-max 0.5 --solver.average 1 "
    "--solver.cg-steps 3"
).split()
ATTENUATION = 0.02  # per mm, of image value 1
GEOMETRY = ScanGeometry("fan", tuple(np.arange(24) * 15.0), "degrees", 32, 1.0, 0.6, 60.0, 30.0)


def write_scan(folder, *, window=PLAIN):
    """Weights, an image, a measured scan of it, its geometry, and the geometry with its rotation axis elsewhere."""
    write_weights(folder / "w.safetensors", window=window)
    y, x = np.mgrid[1:-1:16j, -1:1:16j]
    image = ((np.hypot(x, y) < 0.8) & (np.hypot(x - 0.3, y) > 0.2)).astype(np.float32) * 0.7
    np.save(folder / "image.npy", image)
    np.save(folder / "scan.npy", np.asarray(GEOMETRY.operator((16, 16), 1.0)(image)) * ATTENUATION)
    write_geometry(folder / "scan.json", GEOMETRY)
    write_geometry(folder / "wrong.json", dataclasses.replace(GEOMETRY, offset_mm=-2.0))
    return folder


def arguments(folder, *more, scan="scan.npy", geometry="scan.json"):
    """Of sample.py, for a scan in `folder`."""
    given = ["--weights", folder / "w.safetensors", "--measurement.path", folder / scan,
             "--measurement.geometry", folder / geometry, "--measurement.attenuation", ATTENUATION,
             "--measurement.pixel-mm", "1"]  # fmt: skip
    return [str(a) for a in (*given, *QUICK, *more)]
