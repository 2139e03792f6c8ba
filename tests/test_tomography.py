"""The projector against ASTRA, against a plain Joseph projector in float64, and against its own transpose."""

import warnings
from pathlib import Path

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from padis_jax.operators import ConeBeam, FanBeam, ParallelBeam, dot_test

FIXTURES = Path(__file__).parent / "fixtures"
AWKWARD = {
    "odd, not square": dict(image_shape=(13, 18), angles=[0.3, 1.1, 2.9], detector_count=31),
    "tall, unit of length": dict(image_shape=(21, 6), angles=[0.2, 1.4, 2.2], detector_count=17, pixel_size=0.3),
    "angles in any order": dict(
        image_shape=(9, 9),
        angles=[2.0, -0.4, 7.5, 2.0, np.pi / 4, 3 * np.pi / 4, 0.0, np.pi / 2, np.pi],
        detector_count=16,
    ),
    "fine bins": dict(image_shape=(10, 11), angles=[0.1, 0.8, 1.6], detector_count=70, detector_spacing=0.23),
    "few fine bins": dict(image_shape=(10, 11), angles=[0.1, 0.8, 1.6], detector_count=8, detector_spacing=0.23),
    "wide bins": dict(image_shape=(10, 11), angles=[0.1, 0.8, 1.6], detector_count=9, detector_spacing=1.9),
    "offset past the edge": dict(image_shape=(12, 12), angles=[0.5, 1.2], detector_count=12, detector_offset=6.7),
    "detector beside the image": dict(image_shape=(8, 8), angles=[0.5, 1.2], detector_count=12, detector_offset=40.0),
    "axis beside the middle": dict(
        image_shape=(9, 12), angles=[0.5, 1.2, 4.0], detector_count=20, detector_offset=0.4, rotation_offset=2.3
    ),
    "pixels three times as high as wide": dict(
        image_shape=(7, 12), angles=[0.1, 0.4, 1.0, 1.5, 2.6], detector_count=25, pixel_size=0.7, pixel_aspect=3.0
    ),
    "flat pixels": dict(image_shape=(12, 7), angles=[0.1, 0.4, 1.0, 1.5, 2.6], detector_count=25, pixel_aspect=0.4),
    "one view, one bin": dict(image_shape=(5, 5), angles=[0.7], detector_count=1),
}


def relative(a, b):
    return np.linalg.norm(np.asarray(a, np.float64) - b) / max(np.linalg.norm(b), 1e-30)


def joseph(
    image,
    *,
    image_shape,
    angles,
    detector_count,
    detector_spacing=1.0,
    pixel_size=1.0,
    detector_offset=0.0,
    rotation_offset=0.0,
    pixel_aspect=1.0,
):
    """The definition, one ray at a time."""
    (h, w), p, q = image_shape, pixel_size, pixel_size * pixel_aspect
    sinogram = np.zeros((len(angles), detector_count))
    for v, t in enumerate(angles):
        cos, sin = np.cos(t), np.sin(t)
        for b in range(detector_count):
            u = (b - (detector_count - 1) / 2) * detector_spacing + detector_offset - rotation_offset
            if p * abs(cos) >= q * abs(sin):
                y = ((h - 1) / 2 - np.arange(h)) * q
                position, lines = (u - y * sin) / cos / p + (w - 1) / 2, image
            else:
                x = (np.arange(w) - (w - 1) / 2) * p
                position, lines = (h - 1) / 2 - (u - x * cos) / sin / q, image.T
            for line, c in zip(lines, position, strict=True):
                padded = np.concatenate([[0.0], line, [0.0]])  # fades to zero within one pixel of the edge
                sinogram[v, b] += np.interp(c, np.arange(-1, len(line) + 1), padded, left=0, right=0)
            sinogram[v, b] *= 1 / max(abs(cos) / q, abs(sin) / p)
    return sinogram


def test_equal_to_astra():
    astra = np.load(FIXTURES / "astra_disk.npz")
    operator = ParallelBeam(image_shape=(64, 64), angles=astra["angles"], detector_count=96)
    assert relative(operator(astra["image"]), astra["parallel_sinogram"]) < 1e-5
    assert relative(operator.T(astra["parallel_sinogram"]), astra["parallel_backprojection"]) < 1e-5


@pytest.mark.parametrize("name", AWKWARD)
def test_equal_to_the_definition_and_its_transpose(name):
    geometry = AWKWARD[name]
    operator = ParallelBeam(**geometry)
    image = np.random.default_rng(0).standard_normal(geometry["image_shape"])
    expected = joseph(image, **geometry)
    assert np.any(expected) == (name != "detector beside the image")
    with jax.enable_x64(True):
        assert relative(operator(jnp.asarray(image)), expected) < 1e-12
        assert dot_test(operator, operator.image_shape, key=jax.random.key(0), dtype=jnp.float64) < 1e-13


def test_the_dot_test_at_full_size():
    # Non-negative data, where errors of the weights would add up rather than cancel.
    operator = ParallelBeam(image_shape=(256, 256), angles=(np.arange(20) + 0.5) * np.pi / 20)
    with jax.enable_x64(True):
        for dtype, bound in ((jnp.float32, 1e-5), (jnp.float64, 1e-12)):
            x = jax.random.uniform(jax.random.key(0), (256, 256), dtype)
            y = jax.random.uniform(jax.random.key(1), (20, 512), dtype)
            ax, aty = (np.asarray(a, np.float64) for a in (operator(x), operator.T(y)))
            mismatch = abs(np.vdot(ax, y) - np.vdot(x, aty)) / (np.linalg.norm(ax) * np.linalg.norm(y))
            assert mismatch < bound, dtype


def test_orientation_and_units():
    # One bright pixel at the top right: x > 0 and y > 0; pixels of half a millimetre, bins of one.
    image = np.zeros((8, 8), np.float32)
    image[1, 6] = 3.0
    x = y = 2.5 * 0.5
    angles = np.asarray([0.0, np.pi / 2, np.pi])
    operator = ParallelBeam(
        image_shape=(8, 8), angles=angles, detector_count=401, detector_spacing=0.01, pixel_size=0.5
    )
    u = (np.arange(401) - 200) * 0.01
    sinogram = operator(jnp.asarray(image))
    centre = sinogram @ u / sinogram.sum(1)
    np.testing.assert_allclose(centre, [x, y, -x], atol=1e-3)
    np.testing.assert_allclose(sinogram.max(1), 3.0 * 0.5, rtol=1e-5)  # value times length
    np.testing.assert_allclose(sinogram.sum(1) * 0.01, 3.0 * 0.5**2, rtol=1e-4)  # value times area


def test_autodiff_uses_the_written_transpose():
    operator = ParallelBeam(image_shape=(16, 16), angles=np.linspace(0, 3, 7), detector_count=24)
    x, y = jax.random.normal(jax.random.key(0), (16, 16)), jax.random.normal(jax.random.key(1), (7, 24))
    np.testing.assert_array_equal(jax.grad(lambda x: jnp.vdot(operator(x), y))(x), operator.T(y))
    np.testing.assert_array_equal(jax.grad(lambda y: jnp.vdot(operator.T(y), x))(y), operator(x))
    normal = jax.grad(lambda x: 0.5 * jnp.sum((operator(x) - y) ** 2))
    np.testing.assert_allclose(normal(x), operator.T(operator(x) - y), rtol=1e-5, atol=1e-5)
    # Twice differentiated, and no scatter anywhere: the transposition of a gather would be one.
    hessian_vector = jax.grad(lambda x: jnp.vdot(normal(x), x))
    assert "scatter" not in jax.jit(hessian_vector).lower(x).as_text()


def test_complex_images_are_projected_part_by_part():
    operator = ParallelBeam(image_shape=(7, 6), angles=[0.2, 1.7], detector_count=9)
    x = jax.random.normal(jax.random.key(0), (7, 6), jnp.complex64)
    np.testing.assert_array_equal(operator(x).imag, operator(x.imag))
    assert dot_test(operator, (7, 6), key=jax.random.key(0), dtype=jnp.complex64) < 1e-5


def test_jit_vmap_and_channels_agree_with_one_plane_at_a_time():
    operator = ParallelBeam(image_shape=(12, 15), angles=np.linspace(0, 3, 5), detector_count=21)
    x = jax.random.normal(jax.random.key(0), (3, 12, 15))
    planes = np.stack([operator(plane) for plane in x])
    np.testing.assert_allclose(jax.jit(jax.vmap(operator))(x), planes, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(operator(jnp.moveaxis(x, 0, 2)), np.moveaxis(planes, 0, 2), rtol=1e-5, atol=1e-5)
    backs = np.stack([operator.T(plane) for plane in jnp.asarray(planes)])
    np.testing.assert_allclose(jax.vmap(operator.T)(jnp.asarray(planes)), backs, rtol=1e-5, atol=1e-4)
    one = operator.T(jnp.asarray(planes[0])[:, :, None])
    assert one.shape == (12, 15, 1)
    np.testing.assert_array_equal(one[:, :, 0], backs[0])
    assert operator.pinv(operator(jnp.moveaxis(x, 0, 2))).shape == (12, 15, 3)
    assert operator.start(operator(jnp.moveaxis(x, 0, 2))).shape == (12, 15, 3)


def test_the_operator_is_a_pytree():
    @jax.jit
    @chex.assert_max_traces(n=1)
    def apply(operator, x):
        return operator.T(operator(x)) / operator.norm**2

    # Built twice, the same geometry is the same program.
    one, two = (ParallelBeam(image_shape=(12, 12), angles=[0.1, 0.9], detector_count=20) for _ in range(2))
    np.testing.assert_array_equal(apply(one, jnp.ones((12, 12))), apply(two, jnp.ones((12, 12))))


def matrix(operator):
    pixels = operator.image_shape[0] * operator.image_shape[1]
    columns = jax.vmap(operator)(jnp.eye(pixels, dtype=float).reshape(pixels, *operator.image_shape))
    return np.asarray(columns, np.float64).reshape(pixels, -1).T


def test_norm_and_pseudo_inverse_against_the_dense_matrix():
    operator = ParallelBeam(image_shape=(10, 8), angles=np.linspace(0, 3, 5), detector_count=14)
    dense = matrix(operator)
    np.testing.assert_allclose(operator.norm, np.linalg.norm(dense, 2), rtol=1e-3)
    y = operator(jax.random.normal(jax.random.key(0), (10, 8)))
    assert relative(operator(operator.pinv(y)), y) < 1e-4  # A A+ A = A
    with jax.enable_x64(True):  # the smallest singular values want the digits
        dense = matrix(operator)
        y = jnp.asarray(dense @ np.random.default_rng(0).standard_normal(80)).reshape(5, 14)
        x = operator.pinv(y)
        assert relative(operator(x), y) < 1e-12
        assert relative(x.ravel(), np.linalg.pinv(dense, rcond=1e-10) @ np.asarray(y).ravel()) < 1e-6  # of least norm


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(angles=[]), "angles"),
        (dict(angles=[[0.1]]), "angles"),
        (dict(angles=[0.1, np.nan]), "angles"),
        (dict(image_shape=(8, 0)), "image_shape"),
        (dict(image_shape=(8, 8, 1)), "image_shape"),
        (dict(image_shape=(8.9, 8)), "image_shape"),
        (dict(detector_count=0), "detector_count"),
        (dict(detector_count=48.7), "detector_count"),
        (dict(detector_count=np.inf), "detector_count"),
        (dict(detector_spacing=0.0), "detector_spacing"),
        (dict(pixel_size=-1.0), "pixel_size"),
        (dict(detector_offset=np.inf), "detector_offset"),
        (dict(rotation_offset=np.nan), "rotation_offset"),
        (dict(angles=[0.1j]), "angles must be .* radians of at most 1e\\+06, got complex"),
        (dict(angles=["a"]), "angles"),
        (dict(angles=[1e300]), "angles"),
        (dict(detector_spacing=1e-40), "pixel_size is 1 and detector_spacing 1e-40.*one unit"),
        (dict(detector_spacing=1e-12), "pixel_size is 1 and detector_spacing 1e-12.*one unit"),
        (dict(pixel_size=1e-300), "pixel_size is 1e-300 and detector_spacing 1:.*one unit"),
        (dict(pixel_aspect=1e30), "the height of a pixel is 1e\\+30"),
        (dict(pixel_aspect=1e-30), "the height of a pixel is 1e-30"),
        (dict(detector_offset=1e9), "detector_offset is 1e\\+09"),
    ],
)
def test_impossible_geometry_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        ParallelBeam(**(dict(image_shape=(8, 8), angles=[0.1], detector_count=8) | change))


@pytest.mark.parametrize("scan", [ParallelBeam, FanBeam, ConeBeam])
def test_angles_that_look_like_degrees_are_warned_of(scan):
    about = dict(image_shape=(8, 8), detector_count=8)
    if scan is ConeBeam:
        about = dict(volume_shape=(2, 8, 8), detector_shape=(4, 8), slice_spacing=1.0)
    if scan is not ParallelBeam:
        about |= dict(source_distance=40.0, detector_distance=10.0)
    degrees = np.arange(0.0, 180.0, 45.0)
    with pytest.warns(UserWarning, match=rf"{scan.__name__}: the angles span 135 radians: are they degrees\?") as seen:
        scan(angles=degrees, **about)
    assert seen[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scan(angles=np.radians(degrees), **about)


def test_wrong_shapes_are_refused():
    operator = ParallelBeam(image_shape=(8, 9), angles=[0.1, 0.2], detector_count=12)
    for image in (jnp.ones((9, 8)), jnp.ones(72), jnp.ones((1, 8, 9)), jnp.ones((1, 8, 9, 1))):
        with pytest.raises(ValueError, match=r"image of shape \(8, 9\)"):
            operator(image)
    for method in (operator.T, operator.pinv, operator.start):
        with pytest.raises(ValueError, match=r"sinogram|measurement of shape \(2, 12\)"):
            method(jnp.ones((12, 2)))
