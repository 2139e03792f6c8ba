"""Beam hardening is taken out of scans of one material, whatever their unit and the air around."""

import numpy as np
import pytest
from scipy import ndimage

from padis_jax.operators import FanBeam

pytest.importorskip("skimage")
hardening = pytest.importorskip("benchmarks.hardening")

SIDE = 64


@pytest.fixture(scope="module")
def scan():
    """An operator, the paths through a disc with two holes, and the values that a hardened beam would give."""
    operator = FanBeam(
        image_shape=(SIDE, SIDE),
        angles=np.arange(60) * 2 * np.pi / 60,
        detector_count=120,
        detector_spacing=1.4,
        source_distance=200.0,
        detector_distance=80.0,
    )
    row, column = np.mgrid[:SIDE, :SIDE] - (SIDE - 1) / 2
    disc = np.hypot(row, column) < 26
    for at in ((8, 6), (-11, -4)):
        disc &= np.hypot(row - at[0], column - at[1]) > 7
    fine = ndimage.gaussian_filter(disc.astype(np.float32), 0.5)
    paths = np.asarray(operator(fine))
    # Two energies, absorbed by 0.06 and 0.02 per pixel, in equal shares.
    return operator, paths, -np.log((np.exp(-0.06 * paths) + np.exp(-0.02 * paths)) / 2)


def test_paths_are_the_polynomial_of_what_is_above_the_air():
    """The outermost 2 % of the bins on either side are air: here two of 100, whose median is 0.3."""
    sinogram = np.full((3, 100), 9.0)
    sinogram[:, :2], sinogram[:, -2:] = 0.1, 0.5
    sinogram[:, 40] = 2.3
    found = hardening.Hardening(np.asarray([3.0, 0.5, -0.25]), 0.0).paths(sinogram)
    np.testing.assert_allclose(found[:, 40], 3 * 2 + 0.5 * 4 - 0.25 * 8, rtol=1e-6)
    assert found.dtype == np.float32


def test_paths_come_back(scan):
    operator, paths, hardened = scan
    straight = hardened * (paths.sum() / hardened.sum())
    found = hardening.fit_hardening(operator, hardened + 0.03)  # air does not count
    corrected = found.paths(hardened + 0.03)
    error = np.linalg.norm(corrected - paths) / np.linalg.norm(paths)
    assert error < 0.02 < np.linalg.norm(straight - paths) / np.linalg.norm(paths)
    assert found.misfit == pytest.approx(np.sqrt(np.mean((corrected - paths) ** 2)), abs=0.5)
    longest = paths > 0.95 * paths.max()
    np.testing.assert_allclose(corrected[longest].mean(), paths[longest].mean(), rtol=0.02)


def test_the_unit_of_the_values_does_not_matter(scan):
    operator, _, hardened = scan
    one, other = (hardening.fit_hardening(operator, s * hardened).paths(s * hardened) for s in (1.0, 50.0))
    np.testing.assert_allclose(other, one, atol=0.2)
