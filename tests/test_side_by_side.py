"""Chains side by side, of `reconstruct_batch` and `draw_samples`: one program for every number of levels."""

import logging
import re

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial
from linear_problem import make

from padis_jax.prior import Prior
from padis_jax.solvers.batch import reconstruct_batch
from padis_jax.solvers.dds import DDS
from padis_jax.solvers.plug_and_play import PlugAndPlay
from padis_jax.solvers.reconstruct import reconstruct
from padis_jax.solvers.samples import draw_samples

_, PROBLEM, PRIOR = make()
Y, A, FRAME = np.asarray(PROBLEM.measurement), PROBLEM.operator, PRIOR.frame
SHAPE = (*FRAME.image_shape, 1)
RANGE = {"sigma_max": 1.0, "sigma_min": 0.1}
YS = np.stack([Y, Y + 1, Y - 0.5])
STARTS = np.full((3, *SHAPE), 0.25, np.float32)
SMALL = {"_threefry_split", "_pad"}  # keys of the steps and room for more
NOISE = np.random.default_rng(0).uniform(0.05, 0.5, YS.shape).astype(np.float32)


def keys():
    return jax.random.split(jax.random.key(4), 3)  # new ones each time: these tests draw the same again on purpose


def counted_prior():
    @chex.assert_max_traces(n=1)
    def denoise(scale, key, plane, sigma):
        return scale * plane / (1 + sigma**2)

    return Prior(Partial(denoise, jnp.float32(1)), FRAME)


def compiled(caplog, call):
    """(what `call` returns, the names of the programs that it compiles but for those of single array operations)."""
    caplog.clear()
    with jax.log_compiles(), caplog.at_level(logging.DEBUG, "jax"):
        found = jax.block_until_ready(call())
    assert [line for line in caplog.messages if line.startswith("Finished tracing")]  # such lines do come
    names = {match[1] for line in caplog.messages if (match := re.match(r"Compiling jit\((\S+)\)", line))}
    return found, names - set(dir(jnp)) - set(dir(jax.lax))


@pytest.mark.parametrize(
    ("settings", "more"),
    [
        ([DDS(cg_steps=3), DDS(cg_steps=3, consistency=0.3), DDS(cg_steps=3)], {"average": 2, "levels": 3, "inner": 2}),
        ([DDS(cg_steps=3)] * 3, {"noise_std": NOISE, "levels": 4}),
        ([DDS(cg_steps=3)] * 3, {"ladder": [0.9, 0.3], "start_noise": False}),
        ([PlugAndPlay(sigma=s, weight=0.1) for s in (0.0, 0.2, 0.4)], {"levels": 4, "noise_std": NOISE[:, 0]}),
    ],
)
def test_a_batch_is_its_images_one_by_one(settings, more):
    more = (RANGE if "ladder" not in more else {}) | more
    noise = more.pop("noise_std", [None] * 3)
    told = None if noise[0] is None else jnp.asarray(noise)
    batch = reconstruct_batch(keys(), YS, A, PRIOR, settings=settings, starts=STARTS, noise_std=told, **more)
    for i, key in enumerate(keys()):
        alone = reconstruct(key, YS[i], A, PRIOR, solver=settings[i], start=STARTS[i], noise_std=noise[i], **more)
        chex.assert_trees_all_close((batch.images[i], batch.residual[i]), (alone.image, alone.residual), atol=1e-4)


def test_another_number_of_levels_compiles_no_program_of_a_batch(caplog):
    prior, given = counted_prior(), {"settings": [DDS(cg_steps=2)] * 3, "starts": STARTS, **RANGE}
    for seed, levels, average in ((0, 3, 1), (1, 5, 2), (2, 9, 1)):
        of_seed = jax.random.split(jax.random.key(seed), 3)
        call = lambda: reconstruct_batch(of_seed, YS, A, prior, levels=levels, average=average, **given)  # noqa: E731, B023
        batch, names = compiled(caplog, call)
        assert seed == 0 or names <= SMALL
        assert batch.residual.shape == (3, levels)
        assert np.all(batch.residual > 0)


def test_another_number_of_levels_and_a_later_chain_compile_no_program_of_samples(caplog):
    prior = counted_prior()
    for seed, levels, first in ((0, 3, 0), (1, 5, 0), (2, 9, 4)):
        options = {"levels": levels, "first_chain": first, "solver": DDS(cg_steps=2), **RANGE}
        drawn, names = compiled(caplog, lambda: draw_samples(seed, Y, A, prior, 2, **options))  # noqa: B023
        assert seed == 0 or names <= SMALL
        assert drawn.residual.shape == (2, levels)
        assert drawn.evaluations == 2 * levels


def test_samples_can_be_differentiated_in_reverse():
    options = {"levels": 3, "solver": DDS(cg_steps=2), **RANGE}

    def total(y):
        return jnp.sum(draw_samples(jax.random.key(0), y, A, PRIOR, 2, **options).mean)

    direction = np.linspace(-1, 1, Y.size, dtype=np.float32).reshape(Y.shape)
    slope = float(jnp.vdot(jax.grad(total)(Y), direction))
    step = 0.05
    difference = float(total(Y + step * direction) - total(Y - step * direction)) / (2 * step)
    assert slope == pytest.approx(difference, rel=2e-3)


def test_options_that_nobody_knows_are_refused():
    with pytest.raises(TypeError, match="steps"):
        draw_samples(0, Y, A, PRIOR, 2, steps=3)
    with pytest.raises(ValueError, match="runs of .*PnP"):
        settings = [PlugAndPlay()] * 3
        reconstruct_batch(keys(), YS, A, PRIOR, settings=settings, starts=STARTS, average=2, **RANGE)
