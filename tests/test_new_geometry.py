"""Another geometry of one shape is other data, not another program: nothing is compiled for it and nothing kept."""

import gc
import logging
import resource

import jax
import numpy as np
import pytest

from padis_jax import TV, reconstruct, total_variation
from padis_jax.operators import FanBeam, ParallelBeam, fbp, stack
from padis_jax.patches import frame_for
from padis_jax.prior import Prior

SHAPE, VIEWS, BINS = (16, 16), 6, 24


def scan(beam, i):
    """Angles, lengths and offsets that differ a little."""
    about = {"image_shape": SHAPE, "detector_count": BINS, "detector_offset": 0.01 * i, "pixel_size": 1 + 1e-3 * i}
    if beam == "parallel":
        return ParallelBeam(**about, angles=(np.arange(VIEWS) + 0.5 + 0.025 * i) * np.pi / VIEWS)
    angles = (np.arange(VIEWS) + 0.025 * i) * 2 * np.pi / VIEWS
    return FanBeam(**about, angles=angles, source_distance=40 + 0.1 * i, detector_distance=20 + 0.1 * i)


PRIOR = Prior(lambda key, plane, sigma: plane / (1 + sigma**2), frame_for(SHAPE, 8))


def all_functions(operator, key):
    """Everything that a user does with a scan."""
    y = np.asarray(operator(np.full((*SHAPE, 1), 0.5, np.float32)))
    jax.grad(lambda x: operator(x).sum())(np.ones(SHAPE, np.float32))
    results = [operator.T(y), operator.pinv(y), fbp(operator, y), total_variation(y, operator, settings=TV()).image]
    results += [(0.5 * stack([operator, operator])).norm]
    return [*results, reconstruct(key, y, operator, PRIOR, levels=2).image]


@pytest.mark.parametrize("beam", [pytest.param("parallel", marks=pytest.mark.slow), "fan"])
def test_a_second_geometry_compiles_nothing(beam, caplog):
    key = jax.random.key(0)
    all_functions(scan(beam, 1), key)
    with jax.log_compiles(), caplog.at_level(logging.DEBUG, "jax"):
        results = all_functions(scan(beam, 3), key)
    compiled = [line for line in caplog.messages if line.startswith("Compiling")]
    assert not compiled and all(np.isfinite(result).all() for result in results)


@pytest.mark.slow
@pytest.mark.parametrize("beam", ["parallel", "fan"])
def test_forty_geometries_compile_a_few_programs_and_leave_no_memory(beam, caplog):
    rng = np.random.default_rng(0)
    image = np.ones(SHAPE, np.float32)
    with jax.log_compiles(), caplog.at_level(logging.DEBUG, "jax"):
        for i in range(40):
            about = {"image_shape": SHAPE, "angles": rng.uniform(0, 2 * np.pi, VIEWS), "detector_count": BINS}
            about |= {"detector_offset": rng.uniform(-3, 3)}
            if beam == "fan":
                distances = rng.uniform(40, 42, 2)
                operator = FanBeam(**about, source_distance=distances[0], detector_distance=distances[1])
            else:
                operator = ParallelBeam(**about, rotation_offset=rng.uniform(-3, 3))
            fbp(operator, operator(operator.T(operator(image))))
            del operator
            gc.collect()
            if i == 19:
                before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before  # KiB
    names = [line.split()[1] for line in caplog.messages if line.startswith("Compiling")]
    counts = {name: names.count(name) for name in set(names)}
    assert counts and max(counts.values()) <= 3 and grown < 20 * 1024, counts


def test_the_geometry_comes_back_exactly_and_goes_through_a_program():
    operator = scan("fan", 1)
    through = jax.jit(lambda operator: operator)(operator)
    assert operator.geometry == through.geometry == scan("fan", 1).geometry
    assert operator.geometry.source_distance == 40.1
    with pytest.raises(jax.errors.TracerArrayConversionError):
        jax.jit(lambda operator: operator.geometry.pixel_size)(operator)


def test_a_scan_without_tables_of_its_transpose_has_the_same_one():
    geometry = scan("parallel", 1).geometry
    y = np.random.default_rng(0).standard_normal((VIEWS, BINS)).astype(np.float32)
    found = jax.vjp(geometry.project, np.ones(SHAPE, np.float32))[1](y)[0]
    np.testing.assert_allclose(found, geometry.rays().backproject(y), atol=1e-4)


def test_the_pseudo_inverse_is_differentiable_in_the_measurement_only():
    operator, y = scan("parallel", 1), np.ones((VIEWS, BINS), np.float32)
    slope = jax.jit(jax.grad(lambda y: operator.pinv(y).sum()))(y)
    np.testing.assert_allclose(np.vdot(slope, y), operator.pinv(y).sum(), rtol=1e-3)
    with pytest.raises(ValueError, match="in the measurement only"):
        jax.grad(lambda s: stack([s * operator, operator]).pinv(np.ones((2 * VIEWS, BINS), np.float32)).sum())(2.0)
