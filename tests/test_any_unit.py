"""Operators and measurements in any unit: c A and c y have the image of A and y, whatever c float32 can hold."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from linear_problem import make

from padis_jax import DDNM, TV, FanBeam, ParallelBeam, from_functions, reconstruct, total_variation
from padis_jax.operators import stack
from padis_jax.operators.unit import length, power_of_two
from padis_jax.solvers.classical import cgls

UNITS = [2.0**-40, 2.0**40]  # 1e-12 and 1e12: powers of two change no digit
SHORT = {"levels": 3, "sigma_max": 0.5, "sigma_min": 0.1}
SOLVERS = {"ddnm by steps": DDNM(cg_steps=5)}
_, PROBLEM, PRIOR = make()


def solved(solver, unit):
    operator, y = unit * PROBLEM.operator, unit * PROBLEM.measurement
    return reconstruct(0, y, operator, PRIOR, solver=SOLVERS.get(solver, solver), **SHORT)


@pytest.mark.parametrize("solver", ["dds", "ddnm", "ddnm by steps", "diffpir", "pigdm", "tmpd", "pnp_admm"])
def test_methods_by_conjugate_gradients_do_not_see_the_unit(solver):
    expected = solved(solver, 1.0)
    for unit in UNITS:
        found = solved(solver, unit)
        np.testing.assert_allclose(found.image, expected.image, atol=2e-4)
        np.testing.assert_allclose(found.residual, expected.residual, atol=1e-4)


@pytest.mark.parametrize("unit", UNITS)
def test_classical_methods_do_not_see_the_unit(unit):
    (_, one, _), (_, other, _) = make(), make(unit)
    expected = cgls(one.measurement, one.operator, iterations=6, noise_norm=0.5)
    found = cgls(other.measurement, other.operator, iterations=6, noise_norm=0.5 * unit)
    np.testing.assert_allclose(found.image, expected.image, atol=1e-4)
    assert found.iterations == expected.iterations
    np.testing.assert_allclose(found.residual / unit, expected.residual, rtol=1e-3)
    np.testing.assert_allclose(other.operator.pinv(other.measurement), one.operator.pinv(one.measurement), atol=1e-4)
    if unit < 1:  # a weight is at most 1e15
        expected = total_variation(one.measurement, one.operator, settings=TV(weight=0.3, iterations=50))
        found = total_variation(other.measurement, other.operator, settings=TV(weight=0.3 * unit**2, iterations=50))
        np.testing.assert_allclose(found.image, expected.image, atol=1e-4)
        np.testing.assert_allclose(found.change, expected.change, rtol=1e-2)


def norms(unit):
    """Of every way to find one."""
    scan = {"image_shape": (8, 7), "angles": np.arange(5) * np.pi / 5, "detector_count": 12}
    lengths = {"pixel_size": unit, "detector_spacing": unit}
    parallel = ParallelBeam(**scan, **lengths)
    fan = FanBeam(**scan, **lengths, source_distance=20 * unit, detector_distance=0.0)
    sums = from_functions(lambda x: unit * jnp.cumsum(x, 0), image_shape=(6, 5))
    return [parallel.norm, fan.norm, stack([parallel, parallel]).norm, sums.norm]


@pytest.mark.parametrize("unit", UNITS)
def test_norms_do_not_see_the_unit(unit):
    np.testing.assert_allclose(np.asarray(norms(unit)) / unit, norms(1.0), rtol=2e-3)


def test_a_scan_in_nanometres_has_the_image_of_one_in_millimetres():
    truth = jnp.zeros((16, 16, 1)).at[4:11, 5:12].set(0.7)

    def image(pixel):
        lengths = {"pixel_size": pixel, "detector_spacing": pixel}
        scan = ParallelBeam(image_shape=(16, 16), angles=np.arange(12) * np.pi / 12, detector_count=24, **lengths)
        return cgls(scan(truth), scan, iterations=10).image

    np.testing.assert_allclose(image(1e8), image(100.0), atol=1e-3)


@pytest.mark.parametrize("value", [0.0, 1e-37, 3e-30, 0.75, 1.0, 5e12, 3e38])
def test_lengths_of_what_float32_holds(value):
    array = jnp.asarray([-value, value / 2, 0.0], jnp.float32)
    scale = float(power_of_two(array))
    assert np.log2(scale) % 1 == 0
    assert scale == 1 if value == 0 else 0.5 <= scale * value <= 1 or abs(np.log2(scale)) == 120
    np.testing.assert_allclose(length(array), value * np.sqrt(1.25), rtol=1e-6)
    turned = jnp.complex64(1j) * array.astype(jnp.complex64)
    np.testing.assert_allclose(length(turned), value * np.sqrt(1.25), rtol=1e-6)
    assert not jax.grad(power_of_two)(array + 1).any()
