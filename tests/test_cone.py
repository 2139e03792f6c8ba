"""The cone-beam projector against RTK, against a plain Joseph projector in float64, FanBeam, and its own transpose."""

import logging
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from padis_jax.operators import ConeBeam, FanBeam, cone_rays, dot_test
from padis_jax.operators.cone_geometry import ConeGeometry, circular
from padis_jax.operators.per_channel import leaf

RTK = np.load(Path(__file__).parent / "fixtures" / "rtk_cone.npz")
SMALL = dict(
    volume_shape=(5, 9, 11),
    slice_spacing=1.0,
    angles=np.linspace(0.1, 5, 4),
    detector_shape=(7, 16),
    source_distance=30.0,
    detector_distance=10.0,
)
ORBIT = dict(spacing=(1.2, 0.9), source_distance=26.0, detector_distance=9.0)
ANGLES = np.array([0.0, np.pi / 4, 1.0, -4.0])


def turned(seed):
    """A circular orbit whose axis has any direction."""
    rotation = np.linalg.qr(np.random.default_rng(seed).standard_normal((3, 3)))[0]
    return tuple((np.asarray(circular(ANGLES, **ORBIT)).reshape(-1, 4, 3) @ rotation).ravel())


AWKWARD = {
    "offsets, not cubic": ConeGeometry(
        (6, 7, 10), (9, 14), circular(ANGLES, offset=(1.3, -2.1), **ORBIT), pixel_size=1.1, slice_spacing=1.6
    ),
    "rays at 45 degrees": ConeGeometry(
        (3, 7, 7), (3, 5), circular(ANGLES[1:2], **ORBIT), pixel_size=1.0, slice_spacing=1.0
    ),
    "wide cone": ConeGeometry(
        (6, 5, 5), (9, 20), circular(ANGLES[1:3], **ORBIT | {"source_distance": 5.4}), pixel_size=1.0, slice_spacing=1.0
    ),
    "tilted, all main axes": ConeGeometry((5, 7, 8), (8, 9), turned(2), pixel_size=1.0, slice_spacing=1.5),
    "turned, one row": ConeGeometry((1, 7, 8), (1, 9), turned(4), pixel_size=1.0, slice_spacing=1.0),
}


def relative(a, b):
    return np.linalg.norm(np.asarray(a, np.float64) - b) / max(np.linalg.norm(b), 1e-30)


def joseph(geometry, volume):
    """The definition, one ray at a time."""
    sizes = np.array([geometry.slice_spacing, geometry.pixel_size, geometry.pixel_size])
    middle = (np.array(volume.shape) - 1) / 2
    padded, out = np.pad(volume, 2), np.zeros(geometry.measurement_shape)
    for v, (source, centre, column, row) in enumerate(geometry.placed):
        for i, j in np.ndindex(*geometry.detector_shape):
            end = centre + (i - (out.shape[1] - 1) / 2) * row + (j - (out.shape[2] - 1) / 2) * column
            start, way = ((p[::-1] * [1, -1, 1]) / sizes for p in (source, end - source))
            main = max((1, 2, 0), key=lambda axis: round(abs(way[axis]), 9))
            step = np.linalg.norm(way * sizes) / abs(way[main])
            for n in range(volume.shape[main]):
                at = start + (n - middle[main] - start[main]) / way[main] * way + middle
                at[main] = n
                low = np.floor(at + 1e-12).astype(int)
                for corner in np.ndindex(2, 2):
                    place = low.copy()
                    place[[a for a in range(3) if a != main]] += corner
                    weight = np.prod(np.maximum(0, 1 - np.abs(at - place)))
                    out[v, i, j] += step * weight * padded[tuple(np.clip(place + 2, 0, np.array(padded.shape) - 1))]
    return out


def test_equal_to_rtk():
    orbit = dict(spacing=(1.5, 1.5), source_distance=200.0, detector_distance=120.0)
    geometry = ConeGeometry(
        RTK["volume"].shape,
        RTK["projections"].shape[1:],
        circular(RTK["angles"], **orbit),
        pixel_size=1.0,
        slice_spacing=1.0,
    )
    found = jax.tree.map(leaf, geometry.rays()).project(jnp.asarray(RTK["volume"]))
    assert relative(found, RTK["projections"]) < 1e-5


def test_the_central_row_is_a_fan_beam_of_the_central_slice():
    fan = {k: v for k, v in SMALL.items() if k not in ("volume_shape", "slice_spacing", "detector_shape")}
    volume = np.random.default_rng(0).random(SMALL["volume_shape"], np.float32)
    beam = FanBeam(**fan, image_shape=(9, 11), detector_count=16, detector_offset=1.7)
    operator = ConeBeam(**SMALL, detector_offset=(0.0, 1.7))
    assert relative(operator(volume)[:, 3], np.asarray(beam(volume[2]))) < 1e-6


@pytest.mark.parametrize("name", AWKWARD)
def test_equal_to_the_definition_and_its_transpose(name):
    geometry = AWKWARD[name]
    volume = np.random.default_rng(0).standard_normal(geometry.volume_shape)
    with jax.enable_x64(True):
        rays = jax.tree.map(leaf, geometry.rays())
        assert rays.tall == ("tilted" in name)
        ax = np.asarray(rays.project(jnp.asarray(volume)))
        assert relative(ax, joseph(geometry, volume)) < 1e-12
        y = np.random.default_rng(1).standard_normal(ax.shape)
        mismatch = abs(np.vdot(ax, y) - np.vdot(volume, np.asarray(rays.backproject(jnp.asarray(y)))))
        assert mismatch <= 1e-13 * np.linalg.norm(ax) * np.linalg.norm(y)


@pytest.mark.slow
def test_taps_in_a_loop_are_those_written_out(monkeypatch):
    geometry = AWKWARD["offsets, not cubic"]
    rays = jax.tree.map(leaf, geometry.rays())
    y = jnp.asarray(np.random.default_rng(1).standard_normal(geometry.measurement_shape), jnp.float32)
    looped = cone_rays._backproject_plain(rays, y)
    monkeypatch.setattr(cone_rays, "UNROLLED", 10**4)
    np.testing.assert_allclose(cone_rays._backproject_plain(rays, y), looped, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_chunks_of_views_are_one_projection(monkeypatch):
    rays = ConeBeam(**SMALL).rays
    volume = jnp.asarray(np.random.default_rng(0).random(rays.volume_shape, np.float32))
    whole = rays.project(volume)
    monkeypatch.setattr(cone_rays, "CHUNK", 1)
    np.testing.assert_allclose(cone_rays._project_plain(rays, volume), whole, rtol=1e-6, atol=1e-6)


def test_transpose_autodiff_jit_vmap_and_complex_volumes():
    operator = ConeBeam(**SMALL)
    x = jax.random.uniform(jax.random.key(0), (2, *operator.image_shape))
    y = jax.random.uniform(jax.random.key(1), (2, *operator.measurement_shape))
    assert dot_test(operator, operator.image_shape, key=jax.random.key(0)) < 1e-5
    for x_, y_ in zip(x, y, strict=True):  # positive data, where errors of weights would add up
        mismatch = abs(jnp.vdot(operator(x_), y_) - jnp.vdot(x_, operator.T(y_)))
        assert mismatch < 1e-5 * jnp.linalg.norm(operator(x_)) * jnp.linalg.norm(y_)
    np.testing.assert_array_equal(jax.grad(lambda x: jnp.vdot(operator(x), y[0]))(x[0]), operator.T(y[0]))
    np.testing.assert_array_equal(jax.grad(lambda y: jnp.vdot(operator.T(y), x[0]))(y[0]), operator(x[0]))
    np.testing.assert_allclose(jax.jit(jax.vmap(operator))(x), np.stack([*map(operator, x)]), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(jax.vmap(operator.T)(y), np.stack([*map(operator.T, y)]), rtol=1e-5, atol=1e-4)
    np.testing.assert_array_equal(operator(jax.lax.complex(x[0], x[1])).imag, operator(x[1]))


def test_norm():
    operator = ConeBeam(**SMALL)
    size = np.prod(SMALL["volume_shape"])
    units = np.eye(size, dtype=np.float32).reshape(-1, *SMALL["volume_shape"])
    dense = np.stack([operator(unit) for unit in units]).reshape(size, -1)
    np.testing.assert_allclose(operator.norm, np.linalg.norm(dense, 2), rtol=1e-3)


@pytest.mark.slow
def test_pseudo_inverse():
    operator = ConeBeam(**SMALL | dict(volume_shape=(2, 3, 4), detector_shape=(3, 6), source_distance=9.0))
    with jax.enable_x64(True):
        dense = np.asarray(jax.vmap(operator)(jnp.eye(24).reshape(24, 2, 3, 4))).reshape(24, -1).T
        y = jnp.asarray(dense @ np.random.default_rng(0).standard_normal(24)).reshape(operator.measurement_shape)
        assert relative(np.ravel(operator.pinv(y)), np.linalg.pinv(dense, rcond=1e-10) @ np.ravel(y)) < 1e-5


def test_another_geometry_of_the_same_shapes_compiles_nothing(caplog):
    def use(i):
        change = dict(angles=SMALL["angles"] + 0.01 * i, source_distance=30 + 0.1 * i, detector_offset=(0.01 * i, 0.0))
        operator = ConeBeam(**SMALL | change)
        y = operator(np.ones(operator.image_shape, np.float32))
        jax.grad(lambda x: operator(x).sum())(np.ones(operator.image_shape, np.float32))
        return operator.T(y), operator.start(y)

    use(1)
    with jax.log_compiles(), caplog.at_level(logging.DEBUG, "jax"):
        results = use(2)
    assert not [line for line in caplog.messages if line.startswith("Compiling")]
    assert all(np.isfinite(result).all() for result in results)


def test_the_geometry_comes_back_exactly_and_goes_through_a_program():
    operator = ConeBeam(**SMALL)
    assert jax.jit(lambda operator: operator)(operator).geometry == operator.geometry
    assert operator.geometry.vectors[1] == -30 * np.cos(0.1)
    again = ConeBeam(
        volume_shape=SMALL["volume_shape"],
        slice_spacing=1.0,
        detector_shape=SMALL["detector_shape"],
        per_view=np.reshape(operator.geometry.vectors, (-1, 12)),
    )
    assert again is operator  # equal operators are built once


@pytest.mark.slow
def test_orientation_and_units():
    """One bright voxel high up in the top right of its slice; the detector as far as the source."""
    volume = np.zeros((9, 8, 8), np.float32)
    volume[7, 1, 6] = 3.0
    x = y = 2.5 * 0.5
    z = 3 * 0.4
    operator = ConeBeam(
        volume_shape=volume.shape,
        pixel_size=0.5,
        slice_spacing=0.4,
        angles=[0.0, np.pi / 2],
        detector_shape=(161, 201),
        detector_spacing=(0.05, 0.04),
        source_distance=20.0,
        detector_distance=20.0,
    )
    found = np.asarray(operator(volume), np.float64)
    total = found.sum((1, 2))
    rows, columns = (np.arange(161) - 80) * 0.05, (np.arange(201) - 100) * 0.04
    # Seen from the source of angle 0, below (y < 0), the voxel is at depth 20 + y and at x beside the middle.
    np.testing.assert_allclose(found.sum(1) @ columns / total, [40 * x / (20 + y), 40 * y / (20 - x)], atol=2e-2)
    np.testing.assert_allclose(found.sum(2) @ rows / total, [40 * z / (20 + y), 40 * z / (20 - x)], atol=2e-2)


PER_VIEW = np.asarray(circular(ANGLES, **ORBIT)).reshape(-1, 12)
PLACED = dict(volume_shape=(5, 9, 11), slice_spacing=1.0, detector_shape=(7, 16), per_view=PER_VIEW)
EDGE, NEAR = PER_VIEW.copy(), PER_VIEW.copy()
EDGE[2, 9:] = EDGE[2, 6:9]
NEAR[1, :3] = 1.0


@pytest.mark.parametrize(
    ("about", "message"),
    [
        (SMALL | dict(slice_spacing=None), "slice_spacing is missing: the distance of two slices"),
        (SMALL | dict(slice_spacing=0.0), "slice_spacing must be positive"),
        (SMALL | dict(angles=None), "angles is missing; or give"),
        (SMALL | dict(angles=[]), "angles must be a non-empty list"),
        (SMALL | dict(source_distance=np.nan), "source_distance must be positive"),
        (SMALL | dict(source_distance=7.0), "source_distance 7.0 must be more than 7.8"),
        (SMALL | dict(detector_distance=-1.0), "detector_distance must not be negative"),
        (SMALL | dict(detector_spacing=(1.0, 0.0)), "detector_spacing of columns must be positive"),
        (SMALL | dict(detector_offset=(0.0, np.inf)), r"detector_offset\[1\] must be finite"),
        (SMALL | dict(pixel_size=1e9), "pixel_size is 1e\\+09 and detector_spacing 1"),
        (SMALL | dict(detector_offset=1.0), "detector_offset is .of rows, of columns"),
        (SMALL | dict(pixel_size="1"), "pixel_size is '1': it must be a number"),
        (SMALL | dict(volume_shape=(9, 11)), "volume_shape must be"),
        (SMALL | dict(detector_shape=16), "detector_shape must be"),
        (PLACED | dict(angles=[0.0]), "leave out angles"),
        (PLACED | dict(per_view=PER_VIEW[:, :9]), r"per_view must be \[views, 12\]"),
        (PLACED | dict(per_view=np.where(PER_VIEW == PER_VIEW[3, 0], np.nan, PER_VIEW)), "view 3 of per_view"),
        (PLACED | dict(per_view=EDGE), "view 2 of per_view has a detector seen from its edge"),
        (PLACED | dict(per_view=NEAR), "in view 1 a part of the volume is behind the source: source and detector"),
    ],
)
def test_impossible_geometry_is_refused_in_one_line(about, message):
    with pytest.raises(ValueError, match=message) as refused:
        ConeBeam(**about)
    assert "\n" not in str(refused.value)
