"""Simulated measurements: noiseless under the paper's protocol, and with the right statistics under the honest one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from padis_jax.images import HOUNSFIELD, PLAIN, Window
from padis_jax.measurements.attenuation import linear_attenuation
from padis_jax.measurements.simulate import (
    MANY,
    MU_WATER,
    Measurement,
    fine_line_integrals,
    honest_measurement,
    paper_measurement,
)
from padis_jax.operators import Inpaint, ParallelBeam, from_functions

SIDE = 32


def same_key():
    return jax.random.key(0)  # a new one each time: these tests draw the same again on purpose


def smooth_image():
    y, x = np.mgrid[-1 : 1 : SIDE * 1j, -1 : 1 : SIDE * 1j]
    return jnp.asarray(0.6 * np.exp(-((x - 0.1) ** 2 + y**2) / 0.15), jnp.float32)


def scan(**change):
    settings = dict(image_shape=(SIDE, SIDE), angles=(np.arange(6) + 0.5) * np.pi / 6, detector_count=48)
    return ParallelBeam(**(settings | change))


def test_the_papers_protocol_is_the_operator_itself():
    operator, image = scan(), smooth_image()
    measurement = paper_measurement(same_key(), image, operator)
    np.testing.assert_array_equal(measurement.y, operator(image))
    assert measurement.protocol == "paper"
    assert measurement.noise_sigma == 0 and measurement.noise_level == 0


def test_gaussian_noise_has_the_deviation_asked_for():
    operator = from_functions(lambda x: 2 * x, image_shape=(64, 64, 1))
    measurement = paper_measurement(same_key(), jnp.ones((64, 64, 1)), operator, sigma=0.1)
    noise = measurement.y - 2
    np.testing.assert_allclose(jnp.std(noise), 0.1, rtol=0.05)
    np.testing.assert_allclose(measurement.noise_sigma, 0.1, rtol=1e-5)
    np.testing.assert_allclose(measurement.noise_level, jnp.linalg.norm(noise) / jnp.linalg.norm(2 + noise), rtol=0.05)


def test_the_finer_object_differs_a_little_and_vanishes_with_refinement_one():
    operator, image = scan(), smooth_image()
    coarse = operator(image)
    plain = fine_line_integrals(image, operator, refinement=1, rays=1)
    np.testing.assert_allclose(plain, coarse, rtol=1e-5, atol=1e-5)
    fine = fine_line_integrals(image, operator)
    error = float(jnp.linalg.norm(fine - coarse) / jnp.linalg.norm(coarse))
    assert 1e-4 < error < 1e-2
    np.testing.assert_allclose(fine.sum(1), coarse.sum(1), rtol=1e-3)  # the same matter, seen from every side


def test_bins_integrate_over_their_width():
    # Bins four times as wide as those of the plain scan see the mean of four of them, in the right places.
    image = smooth_image()
    wide = scan(detector_count=12, detector_spacing=4.0, detector_offset=1.5)
    narrow = scan(detector_count=48, detector_spacing=1.0, detector_offset=1.5)
    lines = fine_line_integrals(image, wide, refinement=1, rays=4)
    np.testing.assert_allclose(lines, narrow(image).reshape(6, 12, 4).mean(2), rtol=1e-4, atol=1e-4)


def test_the_noise_is_what_the_counts_say():
    operator, image = scan(), smooth_image()
    lines = fine_line_integrals(image, operator)
    simulate = jax.jit(jax.vmap(lambda key: honest_measurement(key, image, operator, photons=2e4)[:2]))
    sinograms, sigmas = simulate(jax.random.split(same_key(), 400))
    deviation = jnp.std(sinograms, axis=0)
    np.testing.assert_allclose(sinograms.mean(0), lines, atol=5 * float(deviation.max()) / 20)  # unbiased
    np.testing.assert_allclose(sigmas.mean(0), deviation, rtol=0.2)
    # sigma of a line integral: 1/sqrt(N) over mu per value times mm per pixel
    per_unit = 2 * 0.02 * 0.957
    expected = jnp.exp(0.5 * per_unit * lines) / jnp.sqrt(2e4) / per_unit
    np.testing.assert_allclose(sigmas.mean(0), expected, rtol=0.02)


def test_the_level_follows_the_photons():
    operator, image = scan(), smooth_image()
    lines = fine_line_integrals(image, operator)
    for photons in (1e4, 1e5):
        measurement = honest_measurement(same_key(), image, operator, photons=photons)
        assert measurement.protocol == "honest"
        true = float(jnp.linalg.norm(measurement.y - lines) / jnp.linalg.norm(lines))
        np.testing.assert_allclose(measurement.noise_level, true, rtol=0.15)


def counts_of(measurement, attenuation):
    """N of every ray: its deviation is 1 / sqrt(N) over what a pixel of value 1 takes away."""
    return 1 / np.square(np.asarray(measurement.noise_std, np.float64) * attenuation * 0.957)


@pytest.mark.parametrize("window", [Window("HU", -500.0, 1500.0), Window("HU", -1000.0, 3000.0)])
def test_photons_see_the_attenuation_that_the_window_stands_for(window):
    """The same object in two windows lets the same photons through, and is measured without bias in both."""
    operator = scan()
    hu = -400 + 1300 * smooth_image() / smooth_image().max()
    by_window = {w: honest(w, w.to_unit(hu), operator) for w in (HOUNSFIELD, window)}
    plain, counted = (counts_of(by_window[w], linear_attenuation(w)[0]) for w in (HOUNSFIELD, window))
    np.testing.assert_allclose(counted, plain, rtol=0.03)
    lines = np.asarray(fine_line_integrals(hu, operator)) * MU_WATER / 1000 * 0.957
    air = np.asarray(fine_line_integrals(jnp.ones_like(hu), operator)) * MU_WATER * 0.957
    np.testing.assert_allclose(counted.sum(), 1e5 * np.exp(-lines - air).sum(), rtol=1e-3)
    x = window.to_unit(hu)
    error = by_window[window].y - fine_line_integrals(x, operator)
    pulls = np.asarray(error / by_window[window].noise_std)
    assert abs(pulls.mean()) < 0.2 and abs(pulls.std() - 1) < 0.1


def honest(window, image, operator):
    attenuation, background = linear_attenuation(window)
    return honest_measurement(same_key(), image, operator, attenuation=attenuation, background=background)


def test_the_default_window_and_no_unit_have_the_default_attenuation():
    assert linear_attenuation(HOUNSFIELD) == linear_attenuation(PLAIN) == (2 * MU_WATER, 0.0)
    plain = honest_measurement(same_key(), smooth_image(), scan())
    np.testing.assert_array_equal(honest(HOUNSFIELD, smooth_image(), scan()).y, plain.y)


@pytest.mark.parametrize("photons", [1e5, 1e7, 1e12])
def test_any_number_of_photons_has_the_spread_of_its_counts(photons):
    """Beyond 2^31 integers end, and far below that JAX's own Poisson numbers are wrong in the tails."""
    operator = scan(angles=np.linspace(0, 3, 200), detector_count=100)
    measurement = honest_measurement(same_key(), 0 * smooth_image(), operator, photons=photons)
    pulls = np.asarray(measurement.y / measurement.noise_std, np.float64)
    assert abs(pulls.mean()) < 0.03 and abs(pulls.std() - 1) < 0.02
    assert np.abs(pulls).max() < 5.5
    assert (photons > MANY) == (photons > 2e5)


def test_what_is_not_measured_has_no_noise():
    mask = np.arange(64 * 64).reshape(64, 64) % 4 > 0  # three quarters are known
    operator, image = Inpaint(mask=mask), jnp.full((64, 64, 3), 0.5)
    measurement = paper_measurement(same_key(), image, operator, sigma=0.1)
    np.testing.assert_array_equal(measurement.y[~mask], 0)
    np.testing.assert_array_equal(measurement.noise_std, np.where(mask, np.float32(0.1), 0)[..., None].repeat(3, 2))
    noise = np.asarray(measurement.y - operator(image))
    np.testing.assert_allclose(noise[mask].std(), 0.1, rtol=0.03)
    np.testing.assert_allclose(measurement.noise_sigma, 0.1, rtol=1e-5)
    np.testing.assert_allclose(
        measurement.noise_level, np.linalg.norm(noise) / np.linalg.norm(measurement.y), rtol=0.03
    )
    assert paper_measurement(same_key(), image[..., 0], operator, sigma=0.1).y.shape == (64, 64)


def test_the_unit_of_length_does_not_matter():
    # The same scan in pixels and in centimetres: same counts, and a sinogram in the operator's own unit.
    image = smooth_image()
    pixels = honest_measurement(same_key(), image, scan())
    unit = 0.0957
    centimetres = honest_measurement(same_key(), image, scan(pixel_size=unit, detector_spacing=unit))
    np.testing.assert_allclose(centimetres.y, pixels.y * unit, rtol=1e-2, atol=1e-3 * unit)
    np.testing.assert_allclose(centimetres.noise_level, pixels.noise_level, rtol=1e-3)


def test_keys_decide_and_channels_pass():
    operator, image = scan(), smooth_image()
    first = honest_measurement(same_key(), image, operator).y
    np.testing.assert_array_equal(honest_measurement(same_key(), image, operator).y, first)
    assert jnp.any(honest_measurement(jax.random.key(1), image, operator).y != first)
    assert honest_measurement(same_key(), image[:, :, None], operator).y.shape == (6, 48, 1)


def test_starved_rays_stay_finite():
    measurement = honest_measurement(same_key(), 50 * smooth_image(), scan(), photons=10)
    assert jnp.all(jnp.isfinite(measurement.y)) and jnp.all(jnp.isfinite(measurement.noise_std))
    assert float(measurement.y.max()) == pytest.approx(float(np.log(10) / (0.04 * 0.957)), rel=1e-5)


@pytest.mark.parametrize("name", ["photons", "pixel_mm", "attenuation", "refinement", "rays"])
def test_impossible_settings_are_refused(name):
    with pytest.raises(ValueError, match=name):
        honest_measurement(same_key(), smooth_image(), scan(), **{name: 0})


@pytest.mark.parametrize(("name", "value"), [("photons", np.inf), ("photons", 1e39), ("background", np.nan)])
def test_settings_beyond_float32_are_refused(name, value):
    with pytest.raises(ValueError, match=name):
        honest_measurement(same_key(), smooth_image(), scan(), **{name: value})


def test_a_wrong_image_is_refused():
    with pytest.raises(ValueError, match=r"shape \(32, 32\)"):
        honest_measurement(same_key(), jnp.ones((16, 32)), scan())
    with pytest.raises(ValueError, match="sigma"):
        paper_measurement(same_key(), smooth_image(), scan(), sigma=-1.0)


def test_evenness_is_the_harmonic_mean_of_the_variances_over_the_arithmetic_one():
    std = np.asarray([1.0, 2.0, 0.0, 4.0], np.float32)
    measurement = Measurement(jnp.ones(4), jnp.asarray(std), "honest")
    variances = np.square(std[std > 0])
    np.testing.assert_allclose(measurement.evenness, 1 / np.mean(1 / variances) / np.mean(variances), rtol=1e-6)
    np.testing.assert_array_equal(measurement.noise, std)
    equal = Measurement(jnp.ones(4), jnp.asarray([0.5, 0.5, 0.0, 0.5]), "paper")  # a pixel that is not measured
    assert equal.evenness == 1 and equal.noise.ndim == 0 and equal.noise == equal.noise_sigma
    none = Measurement(jnp.ones(4), jnp.zeros(4), "paper")
    assert none.evenness == 1 and none.noise == 0
