"""The offset of a window goes through the operator: A x from A v."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from padis_jax.images import HOUNSFIELD, Window
from padis_jax.measurements.attenuation import attenuation_window, rescale_attenuation, rescale_measurement
from padis_jax.operators import ParallelBeam, from_functions

SCAN = ParallelBeam(image_shape=(16, 12), angles=(np.arange(7) + 0.5) * np.pi / 7, detector_count=24)
IMAGE = jax.random.uniform(jax.random.key(0), (16, 12))


@pytest.mark.parametrize("window", [HOUNSFIELD, Window("HU", -200.0, 300.0), Window("1", 0.0, 255.0)])
def test_a_measurement_of_the_values_becomes_one_of_the_image(window):
    y = SCAN(window.from_unit(IMAGE))
    np.testing.assert_allclose(rescale_measurement(y, SCAN, (16, 12), window), SCAN(IMAGE), atol=2e-5 * 16)


def test_channels_and_other_operators():
    window = Window("HU", -200.0, 300.0)
    colour = jnp.stack([IMAGE, 2 * IMAGE, -IMAGE], -1)
    y = SCAN(window.from_unit(colour))
    np.testing.assert_allclose(rescale_measurement(y, SCAN, (16, 12), window), SCAN(colour), atol=1e-4)
    blur = from_functions(lambda x: 0.5 * x[::2], image_shape=(16, 12, 1))
    y = blur(window.from_unit(IMAGE[..., None]))
    expected = blur(IMAGE[..., None])
    np.testing.assert_allclose(rescale_measurement(y, blur, (16, 12, 1), window), expected, atol=1e-5)


@pytest.mark.parametrize("window", [HOUNSFIELD, Window("HU", -500.0, 1500.0)])
def test_line_integrals_of_the_attenuation(window):
    """Water has mu_water by definition, whatever the window; so has any image by mu = mu_water (1 + HU/1000)."""
    pixel_mm, mu_water = 0.9, 0.019
    mu = mu_water * (1 + window.from_unit(IMAGE) / 1000)
    measured = pixel_mm * SCAN(mu)
    ends = attenuation_window(window, mu_water=mu_water)
    found = rescale_attenuation(measured, SCAN, (16, 12), ends, length_mm=pixel_mm)
    np.testing.assert_allclose(found, SCAN(IMAGE), atol=1e-4)


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="window in HU"):
        attenuation_window(Window("1", 0.0, 1.0))
    with pytest.raises(ValueError, match="mu_water 0 must be positive"):
        attenuation_window(HOUNSFIELD, mu_water=0)
    with pytest.raises(ValueError, match="window in 1/mm"):
        rescale_attenuation(jnp.ones((7, 24)), SCAN, (16, 12), HOUNSFIELD, length_mm=1.0)
    with pytest.raises(ValueError, match="must be positive"):
        rescale_attenuation(jnp.ones((7, 24)), SCAN, (16, 12), attenuation_window(HOUNSFIELD), length_mm=0.0)
    with pytest.raises(ValueError, match=r"gives \(7, 24\), the measurement has \(7, 23\)"):
        rescale_measurement(jnp.ones((7, 23)), SCAN, (16, 12), HOUNSFIELD)
