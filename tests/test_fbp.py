"""Filtered backprojection: right scale in any unit and for any angles, and what its filters do."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from padis_jax.metrics import psnr
from padis_jax.operators import ParallelBeam, fbp
from padis_jax.operators.fbp import ramp_spectrum, view_weights

FILTERS = ("ram-lak", "shepp-logan", "cosine", "hamming", "hann")
HEAD = Path(__file__).parents[1] / "data" / "head_ct.npz"


def disk(side=48, radius=15.0, centre=(3.0, -2.0)):
    y, x = (side - 1) / 2 - np.arange(side)[:, None], np.arange(side)[None] - (side - 1) / 2
    return np.clip(radius - np.hypot(x - centre[0], y - centre[1]) + 0.5, 0, 1).astype(np.float32)


def spread(key, views):
    """Uneven angles: gaps between a half and one and a half of the mean."""
    gaps = 0.5 + np.random.default_rng(key).random(views)
    return np.cumsum(gaps) / gaps.sum() * np.pi


EVEN = (np.arange(90) + 0.5) * np.pi / 90
TURN = (np.arange(160) + 0.5) * 2 * np.pi / 160
SCANS = {
    "pixels": dict(angles=EVEN, detector_count=80),
    "paper's unit": dict(angles=EVEN, detector_count=80, detector_spacing=40 / 256, pixel_size=40 / 256),
    "fine bins": dict(angles=EVEN, detector_count=160, detector_spacing=0.5),
    "wide bins": dict(angles=EVEN, detector_count=40, detector_spacing=2.0),
    "offset detector": dict(angles=EVEN, detector_count=96, detector_offset=7.25),
    "full turn, shuffled": dict(angles=np.random.default_rng(0).permutation(2 * EVEN), detector_count=80),
    "uneven": dict(angles=spread(0, 90), detector_count=80),
    "one half measured thrice": dict(angles=np.concatenate([EVEN, EVEN[:45], EVEN[:45] - np.pi]), detector_count=80),
    "both ends of a turn, rounded": dict(angles=np.linspace(0, 2 * np.pi, 181).astype(np.float32), detector_count=80),
    "two turns of degrees, rounded": dict(angles=np.deg2rad(np.arange(0, 721, 2.0)).round(4), detector_count=80),
    "half the detector": dict(angles=TURN, detector_count=40, detector_offset=14.0),
    "half the detector, the other way": dict(angles=TURN, detector_count=40, rotation_offset=14.0),
    "half the detector, three quarters of a turn": dict(angles=TURN[:120], detector_count=52, detector_offset=8.0),
}


@pytest.mark.parametrize("name", SCANS)
def test_values_are_right_whatever_the_units_and_angles(name):
    image = disk()
    operator = ParallelBeam(image_shape=image.shape, **SCANS[name])
    result = np.asarray(fbp(operator, operator(jnp.asarray(image)), filter="ram-lak", cutoff=1.0))
    inside, outside = disk(radius=11.0) == 1, disk(radius=18.0) == 0
    np.testing.assert_allclose(result[inside].mean(), 1, atol=0.005)
    np.testing.assert_allclose(result[outside].mean(), 0, atol=0.01)


def test_start_is_hann_at_nine_tenths():
    operator = ParallelBeam(image_shape=(48, 48), angles=EVEN, detector_count=80)
    y = operator(jnp.asarray(disk()))
    np.testing.assert_array_equal(operator.start(y), fbp(operator, y, filter="hann", cutoff=0.9))
    stacked = fbp(operator, jnp.stack([y, 2 * y], -1))
    np.testing.assert_allclose(stacked[:, :, 1], 2 * operator.start(y), atol=1e-5)


def test_the_spectrum_is_a_windowed_ramp_without_bias():
    frequency = np.arange(513) / 512  # of Nyquist
    ramp = ramp_spectrum(1024, 0.5, filter="ram-lak", cutoff=1.0)
    # |f|/(2 s) up to the tail that a finite view cuts off; the sum of h, its value at 0, is not 0 but that tail.
    np.testing.assert_allclose(ramp, frequency / 2 / 0.5, atol=2e-3)
    assert 0 < ramp[0] < 1e-3
    half = ramp_spectrum(1024, 0.5, filter="hann", cutoff=0.5)
    assert np.all(half[257:] == 0)
    np.testing.assert_allclose(half[128] / ramp[128], 0.5)  # in the middle of the band


def test_stronger_filters_pass_less_noise():
    operator = ParallelBeam(image_shape=(32, 32), angles=EVEN[::3], detector_count=48)
    noise = jax.random.normal(jax.random.key(0), operator.measurement_shape)
    passed = [float(jnp.std(fbp(operator, noise, filter=name, cutoff=1.0))) for name in FILTERS]
    assert passed == sorted(passed, reverse=True)
    assert float(jnp.std(fbp(operator, noise, cutoff=0.5))) < 0.6 * float(jnp.std(fbp(operator, noise, cutoff=1.0)))


def test_weights_share_the_half_turn():
    for scan in SCANS.values():
        np.testing.assert_allclose(view_weights(tuple(scan["angles"])).sum(), np.pi)
    np.testing.assert_allclose(view_weights(tuple(EVEN)), np.pi / 90)
    np.testing.assert_allclose(view_weights((0.7,)), [np.pi])
    np.testing.assert_allclose(view_weights((0.7, 0.7, 0.7 + np.pi)), [np.pi / 3] * 3)
    # 0 and pi are the same view, whichever end rounding folds them to.
    np.testing.assert_allclose(view_weights((0.0, np.pi / 2, np.pi - 1e-13)), [np.pi / 4, np.pi / 2, np.pi / 4])
    # A missing wedge is not given to the views at its edges.
    for views, span in ((60, 120), (60, 150), (8, 150), (8, 120)):
        limited = view_weights(tuple((np.arange(views) + 0.5) * np.deg2rad(span) / views))
        np.testing.assert_allclose(limited, np.deg2rad(span) / views)
    for views, span in ((60, 170), (20, 150), (8, 170)):  # but a gap of few views, and narrow, is
        np.testing.assert_allclose(view_weights(tuple(np.linspace(0, np.deg2rad(span), views))).sum(), np.pi)
    # However close the views are, if they are evenly so.
    close = view_weights(tuple(np.linspace(0, 0.01, 400)))
    np.testing.assert_allclose(close, close[0])
    np.testing.assert_allclose(close[0], 0.01 / 399)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        (dict(filter="hanning"), "ram-lak, .*hann, got 'hanning'"),
        (dict(cutoff=0), "cutoff"),
        (dict(cutoff=1.1), "cutoff"),
    ],
)
def test_impossible_settings_are_refused(setting, message):
    operator = ParallelBeam(image_shape=(8, 8), angles=[0.1, 0.2], detector_count=12)
    with pytest.raises(ValueError, match=message):
        fbp(operator, jnp.ones((2, 12)), **setting)
    with pytest.raises(ValueError, match=r"sinogram of shape \(2, 12\)"):
        fbp(operator, jnp.ones((12, 2)))


def test_the_figures_of_the_head_ct():
    # Twenty views of the test slices, noiseless; figures measured with another implementation.
    volume = np.load(HEAD)["volume"]
    operator = ParallelBeam(image_shape=(256, 256), angles=(np.arange(20) + 0.5) * np.pi / 20)
    for index, expected in ((20, 18.30), (41, 20.76), (62, 21.44), (83, 24.08)):
        image = np.clip((volume[index].astype(np.float32) + 1000) / 2000, 0, 1)
        result = np.clip(operator.start(operator(jnp.asarray(image))), 0, 1)
        assert abs(float(psnr(jnp.asarray(result), jnp.asarray(image))) - expected) < 0.15, index


def test_a_complex_sinogram_is_filtered_by_its_parts():
    scan = ParallelBeam(image_shape=(8, 7), angles=EVEN[::9], detector_count=12)
    volumes = ParallelBeam(volume_shape=(2, 8, 7), angles=EVEN[::9], detector_count=12)
    real, imaginary = np.random.default_rng(0).random((2, 10, 12, 2)).astype(np.float32)
    y = real + 1j * imaginary
    expected = np.asarray(scan.start(real)) + 1j * np.asarray(scan.start(imaginary))
    np.testing.assert_allclose(scan.start(y), expected, atol=1e-6)
    np.testing.assert_allclose(volumes.start(np.moveaxis(y, 2, 0)), np.moveaxis(expected, 2, 0), atol=1e-6)
