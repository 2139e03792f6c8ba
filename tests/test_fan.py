"""The fan-beam projector against ASTRA, against a plain Joseph projector in float64, and against its own transpose."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from padis_jax.operators import FanBeam, ParallelBeam, dot_test, fan_rays
from padis_jax.operators.fan import FanGeometry, _widest
from tests.fixtures.make_astra_fan import SCANS, astra_sinogram, head_slice

FIXTURE = np.load(Path(__file__).parent / "fixtures" / "astra_fan.npz")
AWKWARD = {
    "odd, not square": dict(
        image_shape=(13, 18), angles=[0.3, 1.1, 2.9], detector_count=31, source_distance=20.0, detector_distance=9.0
    ),
    "wide fan, both kinds of ray in a view": dict(
        image_shape=(21, 6),
        angles=[0.75, 1.4, 2.2, -4.0],
        detector_count=40,
        source_distance=13.0,
        detector_distance=7.0,
    ),
    "detector in the centre, unit of length": dict(
        image_shape=(9, 9),
        angles=[2.0, 2.0, np.pi / 4, 0.0, np.pi / 2, np.pi, 6.6],
        detector_count=16,
        detector_spacing=0.23,
        pixel_size=0.31,
        source_distance=4.0,
        detector_distance=0.0,
    ),
    "both offsets": dict(
        image_shape=(12, 12),
        angles=[0.5, 1.2, 3.3],
        detector_count=33,
        source_distance=30.0,
        detector_distance=20.0,
        detector_offset=2.7,
        rotation_offset=-1.9,
    ),
    "pixels three times as high as wide": dict(
        image_shape=(6, 13),
        angles=[0.5, 1.2, 1.5, 3.3],
        detector_count=33,
        pixel_aspect=3.0,
        source_distance=30.0,
        detector_distance=20.0,
    ),
    "detector beside the image": dict(
        image_shape=(8, 8),
        angles=[0.5, 1.2],
        detector_count=5,
        source_distance=20.0,
        detector_distance=20.0,
        detector_offset=60.0,
    ),
}
SMALL = dict(
    image_shape=(12, 15), angles=np.linspace(0, 6, 5), detector_count=26, source_distance=25.0, detector_distance=10.0
)


def scan(**change):
    fields = dict(detector_spacing=1.0, pixel_size=1.0, detector_offset=0.0) | change
    return FanGeometry(**fields | dict(angles=tuple(fields["angles"])))


def relative(a, b):
    return np.linalg.norm(np.asarray(a, np.float64) - b) / max(np.linalg.norm(b), 1e-30)


def joseph(
    image,
    *,
    image_shape,
    angles,
    source_distance,
    detector_distance,
    detector_count,
    detector_spacing=1.0,
    pixel_size=1.0,
    detector_offset=0.0,
    rotation_offset=0.0,
    pixel_aspect=1.0,
):
    """The definition, one ray from the source to its bin at a time, without any angle of the ray."""
    (h, w), p, q = image_shape, pixel_size, pixel_size * pixel_aspect
    x, y = (np.arange(w) - (w - 1) / 2) * p, ((h - 1) / 2 - np.arange(h)) * q
    sinogram = np.zeros((len(angles), detector_count))
    for v, t in enumerate(angles):
        along, up = np.array([np.cos(t), np.sin(t)]), np.array([-np.sin(t), np.cos(t)])
        source = -source_distance * up - rotation_offset * along
        for b in range(detector_count):
            u = (b - (detector_count - 1) / 2) * detector_spacing + detector_offset
            way = detector_distance * up + (u - rotation_offset) * along - source
            if p * abs(way[1]) >= q * abs(way[0]):
                position = (source[0] + (y - source[1]) * way[0] / way[1]) / p + (w - 1) / 2
                lines, step = image, q * np.hypot(*way) / abs(way[1])
            else:
                position = (h - 1) / 2 - (source[1] + (x - source[0]) * way[1] / way[0]) / q
                lines, step = image.T, p * np.hypot(*way) / abs(way[0])
            for line, c in zip(lines, position, strict=True):
                padded = np.concatenate([[0.0], line, [0.0]])
                sinogram[v, b] += step * np.interp(c, np.arange(-1, len(line) + 1), padded, left=0, right=0)
    return sinogram


@pytest.mark.parametrize("name", SCANS)
def test_within_half_a_percent_of_exact_line_integrals(name):
    geometry = scan(image_shape=(256, 256), **SCANS[name])
    assert relative(geometry.project(jnp.asarray(head_slice())), FIXTURE[name]) < 5e-3


@pytest.mark.parametrize("name", SCANS)
def test_the_fixture_is_what_astra_computes(name):
    pytest.importorskip("astra")
    assert relative(astra_sinogram(head_slice(), **SCANS[name]), FIXTURE[name]) < 1e-6


@pytest.mark.parametrize("name", AWKWARD)
def test_equal_to_the_definition_and_its_transpose(name):
    geometry = scan(**AWKWARD[name])
    image = np.random.default_rng(0).standard_normal(geometry.image_shape)
    expected = joseph(image, **AWKWARD[name])
    assert np.any(expected) == (name != "detector beside the image")
    with jax.enable_x64(True):
        ax = np.asarray(geometry.project(jnp.asarray(image)))
        assert relative(ax, expected) < 1e-12
        y = np.random.default_rng(1).standard_normal(ax.shape)
        aty = np.asarray(geometry.rays().backproject(jnp.asarray(y)))
        mismatch = abs(np.vdot(ax, y) - np.vdot(image, aty))
        assert mismatch <= 1e-13 * np.linalg.norm(ax) * np.linalg.norm(y)


@pytest.mark.parametrize("name", ["wide fan, both kinds of ray in a view", "both offsets"])
def test_taps_in_a_loop_are_those_written_out(name, monkeypatch):
    geometry = scan(**AWKWARD[name])
    y = jnp.asarray(np.random.default_rng(1).standard_normal(geometry.measurement_shape), jnp.float32)
    rays = jax.tree.map(jnp.asarray, geometry.rays())
    written = fan_rays._backproject_plain(rays, y)
    monkeypatch.setattr(fan_rays, "UNROLLED", 0)
    np.testing.assert_allclose(fan_rays._backproject_plain(rays, y), written, rtol=1e-6, atol=1e-6)


def test_views_look_at_as_many_bins_as_they_need():
    geometry = scan(
        image_shape=(40, 40),
        angles=np.linspace(0, 6, 90),
        detector_count=80,
        source_distance=40.0,
        detector_distance=40.0,
    )
    rays, needed = geometry.rays(), 2 * _widest(geometry)
    assert len(rays.taps) == 3 and needed.max() < rays.taps[0]
    for kind in range(2):
        first, second, last = rays.counts[kind]
        found = needed[kind, rays.order[kind]]
        assert 0 < first < second < last < 90
        assert found[first:last].max() < rays.taps[1] < found[:first].min()
        assert found[second:last].max() < rays.taps[2] < found[:second].min()


def test_a_source_near_a_corner_has_a_small_program():
    """Dozens of taps, which written out take XLA many seconds."""
    shape, side = (32, 32), 24.2
    geometry = scan(
        image_shape=shape, angles=[np.pi / 4], detector_count=64, source_distance=side, detector_distance=side
    )
    assert _widest(geometry).max() > 30
    rays = jax.tree.map(jnp.asarray, geometry.rays())
    program = jax.make_jaxpr(fan_rays._backproject_plain)(rays, jnp.zeros(geometry.measurement_shape))
    assert len(program.pretty_print().splitlines()) < 2000
    with jax.enable_x64(True):
        image = np.random.default_rng(0).standard_normal((32, 32))
        y = np.random.default_rng(1).standard_normal(geometry.measurement_shape)
        ax, aty = (
            np.asarray(geometry.project(jnp.asarray(image))),
            np.asarray(geometry.rays().backproject(jnp.asarray(y))),
        )
        assert abs(np.vdot(ax, y) - np.vdot(image, aty)) <= 1e-13 * np.linalg.norm(ax) * np.linalg.norm(y)


def test_the_dot_test_of_positive_data():
    # Non-negative data, where errors of the weights would add up rather than cancel.
    geometry = scan(**SMALL | dict(image_shape=(60, 56), detector_count=90, source_distance=60.0))
    with jax.enable_x64(True):
        for dtype, bound in ((jnp.float32, 1e-5), (jnp.float64, 1e-12)):
            x = jax.random.uniform(jax.random.key(0), geometry.image_shape, dtype)
            y = jax.random.uniform(jax.random.key(1), geometry.measurement_shape, dtype)
            ax, aty = (np.asarray(a, np.float64) for a in (geometry.project(x), geometry.rays().backproject(y)))
            mismatch = abs(np.vdot(ax, y) - np.vdot(x, aty)) / (np.linalg.norm(ax) * np.linalg.norm(y))
            assert mismatch < bound, dtype


def test_a_distant_source_is_a_parallel_beam():
    common = dict(image_shape=(14, 14), angles=[0.2, 1.0, 2.5, 4.0], detector_count=24, rotation_offset=1.3)
    image = np.random.default_rng(0).random((14, 14))
    with jax.enable_x64(True):
        fan = scan(**common, source_distance=1e9, detector_distance=0.0).project(jnp.asarray(image))
        assert relative(fan, np.asarray(ParallelBeam(**common)(jnp.asarray(image)))) < 1e-6


def test_orientation_and_units():
    # One bright pixel at the top right, pixels of half a millimetre; the detector as far as the source.
    image = np.zeros((8, 8), np.float32)
    image[1, 6] = 3.0
    x = y = 2.5 * 0.5
    geometry = scan(
        image_shape=(8, 8),
        angles=[0.0, np.pi / 2, np.pi],
        detector_count=1101,
        detector_spacing=0.01,
        pixel_size=0.5,
        source_distance=20.0,
        detector_distance=20.0,
        rotation_offset=0.3,
    )
    u = (np.arange(1101) - 550) * 0.01
    sinogram = np.asarray(geometry.project(jnp.asarray(image)))
    centre = sinogram @ u / sinogram.sum(1)
    # At angle 0 the source is below (y < 0); seen from it, the pixel is at depth 20 + y and lateral x + 0.3.
    expected = [40 * (x + 0.3) / (20 + y), 40 * (y + 0.3) / (20 - x), 40 * (-x + 0.3) / (20 - y)]
    np.testing.assert_allclose(centre, expected, atol=3e-3)


def test_autodiff_uses_the_written_transpose():
    operator = FanBeam(**SMALL)
    assert dot_test(operator, operator.image_shape, key=jax.random.key(0)) < 1e-5
    x, y = jax.random.normal(jax.random.key(0), (12, 15)), jax.random.normal(jax.random.key(1), (5, 26))
    np.testing.assert_array_equal(jax.grad(lambda x: jnp.vdot(operator(x), y))(x), operator.T(y))
    np.testing.assert_array_equal(jax.grad(lambda y: jnp.vdot(operator.T(y), x))(y), operator(x))
    gradient = jax.jit(jax.grad(lambda x: jnp.sum((operator(x) - y) ** 2)))
    assert "scatter" not in gradient.lower(x).as_text()


def test_complex_images_are_projected_part_by_part():
    operator = FanBeam(**SMALL)
    x = jax.random.normal(jax.random.key(0), (12, 15), jnp.complex64)
    np.testing.assert_array_equal(operator(x).imag, operator(x.imag))
    assert dot_test(operator, (12, 15), key=jax.random.key(0), dtype=jnp.complex64) < 1e-5


def test_jit_vmap_and_channels_agree_with_one_plane_at_a_time():
    operator = FanBeam(**SMALL)
    x = jax.random.normal(jax.random.key(0), (3, 12, 15))
    planes = np.stack([operator(plane) for plane in x])
    np.testing.assert_allclose(jax.jit(jax.vmap(operator))(x), planes, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(operator(jnp.moveaxis(x, 0, 2)), np.moveaxis(planes, 0, 2), rtol=1e-5, atol=1e-5)
    backs = np.stack([operator.T(plane) for plane in jnp.asarray(planes)])
    np.testing.assert_allclose(jax.vmap(operator.T)(jnp.asarray(planes)), backs, rtol=1e-5, atol=1e-4)
    assert operator.start(operator(jnp.moveaxis(x, 0, 2))).shape == (12, 15, 3)


def test_norm_and_pseudo_inverse_on_a_limited_arc():
    operator = FanBeam(
        image_shape=(7, 6), angles=np.linspace(0, 1, 4), detector_count=14, source_distance=12.0, detector_distance=9.0
    )
    with jax.enable_x64(True):
        dense = np.asarray(jax.vmap(operator)(jnp.eye(42).reshape(42, 7, 6))).reshape(42, -1).T
        np.testing.assert_allclose(operator.norm, np.linalg.norm(dense, 2), rtol=1e-3)
        y = jnp.asarray(dense @ np.random.default_rng(0).standard_normal(42)).reshape(4, 14)
        x = operator.pinv(y)
        assert relative(operator(x), np.asarray(y)) < 1e-10  # A A+ A = A
        assert relative(np.ravel(x), np.linalg.pinv(dense, rcond=1e-10) @ np.ravel(y)) < 1e-5  # of least norm


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(source_distance=4.0), "source_distance 4.0 must be more than 6.6"),
        (dict(source_distance=np.nan), "source_distance must be positive"),
        (dict(detector_distance=-1.0), "detector_distance must not be negative"),
        (dict(rotation_offset=np.inf), "rotation_offset must be finite"),
        (dict(angles=[]), "FanBeam: angles"),
        (dict(pixel_size=0.0), "FanBeam: pixel_size"),
        (dict(source_distance=1e300), "FanBeam: source_distance is 1e\\+300"),
        (dict(rotation_offset=-1e9), "FanBeam: rotation_offset is -1e\\+09"),
    ],
)
def test_impossible_geometry_is_refused(change, message):
    good = dict(image_shape=(8, 8), angles=[0.1], detector_count=8, source_distance=20.0, detector_distance=5.0)
    with pytest.raises(ValueError, match=message):
        FanBeam(**(good | change))


FINE = dict(image_shape=(80, 80), angles=[0.0], detector_count=9, pixel_size=0.15, source_distance=10.0)


@pytest.mark.parametrize(
    "fields",
    [AWKWARD["both offsets"], FINE | dict(detector_distance=0.0), FINE | dict(detector_distance=9, rotation_offset=6)],
)
def test_the_bound_on_how_far_neighbouring_rays_are_apart(fields):
    """Against differences of the detector coordinate from pixel to pixel, and to those beside the image."""
    geometry = scan(**fields | dict(angles=np.linspace(0, 2 * np.pi, 60)))
    total, axis = geometry.source_distance + geometry.detector_distance, geometry.rotation_offset
    size = np.array([geometry.pixel_size, geometry.pixel_height])
    h, w = geometry.image_shape
    x, y = np.meshgrid(np.arange(-1, w + 1) - (w - 1) / 2, np.arange(-1, h + 1) - (h - 1) / 2)
    theta = np.asarray(geometry.angles)[:, None, None]
    x, y = x * size[0], y * size[1]
    bins = total * (x * np.cos(theta) + y * np.sin(theta) + axis) / geometry.detector_spacing
    bins = bins / (geometry.source_distance - x * np.sin(theta) + y * np.cos(theta))
    along_row, along_column = np.abs(np.diff(bins, axis=2))[:, 1:-1], np.abs(np.diff(bins, axis=1))[:, :, 1:-1]
    found = np.stack([along_row.max((1, 2)), along_column.max((1, 2))])
    assert (found <= _widest(geometry) * (1 + 1e-12)).all() and (_widest(geometry) <= 1.5 * found).all()
