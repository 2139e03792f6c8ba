"""The Shepp-Logan head in three dimensions (Kak and Slaney, section 3.2, table 3.1 with vertical semi-axes)."""

from __future__ import annotations

import numpy as np

# Value, semi-axes along x, y and z, centre, turn about the z axis in degrees; contrasts of Toft's version.
ELLIPSOIDS = (
    (1.0, 0.69, 0.92, 0.81, 0.0, 0.0, 0.0, 0),
    (-0.8, 0.6624, 0.874, 0.78, 0.0, -0.0184, 0.0, 0),
    (-0.2, 0.11, 0.31, 0.22, 0.22, 0.0, 0.0, -18),
    (-0.2, 0.16, 0.41, 0.28, -0.22, 0.0, 0.0, 18),
    (0.1, 0.21, 0.25, 0.41, 0.0, 0.35, -0.15, 0),
    (0.1, 0.046, 0.046, 0.05, 0.0, 0.1, 0.25, 0),
    (0.1, 0.046, 0.046, 0.05, 0.0, -0.1, 0.25, 0),
    (0.1, 0.046, 0.023, 0.05, -0.08, -0.605, 0.0, 0),
    (0.1, 0.023, 0.023, 0.02, 0.0, -0.606, 0.0, 0),
    (0.1, 0.023, 0.046, 0.02, 0.06, -0.605, 0.0, 0),
)
FINE = 3  # samples of a voxel along each axis


def shepp_logan(shape: tuple[int, int, int]) -> np.ndarray:
    """[D, H, W] float32 in a cube from -1 to 1: the mean of FINE^3 samples of each voxel."""
    axes = [(np.arange(n * FINE) - (n * FINE - 1) / 2) / (n * FINE / 2) for n in shape]
    z, y, x = np.meshgrid(axes[0], -axes[1], axes[2], indexing="ij")
    volume = np.zeros(z.shape)
    for value, a, b, c, x0, y0, z0, turn in ELLIPSOIDS:
        t = np.radians(turn)
        across = (x - x0) * np.cos(t) + (y - y0) * np.sin(t)
        along = (y - y0) * np.cos(t) - (x - x0) * np.sin(t)
        volume += value * ((across / a) ** 2 + (along / b) ** 2 + ((z - z0) / c) ** 2 <= 1)
    d, h, w = shape
    return volume.reshape(d, FINE, h, FINE, w, FINE).mean((1, 3, 5)).astype(np.float32)
