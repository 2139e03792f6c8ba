"""The compiler's analysis of memory, and the chunk that is chosen by its estimate."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import NETWORK, random_params

from padis_jax.devices import chunk
from padis_jax.devices.chunk import choose_patch_batch, network_call
from padis_jax.devices.memory import Growth, analysed, free_memory
from padis_jax.errors import UserError
from padis_jax.operators.linear import from_functions
from padis_jax.patches import frame_for
from padis_jax.prior import patch_prior
from padis_jax.runs.config import Experiment
from padis_jax.runs.prior import patch_batch
from padis_jax.solvers.reconstruct import reconstruct
from padis_jax.unet import NetworkConfig

pytestmark = pytest.mark.usefixtures("fully_optimised")
SIDE = (8, 8)


@pytest.fixture(scope="module")
def params():
    return random_params(NETWORK)


def test_the_analysis_counts_what_goes_in_and_out():
    compiled = jax.jit(lambda x: x + 1).lower(jax.ShapeDtypeStruct((1000,), jnp.float32)).compile()
    assert (analysed(compiled).arguments, analysed(compiled).results) == (4000, 4000)
    assert analysed(compiled).total >= 8000


def test_some_memory_is_free():
    assert 2**20 < free_memory() < 2**50


@pytest.mark.slow
@pytest.mark.parametrize("gradient", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_the_chosen_chunk_takes_what_was_estimated(params, gradient):
    """Within a quarter, and one and a half times as many would not fit."""

    def compiled(count):
        f, shapes = network_call(NETWORK, params, SIDE, count, gradient=gradient)
        return analysed(jax.jit(f).lower(*shapes).compile()).total

    limit = compiled(16)
    size, estimated = choose_patch_batch(NETWORK, params, SIDE, 1000, gradient=gradient, limit=limit)
    found = compiled(size)
    assert abs(estimated / found - 1) < 0.25 and estimated <= limit and found < 1.25 * limit
    assert compiled(size * 3 // 2) > limit


def test_never_more_than_there_are_and_chunks_of_equal_size(params, monkeypatch):
    monkeypatch.setattr(chunk, "network_memory", lambda *a, **k: 100 + 10 * a[3])
    assert choose_patch_batch(NETWORK, params, SIDE, 25, gradient=False, limit=10**6) == (25, 350)
    assert choose_patch_batch(NETWORK, params, SIDE, 25, gradient=False, limit=300) == (13, 230)
    assert choose_patch_batch(NETWORK, params, SIDE, 25, gradient=False, limit=300, images=2) == (9, 280)
    assert choose_patch_batch(NETWORK, params, SIDE, 1, gradient=False, limit=110) == (1, 110)
    with pytest.raises(UserError, match="one patch of 8 x 8 pixels needs"):
        choose_patch_batch(NETWORK, params, SIDE, 25, gradient=False, limit=105)


def test_between_one_patch_and_all_the_estimate_is_never_too_low(params, monkeypatch):
    """Few patches need what does not grow with them, many what does: 100 + b, or 10 b."""
    monkeypatch.setattr(chunk, "network_memory", lambda *a, **k: max(100 + a[3], 10 * a[3]))
    for limit in range(110, 1000, 40):
        size, estimated = choose_patch_batch(NETWORK, params, SIDE, 100, gradient=False, limit=limit)
        assert max(100 + size, 10 * size) <= estimated <= limit


class _Weights:
    network = NETWORK
    params: object = None


def test_auto_says_what_it_takes(monkeypatch, capsys):
    monkeypatch.setattr(chunk, "network_memory", lambda *a, **k: (100 + 10 * a[3]) * 2**20)
    monkeypatch.setattr(chunk, "free_memory", lambda: 2**30)
    frame = frame_for((300, 300), 8)
    size = patch_batch(Experiment(patch_batch="auto"), _Weights, frame, 4)
    assert 1 < size < frame.patch_count / 4
    assert f"patch batch {size} of {-(-frame.patch_count // 4)} patches on each device" in capsys.readouterr().err
    assert patch_batch(Experiment(patch_batch=5), _Weights, frame, 4) == 5
    assert patch_batch(Experiment(), _Weights, frame, 4) is None


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the peak of a process can be reset on Linux only")
@pytest.mark.parametrize("patch_batch", [None, 16])
def test_a_run_takes_what_was_estimated_for_its_loop(patch_batch):
    """DPS with a network that fills some hundred MiB; the growth of this process, from before the loop to its end."""
    network = NetworkConfig(model_channels=8, channel_mult=(1, 2), num_blocks=1, dropout=0.0)
    frame = frame_for((320, 320), 64)
    prior = patch_prior(network, random_params(network), frame, patch_batch=patch_batch)
    operator = from_functions(lambda x: x, lambda y: y, image_shape=(320, 320, 1))
    found = []
    result = reconstruct(
        jax.random.key(0),
        np.zeros((320, 320, 1), np.float32),
        operator,
        prior,
        solver="dps",
        levels=2,
        on_memory=lambda memory: found.extend((memory, Growth())),
    )
    jax.block_until_ready(result.image)
    on_memory, measured = found[0].added, found[1]()
    assert on_memory > 2e8 and abs(on_memory / measured - 1) < 0.25, (on_memory / 2**20, measured / 2**20)
