"""Operators on volumes slice by slice: what the operator of a slice computes, for all of them."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from padis_jax.operators import FanBeam, ParallelBeam, dot_test, fbp, stack
from padis_jax.operators.slices import SliceTransform

SCANS = {
    ParallelBeam: dict(angles=[0.1, 1.2, 2.0], detector_count=14),
    FanBeam: dict(angles=[0.1, 1.2, 4.0], detector_count=14, source_distance=20.0, detector_distance=5.0),
}


@pytest.mark.parametrize("beam", SCANS, ids=lambda beam: beam.__name__)
def test_every_slice_is_projected_by_todays_operator(beam):
    plane, volume = beam(image_shape=(8, 9), **SCANS[beam]), beam(volume_shape=(3, 8, 9), **SCANS[beam])
    assert isinstance(volume, SliceTransform) and not isinstance(plane, SliceTransform)
    assert (volume.image_shape, volume.measurement_shape) == ((3, 8, 9), (3, 3, 14))
    assert volume.norm == plane.norm and volume.geometry == plane.geometry
    x = jax.random.normal(jax.random.key(0), (3, 8, 9))
    y = jax.random.normal(jax.random.key(1), (3, 3, 14))
    np.testing.assert_array_equal(volume(x), np.stack([plane(k) for k in x]))  # bit for bit
    np.testing.assert_allclose(volume.T(y), np.stack([plane.T(k) for k in y]), atol=1e-5)
    np.testing.assert_allclose(volume.start(y)[1], plane.start(y[1]), atol=1e-6)
    sharp = dict(filter="ram-lak", cutoff=1.0)
    np.testing.assert_allclose(fbp(volume, y, **sharp)[2], fbp(plane, y[2], **sharp), atol=1e-6)


def test_it_is_an_operator_like_others():
    operator = ParallelBeam(volume_shape=(2, 6, 7), **SCANS[ParallelBeam])
    assert dot_test(operator, operator.image_shape, key=jax.random.key(0)) < 1e-5
    x, y = jnp.ones((2, 6, 7)), jnp.ones((2, 3, 14))
    np.testing.assert_allclose(jax.grad(lambda x: jnp.vdot(operator(x), y))(x), operator.T(y), rtol=1e-6)
    np.testing.assert_allclose(jax.grad(lambda y: jnp.vdot(operator.T(y), x))(y), operator(x), rtol=1e-6)
    np.testing.assert_allclose(jax.vmap(operator)(jnp.stack([x, 2 * x]))[1], 2 * operator(x), rtol=1e-6)
    both = 0.5 * stack([operator, operator])
    np.testing.assert_allclose(both(x), 0.5 * jnp.concatenate([operator(x)] * 2), rtol=1e-6)
    assert jax.jit(lambda operator: operator.norm)(operator) == operator.norm


@pytest.mark.slow
def test_pinv_of_every_slice():
    operator = ParallelBeam(volume_shape=(2, 6, 7), **SCANS[ParallelBeam])
    y = operator(jnp.ones((2, 6, 7)))
    np.testing.assert_allclose(operator(operator.pinv(y)), y, rtol=1e-3)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ParallelBeam(**SCANS[ParallelBeam]), "give image_shape .* or volume_shape .*, neither is given"),
        (lambda: FanBeam(image_shape=(6, 6), volume_shape=(2, 6, 6), **SCANS[FanBeam]), "for volumes, not both"),
        (lambda: ParallelBeam(image_shape=(2, 6, 6), **SCANS[ParallelBeam]), "a volume's is volume_shape"),
        (lambda: ParallelBeam(volume_shape=(6, 6), **SCANS[ParallelBeam]), r"volume_shape must be \(D, H, W\)"),
        (lambda: ParallelBeam(volume_shape=(0, 6, 6), **SCANS[ParallelBeam]), "whole and positive"),
        (
            lambda: ParallelBeam(volume_shape=(2, 6, 6), **SCANS[ParallelBeam])(np.ones((6, 6), np.float32)),
            r"expected volume of shape \(2, 6, 6\), got one slice \(6, 6\): build the operator with image_shape",
        ),
        (
            lambda: ParallelBeam(volume_shape=(2, 6, 6), **SCANS[ParallelBeam])(np.ones((2, 6, 6, 1), np.float32)),
            r"expected volume of shape \(2, 6, 6\), got \(2, 6, 6, 1\)",
        ),
        (
            lambda: ParallelBeam(image_shape=(6, 6), **SCANS[ParallelBeam])(np.ones((2, 6, 6), np.float32)),
            r"expected image of shape \(6, 6\) or \(6, 6, 'C'\), got \(2, 6, 6\)",
        ),
        (
            lambda: fbp(ParallelBeam(volume_shape=(2, 6, 6), **SCANS[ParallelBeam]), np.ones((3, 14), np.float32)),
            r"fbp: expected \(2, 3, 14\), got \(3, 14\)",
        ),
        (
            lambda: fbp(SimpleNamespace(measurement_shape=(2, 3, 9)), np.ones((2, 3, 9), np.float32)),
            "fbp: a cone beam has `fdk`",
        ),
    ],
)
def test_mistakes_are_one_line(call, message):
    with pytest.raises(ValueError, match=message) as refused:
        call()
    assert "\n" not in str(refused.value)
