"""Metrics against scikit-image in float64, and against values worked out by hand."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from padis_jax.images import HOUNSFIELD
from padis_jax.metrics import head_mask, matthews, psnr, relative_error, rmse, ssim, ssim_gaussian

GAUSSIAN = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}


def pair(shape=(40, 53), noise=0.05, data_range=1.0):
    """A picture with flat parts (where variances cancel in float32), edges and texture, and a noisy copy."""
    rng = np.random.default_rng(3)
    y = np.zeros(shape)
    y[5:30, 8:40] = 0.9
    y[12:20, 15:30] += 0.1 * rng.random((8, 15, *shape[2:]))
    x = y + noise * rng.normal(size=shape) * (np.arange(shape[1]) > 25).reshape((-1,) + (1,) * (len(shape) - 2))
    return (np.float32(data_range * x), np.float32(data_range * y))


def doubles(images):
    return tuple(image.astype(np.float64) for image in images)


@pytest.mark.parametrize("noise", [0.3, 0.05, 1e-3])
@pytest.mark.parametrize("data_range", [1.0, 2000.0])
def test_equal_to_scikit_image(noise, data_range):
    x, y = pair(noise=noise, data_range=data_range)
    dx, dy = doubles((x, y))
    expected = peak_signal_noise_ratio(dy, dx, data_range=data_range)
    np.testing.assert_allclose(psnr(x, y, data_range=data_range), expected, atol=1e-5)
    expected = structural_similarity(dx, dy, data_range=data_range)
    np.testing.assert_allclose(ssim(x, y, data_range=data_range), expected, atol=1e-5)
    expected = structural_similarity(dx, dy, data_range=data_range, **GAUSSIAN)
    np.testing.assert_allclose(ssim_gaussian(x, y, data_range=data_range), expected, atol=1e-5)


@pytest.mark.parametrize("channels", [1, 3])
def test_channels_are_averaged_as_in_scikit_image(channels):
    x, y = pair((40, 53, channels))
    dx, dy = doubles((x, y))
    np.testing.assert_allclose(ssim(x, y), structural_similarity(dx, dy, data_range=1, channel_axis=-1), atol=1e-5)
    expected = structural_similarity(dx, dy, data_range=1, channel_axis=-1, **GAUSSIAN)
    np.testing.assert_allclose(ssim_gaussian(x, y), expected, atol=1e-5)
    np.testing.assert_allclose(psnr(x, y), peak_signal_noise_ratio(dy, dx, data_range=1), atol=1e-5)


def test_the_two_variants_differ():
    x, y = pair()
    assert abs(float(ssim(x, y)) - float(ssim_gaussian(x, y))) > 1e-3


def test_equal_images():
    _, y = pair()
    assert np.isposinf(psnr(y, y))
    np.testing.assert_allclose([ssim(y, y), ssim_gaussian(y, y)], 1.0, atol=1e-6)
    assert float(rmse(y, y)) == 0.0 and float(relative_error(y, y)) == 0.0


def test_metrics_work_under_jit_vmap_and_grad():
    x, y = (jnp.stack([image, image + 0.01]) for image in pair())
    for metric in (psnr, ssim, ssim_gaussian, rmse, relative_error):
        batch = jax.jit(jax.vmap(metric))(x, y)
        np.testing.assert_allclose(batch[0], metric(x[0], y[0]), rtol=1e-5)
        assert np.isfinite(jax.grad(metric)(x[0], y[0])).all()


@pytest.mark.parametrize(("metric", "side"), [(ssim, 7), (ssim_gaussian, 11)])
def test_images_smaller_than_the_window_are_refused(metric, side):
    assert np.isfinite(metric(np.eye(side), np.ones((side, side))))
    with pytest.raises(ValueError, match=f"at least {side} x {side} pixels"):
        metric(np.zeros((side, side - 1)), np.zeros((side, side - 1)))
    with pytest.raises(ValueError, match=r"got \(2, 9, 9, 1\)"):
        metric(np.zeros((2, 9, 9, 1)), np.zeros((2, 9, 9, 1)))


@pytest.mark.parametrize("metric", [psnr, ssim, ssim_gaussian, rmse, relative_error])
def test_shapes_that_would_broadcast_are_refused(metric):
    with pytest.raises(ValueError, match=r"shapes \(12, 12\) and \(12, 12, 1\) cannot be compared"):
        metric(np.zeros((12, 12)), np.zeros((12, 12, 1)))


def test_rmse_in_hounsfield_units_within_a_mask():
    y = np.zeros((4, 5), np.float32)
    x = y.copy()
    x[0, 0], x[3, 4] = 0.01, 0.5  # 20 HU inside, 1000 HU outside
    mask = np.zeros((4, 5), bool)
    mask[0, :4] = True
    np.testing.assert_allclose(rmse(x, y, mask=mask, window=HOUNSFIELD), 10.0, rtol=1e-6)
    three = np.stack([x, y, y], -1)
    np.testing.assert_allclose(rmse(three, 0 * three, mask=mask, window=HOUNSFIELD), 10 / np.sqrt(3), rtol=1e-6)
    assert np.isnan(rmse(x, y, mask=0 * mask))
    with pytest.raises(ValueError, match=r"mask has shape \(5, 4\)"):
        rmse(x, y, mask=mask.T)


def test_relative_error_of_real_and_complex_data():
    np.testing.assert_allclose(relative_error(np.array([[3.0, 0.0]]), np.array([[0.0, 4.0]])), 1.25, rtol=1e-6)
    np.testing.assert_allclose(relative_error(np.array([3.0j, 0.0]), np.array([0.0, 4.0j])), 1.25, rtol=1e-6)


def test_head_mask_is_the_largest_region_with_its_holes():
    image = np.zeros((20, 20), np.float32)
    image[4:14, 4:14] = 0.5  # the head, in water
    image[7:9, 7:9] = 0.0  # air in a sinus
    image[17, 2:18] = 0.6  # the head rest
    expected = np.zeros((20, 20), bool)
    expected[4:14, 4:14] = True
    np.testing.assert_array_equal(head_mask(image), expected)
    np.testing.assert_array_equal(head_mask(jnp.asarray(image)[..., None]), expected)
    assert not head_mask(np.zeros((8, 8))).any()
    assert head_mask(np.full((8, 8), 0.24)).sum() == 0  # -520 HU
    with pytest.raises(ValueError, match=r"got \(8, 8, 3\)"):
        head_mask(np.zeros((8, 8, 3)))


def test_matthews_is_the_formula_from_counts():
    rng = np.random.default_rng(0)
    found, truth = rng.random((9, 7)) < 0.4, rng.random((9, 7)) < 0.6
    tp, tn = np.sum(found & truth), np.sum(~found & ~truth)
    fp, fn = np.sum(found & ~truth), np.sum(~found & truth)
    expected = (tp * tn - fp * fn) / np.sqrt(float((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn)))
    np.testing.assert_allclose(matthews(found, truth), expected, rtol=1e-9)
    assert matthews(truth, truth) == pytest.approx(1) and matthews(~truth, truth) == pytest.approx(-1)
    assert matthews(np.ones((2, 2), bool), np.eye(2, dtype=bool)) == 0
    with pytest.raises(ValueError, match="boolean"):
        matthews(found.astype(float), truth)


def test_relative_error_of_whole_numbers_and_of_mixed_types():
    dark, light = np.uint8([10, 0]), np.uint8([12, 0])
    np.testing.assert_allclose(relative_error(dark, light), 1 / 6, rtol=1e-6)
    np.testing.assert_allclose(relative_error(dark, light.astype(float)), 1 / 6, rtol=1e-6)
    np.testing.assert_allclose(relative_error(dark, light * 1j), np.hypot(10, 12) / 12, rtol=1e-6)
    np.testing.assert_allclose(relative_error([True, False], [True, True]), np.sqrt(0.5), rtol=1e-6)
