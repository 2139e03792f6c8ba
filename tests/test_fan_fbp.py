"""Filtered backprojection of fan beams: right values for full turns, short scans and offsets; Parker's weights."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from padis_jax.operators import fbp
from padis_jax.operators.fan import FanGeometry
from padis_jax.operators.per_channel import leaf
from padis_jax.operators.shares import depth_in_scan, ray_shares
from padis_jax.operators.tomography import RayTransform

FAN = np.arctan(60 / 90)  # half the opening of the detector below
SHORT = np.pi + 2 * FAN


def disk(side=48, radius=15.0, centre=(3.0, -2.0)):
    y, x = (side - 1) / 2 - np.arange(side)[:, None], np.arange(side)[None] - (side - 1) / 2
    return np.clip(radius - np.hypot(x - centre[0], y - centre[1]) + 0.5, 0, 1).astype(np.float32)


def views(count, span, first=0.4):
    return first + (np.arange(count) + 0.5) * span / count


def scan(**change):
    base = dict(detector_spacing=1.0, pixel_size=1.0, detector_offset=0.0, source_distance=50.0, detector_distance=40.0)
    fields = base | dict(detector_count=120) | change
    return FanGeometry(**fields | dict(angles=tuple(fields["angles"])))


SCANS = {
    "full turn": dict(angles=views(120, 2 * np.pi)),
    "short scan": dict(angles=views(100, SHORT)),
    "between": dict(angles=views(110, 1.7 * np.pi)),
    "shuffled, more than a turn": dict(angles=np.random.default_rng(0).permutation(views(180, 3 * np.pi))),
    "another unit": dict(
        angles=views(120, 2 * np.pi),
        pixel_size=0.3,
        detector_spacing=0.3,
        source_distance=15.0,
        detector_distance=12.0,
    ),
    "fine bins": dict(angles=views(120, 2 * np.pi), detector_count=240, detector_spacing=0.5),
    "detector offset": dict(angles=views(120, 2 * np.pi), detector_offset=11.3),
    "both ends of two turns, rounded": dict(angles=np.linspace(0, 4 * np.pi, 241).astype(np.float32)),
    "axis offset": dict(angles=views(100, SHORT), rotation_offset=6.0, detector_offset=10.8),
    "half the detector": dict(angles=views(160, 2 * np.pi), detector_count=60, detector_offset=22.0),
}


def chords(geometry, radius=15.0, centre=(3.0, -2.0)):
    """Line integrals of the disk, exactly: [views, bins]."""
    t = np.asarray(geometry.angles)[:, None]
    along, up = np.stack([np.cos(t), np.sin(t)], -1), np.stack([-np.sin(t), np.cos(t)], -1)
    source = -geometry.source_distance * up - geometry.rotation_offset * along
    way = (geometry.source_distance + geometry.detector_distance) * up + geometry.detector_u[None, :, None] * along
    offset = np.asarray(centre) * geometry.pixel_size - source
    distance = (way[..., 0] * offset[..., 1] - way[..., 1] * offset[..., 0]) / np.hypot(way[..., 0], way[..., 1])
    return 2 * np.sqrt(np.maximum(0, (radius * geometry.pixel_size) ** 2 - distance**2))


@pytest.mark.parametrize("name", SCANS)
def test_values_are_right(name):
    image = disk()
    geometry = scan(image_shape=image.shape, **SCANS[name])
    sinogram = jnp.asarray(chords(geometry), jnp.float32)
    operator = RayTransform(
        jax.tree.map(leaf, geometry.rays()), geometry.words(), 1.0, type(geometry)
    )  # nobody needs its norm
    result = np.asarray(fbp(operator, sinogram, filter="ram-lak", cutoff=1.0))
    inside, near = disk(radius=11.0) == 1, disk(radius=22.0, centre=(0, 0)) == 1  # what every view sees
    np.testing.assert_allclose(result[inside].mean(), 1, atol=0.005)
    np.testing.assert_allclose(result[near & (disk(radius=18.0) == 0)].mean(), 0, atol=0.01)
    assert np.abs(result[inside] - 1).max() < 0.1


def parker(beta, gamma, delta):
    """Parker's weights as he gives them, for a scan of pi + 2 delta from beta = 0, delta >= |gamma|."""
    if beta <= 2 * delta - 2 * gamma:
        return np.sin(np.pi / 4 * beta / (delta - gamma)) ** 2
    if beta <= np.pi - 2 * gamma:
        return 1.0
    return np.sin(np.pi / 4 * (np.pi + 2 * delta - beta) / (delta + gamma)) ** 2


def shares_of(angles, u, total_distance, skew=0.0):
    gamma = np.arctan(u / total_distance)
    other = 2 * skew - gamma
    return ray_shares(angles, u, other_u=total_distance * np.tan(other), turn=np.pi + other - gamma)


@pytest.mark.parametrize("count", [10, 60])
def test_shares_of_a_short_scan_are_parkers(count):
    delta, u = 0.3, np.linspace(-20, 20, 21)
    span = np.pi + 2 * delta
    shares = shares_of(tuple(views(count, span)), u, 90.0)
    gamma = np.arctan(u / 90)
    # His fan angle turns the other way: with ours, the partner of view t is t + pi - 2 g.
    expected = [[parker(beta, -g, delta) for g in gamma] for beta in views(count, span, first=0.0)]
    np.testing.assert_allclose(shares, expected, atol=1e-12)


def test_a_full_turn_is_shared_evenly_and_a_lone_view_not_at_all():
    u = np.linspace(-20, 20, 11)
    np.testing.assert_allclose(shares_of(tuple(views(24, 2 * np.pi)), u, 90.0), 0.5)
    np.testing.assert_allclose(shares_of(tuple(views(30, 0.5)), u, 90.0), 1.0)


def test_shares_of_a_line_add_to_one_over_several_arcs():
    # Two arcs that face each other in part, and an axis beside the middle.
    angles = (*views(90, 1.5, 0.0), *views(120, 2.0, 2.5))
    u, skew, total = np.linspace(-30, 30, 41), 0.04, 90.0
    shares = shares_of(angles, u, total, skew)
    partial = (shares > 0.01) & (shares < 0.99)
    assert 0.02 < partial.mean() < 0.9
    for v, b in list(zip(*np.nonzero(partial), strict=True))[::50]:
        gamma = np.arctan(u[b] / total)
        other = 2 * skew - gamma
        # that ray as the only view of a bin of its own, in a scan with the same ends
        mine = depth_in_scan(np.asarray([angles[v]]), angles)
        facing = depth_in_scan(np.asarray([angles[v] + np.pi + other - gamma]), angles)
        edge, mirrored = 30.75 - abs(u[b]), 30.75 - abs(total * np.tan(other))
        there = np.sin(np.pi / 2 * facing * mirrored / (mine * edge + facing * mirrored)) ** 2
        np.testing.assert_allclose(shares[v, b] + there, 1, atol=1e-9)


def test_depth_counts_from_the_ends_of_every_arc():
    angles = (*views(40, 0.4, 0.0), *views(40, 0.4, 3.0))
    depth = depth_in_scan(np.asarray([0.1, 0.3, 0.5, 3.2, 3.4001, 6.4]), angles)
    np.testing.assert_allclose(depth, [0.1, 0.1, 0, 0.2, 0, 6.4 - 2 * np.pi], atol=1e-9)
    np.testing.assert_array_equal(depth_in_scan(np.asarray([0.1, 4.0]), tuple(views(9, 2 * np.pi))), 1)


@pytest.mark.parametrize(
    ("detector", "axis"), [(0.0, 0.0), (7.3, 0.0), (-7.3, 0.0), (0.0, 3.0), (5.4, 3.0), (-4.0, 3.0)]
)
def test_a_widened_detector_reaches_as_far_on_both_sides_of_the_axis(detector, axis):
    """The axis, at a along the detector from the source's foot and at depth d, is seen at D a / d."""
    geometry = scan(image_shape=(8, 8), angles=[0.1], detector_offset=detector, rotation_offset=axis)
    shadow = 90 / 50 * axis
    reach = max(abs(end - shadow) for end in (geometry.detector_u[0], geometry.detector_u[-1]))
    wide, more = geometry.widened()
    shorter = min(shadow - wide.detector_u[0], wide.detector_u[-1] - shadow)
    assert reach - 1e-6 <= shorter < reach + 1 and wide.detector_count == 120 + 2 * more
    np.testing.assert_allclose(wide.detector_u[more : more + 120], geometry.detector_u, atol=1e-9)


def test_a_pixel_that_a_view_does_not_see_gets_nothing_from_it():
    """D / L^2 times the views, linear between bins and down to 0 one bin beyond the last."""
    geometry = scan(image_shape=(24, 20), angles=[0.3, 2.0, 4.5], detector_count=9, detector_offset=2.2)
    sinogram = np.random.default_rng(0).uniform(1, 2, (3, 9)).astype(np.float32)
    y, x = 11.5 - np.arange(24)[:, None], np.arange(20)[None] - 9.5
    expected = np.zeros((24, 20))
    for t, row in zip(geometry.angles, sinogram, strict=True):
        depth = 50 - x * np.sin(t) + y * np.cos(t)
        bins = 90 * (x * np.cos(t) + y * np.sin(t)) / depth - 2.2 + 4
        expected += 90 / depth**2 * np.interp(bins, np.arange(-1, 10), np.pad(row, 1), left=0, right=0)
    assert (expected == 0).any()
    np.testing.assert_allclose(geometry.rays().smear(jnp.asarray(sinogram)), expected, atol=1e-5)
