"""The loop of all solvers: pairs of noise levels, chunks that change nothing, one compilation."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial
from tiny import compiled_loops

from padis_jax.solvers import sampling


def smoothing(kernel, key, x, noise):
    """A step with a convolution and noise."""
    z = jax.random.normal(key, x.shape)
    smooth = jax.lax.conv_general_dilated(x[None], kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
    x = jnp.tanh(smooth[0]) + noise.sigma_next * z
    return x, {"mean": x.mean(), "sigma": noise.sigma}


KERNEL = jax.random.normal(jax.random.key(1), (3, 3, 2, 2)) / 4
STATE = jax.random.normal(jax.random.key(2), (16, 17, 2))
NOISES = sampling.noises(np.geomspace(3.0, 0.1, 11))


def test_noises_pair_each_level_with_the_next():
    got = sampling.noises(np.asarray([4.0, 2.0, 1.0]), inner=2)
    np.testing.assert_array_equal(got.sigma, [4, 4, 2, 2, 1, 1])
    np.testing.assert_array_equal(got.sigma_next, [4, 2, 2, 1, 1, 0])
    np.testing.assert_array_equal(got.final, [False] * 4 + [True] * 2)
    assert got.sigma.dtype == got.sigma_next.dtype == jnp.float32


@pytest.mark.parametrize(
    ("ladder", "inner", "message"),
    [([], 1, "at least one"), ([1.0, 2.0], 1, "descend"), ([1.0, 0.0], 1, "positive"), ([1.0], 0, "inner is 0")],
)
def test_noises_refuse_a_bad_ladder(ladder, inner, message):
    with pytest.raises(ValueError, match=message):
        sampling.noises(np.asarray(ladder, np.float32), inner)


def test_run_equals_a_plain_loop():
    step = Partial(smoothing, KERNEL)
    state, infos = sampling.run(jax.random.key(0), step, STATE, NOISES)
    expected, means = STATE, []
    for i, key in enumerate(jax.random.split(jax.random.key(0), 11)):
        expected, info = step(key, expected, jax.tree.map(lambda a, i=i: a[i], NOISES))
        means.append(info["mean"])
    np.testing.assert_allclose(state, expected, atol=1e-5)
    np.testing.assert_allclose(infos["mean"], jnp.stack(means), atol=1e-5)
    np.testing.assert_array_equal(infos["sigma"], NOISES.sigma)


def test_chunks_change_no_bit_and_compile_nothing():
    step = Partial(chex.assert_max_traces(smoothing, n=1), KERNEL)
    whole = sampling.run(jax.random.key(0), step, STATE, NOISES)
    for chunk in (1, 3, 4, 11, 50):
        chex.assert_trees_all_equal(sampling.run(jax.random.key(0), step, STATE, NOISES, chunk=chunk), whole)


def test_a_state_that_is_owned_is_overwritten_and_no_other():
    step, plans = Partial(smoothing, KERNEL), []
    whole, _ = sampling.run(jax.random.key(0), step, STATE, NOISES, on_memory=plans.append)
    own = jnp.array(STATE)
    found, _ = sampling.run(jax.random.key(0), step, own, NOISES, owned=True, chunk=4)
    np.testing.assert_array_equal(found, whole)
    assert own.is_deleted() and not STATE.is_deleted()
    assert plans[0].given >= STATE.nbytes  # what is returned lies where the state was
    assert plans[0].total == plans[0].temporary + plans[0].arguments + plans[0].results - plans[0].given


def test_other_arrays_in_the_step_compile_nothing():
    once = chex.assert_max_traces(smoothing, n=1)
    first, _ = sampling.run(jax.random.key(0), Partial(once, KERNEL), STATE, NOISES)
    second, _ = sampling.run(jax.random.key(5), Partial(once, KERNEL / 2), STATE + 1, NOISES)
    assert not np.allclose(first, second)
    with pytest.raises(AssertionError, match="traced > 1"):  # another shape does
        sampling.run(jax.random.key(0), Partial(once, KERNEL), STATE[:8], NOISES)


def test_another_number_of_levels_compiles_nothing(monkeypatch):
    once, before = Partial(chex.assert_max_traces(smoothing, n=1), KERNEL), compiled_loops()
    for levels in (11, 4, 300):
        noises = sampling.noises(np.geomspace(3.0, 0.1, levels))
        state, infos = sampling.run(jax.random.key(0), once, STATE, noises)
        np.testing.assert_array_equal(infos["sigma"], noises.sigma)
        scanned, _ = jax.jit(sampling.run)(jax.random.key(0), Partial(smoothing, KERNEL), STATE, noises)
        np.testing.assert_allclose(state, scanned, atol=1e-5)
        assert compiled_loops() == before + 1
    monkeypatch.setattr(sampling, "CAPACITY", 8)
    few = sampling.run(jax.random.key(0), once, STATE, NOISES)  # 11 steps, room for 16
    many = jax.jit(sampling.run)(jax.random.key(0), Partial(smoothing, KERNEL), STATE, NOISES)
    chex.assert_trees_all_close(few, many, atol=1e-5)


def test_progress_reports_every_chunk_and_may_stop_the_run():
    calls = []
    step = Partial(smoothing, KERNEL)
    _, infos = sampling.run(jax.random.key(0), step, STATE, NOISES, chunk=4, progress=lambda *call: calls.append(call))
    assert [call[:2] for call in calls] == [(4, 11), (8, 11), (11, 11)]
    for done, _, info in calls:
        assert float(info["mean"]) == float(infos["mean"][done - 1])

    def stop(done, steps, info):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sampling.run(jax.random.key(0), step, STATE, NOISES, progress=stop)


def test_run_works_under_vmap_and_jit():
    step = Partial(smoothing, KERNEL)
    keys = jax.random.split(jax.random.key(3), 4)
    many, _ = jax.jit(jax.vmap(lambda key: sampling.run(key, step, STATE, NOISES)))(keys)
    each = [sampling.run(key, step, STATE, NOISES)[0] for key in keys]
    chex.assert_trees_all_close(list(many), each, atol=1e-5)


def test_the_whole_run_can_be_differentiated():
    step = Partial(smoothing, KERNEL)

    def end(scale):
        return sampling.run(jax.random.key(0), step, scale * STATE, NOISES)[0].sum()

    slope, width = jax.grad(end)(1.0), 1e-2
    np.testing.assert_allclose(slope, (end(1 + width) - end(1 - width)) / (2 * width), rtol=2e-2)


def test_progress_is_refused_within_a_trace():
    with pytest.raises(ValueError, match="leave them out"):
        jax.jit(lambda x: sampling.run(jax.random.key(0), Partial(smoothing, KERNEL), x, NOISES, progress=print))(STATE)


def test_chunk_must_be_positive():
    with pytest.raises(ValueError, match="chunk is 0"):
        sampling.run(jax.random.key(0), Partial(smoothing, KERNEL), STATE, NOISES, chunk=0)
