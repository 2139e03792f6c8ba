"""FDK: right values for full turns, short scans and a detector beside the axis, in views that are placed one by one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from padis_jax.operators import FanBeam, fbp, fdk
from padis_jax.operators.cone import ConeTransform
from padis_jax.operators.cone_geometry import ConeGeometry, circular
from padis_jax.operators.per_channel import leaf
from studies.shepp_logan import shepp_logan

SIDE, PIXELS = 32, (48, 64)  # the same everywhere, and as many views, so that little is compiled
SHORT = np.pi + 2 * np.arctan(32 / 170)


def views(count, span, first=0.3):
    return first + (np.arange(count) + 0.5) * span / count


SCANS = {
    "full turn": dict(angles=views(72, 2 * np.pi)),
    "short scan": dict(angles=views(72, SHORT)),
    "half fan": dict(angles=views(72, 2 * np.pi), offset=(0.0, 17.6)),
    "rows beside the middle": dict(angles=views(72, 2 * np.pi), offset=(3.7, 0.0)),
}


def transform(vectors, **change):
    """Without the norm, which nobody needs here."""
    about = dict(volume_shape=(SIDE,) * 3, detector_shape=PIXELS, pixel_size=1.0, slice_spacing=1.0) | change
    geometry = ConeGeometry(vectors=vectors, **about)
    return ConeTransform(jax.tree.map(leaf, geometry.rays()), geometry.words(), jnp.ones(()))


def ball(radius=9.0, centre=(0.7, 1.5, -1.0)):
    z, y, x = np.meshgrid(*[np.arange(SIDE) - (SIDE - 1) / 2] * 3, indexing="ij")
    distance = np.sqrt((z - centre[0]) ** 2 + (y - centre[1]) ** 2 + (x - centre[2]) ** 2)
    return np.clip(radius - distance + 0.5, 0, 1).astype(np.float32), distance


@pytest.mark.parametrize("name", SCANS)
def test_a_ball_has_its_value_and_the_air_around_it_has_none(name):
    operator = transform(circular(spacing=(1.0, 1.0), source_distance=130.0, detector_distance=40.0, **SCANS[name]))
    volume, distance = ball()
    found = np.asarray(fdk(operator, operator(volume), filter="ram-lak", cutoff=1.0))
    assert abs(found[distance < 6].mean() - 1) < 1e-2 and found[distance < 6].std() < 2e-2
    outside = (distance > 11) & (distance < 13)
    assert abs(found[outside].mean()) < 1e-2 and np.abs(found[outside]).max() < 0.15


def test_the_plane_of_the_orbit_is_that_of_a_fan_beam():
    """There FDK is the fan beam's filtered backprojection: of a volume that does not change along z, whose rays of the
    middle row stay in the plane."""
    about = dict(angles=views(72, 2 * np.pi), source_distance=130.0, detector_distance=40.0)
    fan = FanBeam(image_shape=(SIDE, SIDE), detector_count=40, detector_offset=2.6, **about)
    cone = transform(
        circular(spacing=(1.0, 1.0), offset=(0.0, 2.6), **about), volume_shape=(3, SIDE, SIDE), detector_shape=(5, 40)
    )
    y = np.zeros(cone.measurement_shape, np.float32)
    y[:, 2] = fan(ball()[0][SIDE // 2])
    np.testing.assert_allclose(fdk(cone, y)[1], fbp(fan, jnp.asarray(y[:, 2])), atol=1e-5)


def test_rows_beside_the_plane_are_weighed_by_the_cosine_of_their_angle():
    """One view of a full turn sees a row of ones: the value at the axis is a sum over the ramp."""
    orbit = dict(angles=views(16, 2 * np.pi), spacing=(1.0, 1.0), source_distance=10.0, detector_distance=10.0)
    operator = transform(circular(**orbit), volume_shape=(21, 3, 3), detector_shape=(21, 33), slice_spacing=0.5)
    y, u = np.zeros((2, *operator.measurement_shape), np.float32), np.arange(33) - 16
    y[0, 0, 10], y[1, 0, 18] = 1, 1  # v = 0 and v = 8, which are seen at z = 0 and z = 4
    found = [np.asarray(fdk(operator, data, filter="ram-lak", cutoff=1.0)) for data in y]
    ramp = np.where(u % 2, -1 / (np.pi * np.where(u % 2, u, 1)) ** 2, 0) + np.where(u == 0, 0.25, 0)
    expected = [np.sum(ramp / np.sqrt(20**2 + u**2 + v**2)) for v in (0, 8)]
    assert found[1][18, 1, 1] / found[0][10, 1, 1] == pytest.approx(expected[1] / expected[0], rel=1e-4)


def test_columns_and_rows_may_run_the_other_way():
    about = dict(angles=views(72, 2 * np.pi), spacing=(1.0, 1.0), source_distance=130.0, detector_distance=40.0)
    placed = np.asarray(circular(**about, offset=(1.2, 6.3))).reshape(-1, 4, 3)
    operator = transform(tuple(placed.ravel()))
    y = operator(ball()[0])
    placed[:, 2:] *= -1
    flipped = transform(tuple(placed.ravel()))
    np.testing.assert_allclose(flipped(ball()[0]), y[:, ::-1, ::-1], atol=1e-4)
    np.testing.assert_allclose(flipped.start(y[:, ::-1, ::-1]), operator.start(y), atol=1e-4)


@pytest.mark.parametrize("name", list(SCANS)[:3])
def test_shepp_logan_in_three_dimensions(name):
    """Against the mean of every voxel; measured: 0.24 to 0.25."""
    volume = shepp_logan((SIDE,) * 3)
    scan = SCANS[name] | dict(spacing=(1.0, 1.0), source_distance=130.0, detector_distance=40.0)
    operator = transform(circular(**scan))
    found = np.asarray(fdk(operator, operator(volume), filter="ram-lak", cutoff=1.0))
    assert np.linalg.norm(found - volume) / np.linalg.norm(volume) < 0.27
    middle = (slice(14, 18),) * 3
    assert abs(found[middle].mean() - volume[middle].mean()) < 0.01


def test_views_of_no_orbit_are_refused_but_not_calibrated_ones():
    placed = np.asarray(
        circular(views(72, 2 * np.pi), spacing=(1.0, 1.0), source_distance=130.0, detector_distance=40.0)
    ).reshape(-1, 4, 3)
    placed[3, :2] *= 1.3  # one view from further away
    operator = transform(tuple(placed.ravel()))
    y = operator(ball()[0])
    with pytest.raises(ValueError, match="fdk: the views are no circular orbit"):
        fdk(operator, y)
    # A calibrated orbit, whose numbers differ a little from view to view, is one.
    wobble = 1 + 2e-3 * np.random.default_rng(0).standard_normal((72, 2, 1))
    placed[3, :2] /= 1.3
    placed[:, :2] *= wobble
    operator = transform(tuple(placed.ravel()))
    found = np.asarray(fdk(operator, operator(ball()[0])))
    assert abs(found[ball()[1] < 6].mean() - 1) < 2e-2


@pytest.mark.parametrize(
    ("y", "options", "message"),
    [
        (np.zeros((4, 48, 47)), {}, r"projections of shape \(4, 48, 64\)"),
        (np.zeros((4, 48, 64)), {"filter": "box"}, "filter must be one of"),
        (np.zeros((4, 48, 64)), {"cutoff": 0.0}, "cutoff is a fraction"),
    ],
)
def test_mistakes_are_named(y, options, message):
    operator = transform(circular(views(4, 6.0), spacing=(1.0, 1.0), source_distance=130.0, detector_distance=40.0))
    with pytest.raises(ValueError, match=message):
        fdk(operator, y.astype(np.float32), **options)


def test_it_is_the_start_of_an_orbit():
    operator = transform(
        circular(**SCANS["full turn"], spacing=(1.0, 1.0), source_distance=130.0, detector_distance=40.0)
    )
    y = np.random.default_rng(0).random(operator.measurement_shape, np.float32)
    np.testing.assert_array_equal(operator.start(y), fdk(operator, y))
    np.testing.assert_array_equal(fdk(operator, y * (1 - 2j)).imag, -2 * fdk(operator, y))  # of its parts alike


@pytest.mark.slow
def test_the_start_of_other_views_is_by_conjugate_gradients():
    orbit = dict(spacing=(1.0, 1.0), source_distance=130.0, detector_distance=40.0)
    placed = np.asarray(circular(**SCANS["full turn"], **orbit)).reshape(-1, 4, 3)
    placed[3, :2] *= 1.3
    operator = transform(tuple(placed.ravel()))
    y = operator(ball()[0])
    assert np.linalg.norm(operator(operator.start(y)) - y) < 0.1 * np.linalg.norm(y)
