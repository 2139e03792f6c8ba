"""Beam hardening is taken out of scans of one material, whatever their unit and the air around."""

import numpy as np
import pytest
from scipy import ndimage

from padis_jax.operators import FanBeam

pytest.importorskip("skimage")
beam_hardening = pytest.importorskip("studies.htc2022.beam_hardening")

SIDE = 64

pytestmark = pytest.mark.slow  # of a study, half a minute


def scanner(shift):
    return FanBeam(
        image_shape=(SIDE, SIDE),
        angles=np.arange(60) * 2 * np.pi / 60,
        detector_count=120,
        detector_spacing=1.4,
        detector_offset=shift,
        source_distance=200.0,
        detector_distance=80.0,
    )


@pytest.fixture(scope="module")
def scan():
    """A disc with two holes, the paths through it, and the values that a hardened beam would give."""
    operator = scanner(0.0)
    row, column = np.mgrid[:SIDE, :SIDE] - (SIDE - 1) / 2
    disc = np.hypot(row, column) < 26
    for at in ((8, 6), (-11, -4)):
        disc &= np.hypot(row - at[0], column - at[1]) > 7
    fine = ndimage.gaussian_filter(disc.astype(np.float32), 0.5)
    paths = np.asarray(operator(fine))
    return fine, paths, noisy(harden(paths))


def harden(paths):
    """Two energies, absorbed by 0.06 and 0.02 per pixel, in equal shares."""
    return -np.log((np.exp(-0.06 * paths) + np.exp(-0.02 * paths)) / 2)


def noisy(values):
    """Noise of 1 % of the value, and none in the air."""
    return values * (1 + 0.01 * np.random.default_rng(0).normal(size=values.shape))


def test_paths_are_the_polynomial_of_what_is_above_the_air():
    """The outermost 2 % of the bins on either side are air: here two of 100, whose median is 0.3."""
    sinogram = np.full((3, 100), 9.0)
    sinogram[:, :2], sinogram[:, -2:] = 0.1, 0.5
    sinogram[:, 40] = 2.3
    found = beam_hardening.Calibration(np.asarray([3.0, 0.5, -0.25]), 0.0, (0.0, 0.0)).paths(sinogram)
    np.testing.assert_allclose(found[:, 40], 3 * 2 + 0.5 * 4 - 0.25 * 8, rtol=1e-6)
    assert found.dtype == np.float32


@pytest.fixture(scope="module")
def found(scan):
    """The calibration by values with air of 0.03 in front, which does not count."""
    return beam_hardening.calibrate(scanner, scan[2] + 0.03)


def test_paths_come_back(scan, found):
    _, paths, hardened = scan
    straight = hardened * (paths.sum() / hardened.sum())
    corrected = found.paths(hardened + 0.03)
    error = np.linalg.norm(corrected - paths) / np.linalg.norm(paths)
    assert error < 0.02 < np.linalg.norm(straight - paths) / np.linalg.norm(paths)
    assert found.misfit == pytest.approx(np.sqrt(np.mean((corrected - paths) ** 2)), abs=0.5)
    assert abs(found.shift) < 0.05
    longest = paths > 0.95 * paths.max()
    np.testing.assert_allclose(corrected[longest].mean(), paths[longest].mean(), rtol=0.02)


def test_the_noise_of_a_path_is_that_of_its_length(scan, found):
    _, paths, hardened = scan
    error = found.paths(hardened + 0.03) - paths
    told = found.noise(paths)
    for some in ((paths > 20) & (paths < 30), paths > 45):
        assert np.sqrt(np.mean(told[some] ** 2)) == pytest.approx(np.sqrt(np.mean(error[some] ** 2)), rel=0.3)
    np.testing.assert_allclose(
        beam_hardening.Calibration(np.ones(1), 0.1, (0.04, 0.01)).noise(np.asarray([-3.0])), 0.13**0.5
    )
    np.testing.assert_allclose(
        beam_hardening.Calibration(np.ones(1), 0.1, (0.0, 0.01)).noise(np.asarray([0.0, 1])), [0.025, 0.1]
    )


def test_a_shifted_detector_is_found_in_values_of_any_unit(scan, found):
    """A third of a bin, and values fifty times as large."""
    fine, paths, hardened = scan
    shifted = 50 * noisy(harden(np.asarray(scanner(0.45)(fine))))
    other = beam_hardening.calibrate(scanner, shifted)
    assert other.shift == pytest.approx(0.45, abs=0.05)
    assert other.misfit == pytest.approx(found.misfit, rel=0.1)
    np.testing.assert_allclose(other.paths(50 * hardened), found.paths(hardened), atol=0.2)
