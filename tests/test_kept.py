"""An operator that is built again is the one that was built; what is kept is bounded, and can be let go of."""

import gc
import time
import weakref

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import compiled_loops

from padis_jax.operators import (
    Blur,
    Downsample,
    FanBeam,
    Inpaint,
    ParallelBeam,
    forget,
    from_functions,
    kept,
    stack,
)
from padis_jax.patches import frame_for
from padis_jax.prior import Prior
from padis_jax.solvers.reconstruct import reconstruct

SIDE = 16
PRIOR = Prior(lambda key, plane, sigma: plane / (1 + sigma**2), frame_for((SIDE, SIDE), 8))


def parallel(offset=0.0):
    angles = np.arange(6) * np.pi / 6
    return ParallelBeam(image_shape=(SIDE, SIDE), angles=angles, detector_count=24, detector_offset=offset)


def fan():
    about = {"image_shape": (SIDE, SIDE), "angles": np.arange(6), "detector_count": 24}
    return FanBeam(**about, source_distance=40, detector_distance=20)


KERNEL = np.ones((3, 3)) / 9
BUILDS = {
    "parallel": parallel,
    "fan": fan,
    "reduction": lambda: Downsample(image_shape=(SIDE, SIDE), factor=4),
    "mask": lambda: Inpaint(mask=np.eye(512, 768)),
    "circular blur": lambda: Blur(image_shape=(SIDE, SIDE), kernel=KERNEL),
    "blur": lambda: Blur(image_shape=(SIDE, SIDE), kernel=KERNEL, boundary="reflect"),
}


@pytest.mark.parametrize("build", BUILDS.values(), ids=BUILDS)
def test_an_equal_operator_is_there_at_once(build):
    first = build()
    begin = time.perf_counter()
    assert build() is first and time.perf_counter() - begin < 0.01
    with jax.enable_x64(True):
        assert build() is not first
    with jax.default_device(jax.devices()[0]):
        assert build() is not first
    forget()
    second = build()
    assert second is not first
    np.testing.assert_array_equal(second.norm, first.norm)


@pytest.mark.parametrize(
    "build",
    [lambda: stack([parallel(), 0.5 * parallel()]), lambda: parallel() @ Blur(image_shape=(SIDE, SIDE), kernel=KERNEL)],
)
def test_the_norm_of_what_is_put_together_alike_is_there_at_once(build):
    forget()
    first, seconds = build(), []
    for _ in range(3):
        begin = time.perf_counter()
        second = build()
        seconds.append(time.perf_counter() - begin)
        assert second.norm is first.norm
    assert min(seconds) < 0.01
    forget()
    assert build().norm is not first.norm


def test_what_is_put_together_otherwise_has_another_norm():
    one, two = parallel(), parallel(0.4)
    norms = {float(stack(parts).norm) for parts in ([one, one], [one, 0.5 * one], [one, 0.25 * one], [one, two])}
    assert len(norms) == 4


def test_functions_are_looked_at_each_time():
    def scaled(x):
        return factor * x

    for factor in (2.0, -2.0):  # noqa: B007 (of the function)
        operator = from_functions(scaled, image_shape=(SIDE, SIDE))
        assert float(operator.T(jnp.ones((SIDE, SIDE)))[0, 0]) == factor


def test_arrays_that_were_given_away_are_built_again():
    mask = np.eye(SIDE)
    Inpaint(mask=mask).mask.delete()
    assert float(Inpaint(mask=mask)(jnp.ones((SIDE, SIDE))).sum()) == SIDE


def test_the_newest_is_kept_though_it_is_large(monkeypatch):
    forget()
    monkeypatch.setattr(kept, "BYTES", 0)
    first = parallel()
    assert parallel() is first
    monkeypatch.setattr(kept, "LARGEST", 0)
    second = parallel(0.1)
    assert parallel(0.1) is not second


def test_what_is_kept_is_bounded_and_let_go(monkeypatch):
    forget()
    built = [weakref.ref(parallel(0.01 * i).norm) for i in range(kept.COUNT + 3)]
    gc.collect()
    assert [ref() is not None for ref in built] == [False] * 3 + [True] * kept.COUNT
    monkeypatch.setattr(kept, "BYTES", 0)
    parallel(1.0)
    gc.collect()
    assert not any(ref() is not None for ref in built)


def test_an_operator_that_is_built_within_a_trace_is_not_kept():
    forget()
    total = jax.jit(lambda x: parallel(0.5)(x).sum())(jnp.ones((SIDE, SIDE)))
    np.testing.assert_allclose(parallel(0.5)(jnp.ones((SIDE, SIDE))).sum(), total, rtol=1e-5)


@pytest.mark.parametrize("told", [{}, {"noise_std": 0.1}])
def test_forget_lets_go_of_what_functions_hold(told):
    """After a reconstruction, whose compiled loop knows them."""

    class Held:
        pass

    def made():
        held = Held()
        operator = from_functions(lambda x: x[held.rows], image_shape=(SIDE, SIDE, 1))
        reconstruct(0, operator(jnp.ones((SIDE, SIDE, 1))), operator, PRIOR, levels=2, **told)
        return weakref.ref(held)

    Held.rows = slice(0, SIDE // 2)
    held = made()
    forget()
    jax.clear_caches()
    gc.collect()
    assert held() is None


def test_other_levels_seeds_and_masks_compile_no_loop():
    image = jnp.full((SIDE, SIDE, 1), 0.5)
    rng, sizes = np.random.default_rng(0), []
    for seed, levels in ((0, 3), (1, 5), (2, 9)):
        mask = Inpaint(mask=rng.random((SIDE, SIDE)) < 0.5)
        reconstruct(seed, mask(image), mask, PRIOR, levels=levels)
        sizes.append(compiled_loops())
    assert sizes == [sizes[0]] * 3
