"""The training step: it learns, resumes bit for bit, refuses NaN, averages with the right half-life, compiles once."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import CONFIG, random_params

from padis_jax import checkpoint, loss
from padis_jax.batches import draw_batch, pad_images
from padis_jax.config import OptimiserConfig
from padis_jax.loss import DenoisingLoss
from padis_jax.patches import frame_for
from padis_jax.training import init_state, learning_rate, make_optimiser, state_shapes, train_step

KEY = jax.random.key(5)
STEP = functools.partial(train_step, DenoisingLoss(CONFIG.network, CONFIG.noise), CONFIG.optimiser, CONFIG.run.steps)


@pytest.fixture(scope="module")
def padded():
    """Smooth images, of which something can be learnt: a bright disc somewhere."""
    y, x = np.mgrid[-1:1:12j, -1:1:14j]
    discs = [np.hypot(x - cx, y - cy) < 0.6 for cx, cy in np.random.default_rng(0).uniform(-0.3, 0.3, (8, 2))]
    return pad_images(np.stack(discs)[..., None].astype(np.float32), frame_for((12, 14), 8))


@pytest.fixture(scope="module")
def initial():
    return jax.device_get(init_state(random_params(CONFIG.network), CONFIG.optimiser))


@pytest.fixture(scope="module")
def traces():
    """Counts how often the step is traced: once for every patch size, in the whole of this module."""
    counted, original = [], loss.denoising_loss

    def counting(key, network, noise, params, patches, positions):
        counted.append(patches.shape)
        return original(key, network, noise, params, patches, positions)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loss, "denoising_loss", counting)
        yield counted


def _start(initial):
    """A state of its own: the step donates what it is given."""
    return jax.tree.map(jnp.array, initial)


def _train(state, padded, first, last, after=lambda step, state: None):
    losses = []
    for step in range(first, last):
        batch = draw_batch(padded, CONFIG.patches, CONFIG.run.seed, step)
        state, metrics = STEP(KEY, state, *batch)
        losses.append(float(metrics.loss))
        after(step + 1, state)
    return state, losses


@pytest.fixture(scope="module")
def trained(initial, padded, traces, tmp_path_factory):
    """(state after 60 steps, losses, states kept on the way, the folder of the checkpoints 2 and 4)."""
    workdir, kept = tmp_path_factory.mktemp("run"), {}
    with checkpoint.open_checkpoints(workdir) as manager:

        def after(step, state):
            if step in (1, 3, 4):
                kept[step] = jax.tree.map(np.array, state)
            if step == 2:  # saved while training goes on, and gives the buffers away
                checkpoint.save(manager, state, {"config": {}})

        state, losses = _train(_start(initial), padded, 0, 60, after)
    return state, losses, kept, workdir


def test_training_learns(trained, padded, initial):
    """On the same batches with the same noise, the average of the parameters is better than where it began."""

    def mean_loss(params):
        state = _start(initial)._replace(params=jax.tree.map(jnp.array, params))
        losses = []
        for step in range(1000, 1020):
            batch = draw_batch(padded, CONFIG.patches, 1, step)
            at = jax.tree.map(jnp.copy, state)._replace(step=jnp.asarray(step, jnp.int32))
            losses.append(STEP(KEY, at, *batch)[1].loss)
        return np.mean(losses)

    assert mean_loss(trained[0].ema) < 0.9 * mean_loss(initial.params)
    assert int(trained[0].step) == 60


def test_a_run_begins_with_such_a_state(initial):
    shapes = state_shapes(CONFIG.network, CONFIG.optimiser)
    chex.assert_trees_all_equal_shapes_and_dtypes(shapes, initial)


def test_patches_are_counted(trained, padded):
    drawn = sum(len(draw_batch(padded, CONFIG.patches, CONFIG.run.seed, step).patches) for step in range(60))
    assert float(trained[0].seen) == drawn


def test_four_steps_are_two_a_checkpoint_and_two(trained, padded, initial):
    """Bit for bit: parameters, average, moments, counters; the checkpoint was written while training went on."""
    _, losses, kept, workdir = trained
    with checkpoint.open_checkpoints(workdir) as manager:
        state = checkpoint.restore(manager, state_shapes(CONFIG.network, CONFIG.optimiser))
    assert int(state.step) == 2
    state, resumed = _train(_start(jax.device_get(state)), padded, 2, 4)  # as fresh arrays: nothing compiles again
    chex.assert_trees_all_equal(state, kept[4])
    assert resumed == losses[2:4]


def test_one_compilation_per_patch_size(trained, traces):
    assert sorted(shape[1] for shape in traces) == [4, 8]


def test_the_average_has_its_half_life(trained):
    """In a step of b patches the old weight is 2^(-b / min(half_life, ramp * patches seen))."""
    before, after, settings = trained[2][3], trained[2][4], CONFIG.optimiser
    batch = float(after.seen - before.seen)
    decay = 2 ** (-batch / min(settings.ema_half_life, settings.ema_ramp * float(after.seen)))
    assert 0.05 < decay < 0.95
    expected = jax.tree.map(lambda old, new: decay * old + (1 - decay) * new, before.ema, after.params)
    chex.assert_trees_all_close(after.ema, expected, rtol=1e-5, atol=1e-6)


def test_the_first_step_of_warm_up_does_not_move(trained, initial):
    chex.assert_trees_all_equal(trained[2][1].params, initial.params)
    assert not np.array_equal(trained[2][4].params["enc0_conv"]["kernel"], initial.params["enc0_conv"]["kernel"])


@pytest.mark.parametrize("what", ["patches", "positions", "parameters"])
def test_a_step_that_is_not_finite_is_refused(trained, initial, what):
    """Parameters, average and moments stay as they were, and say so."""
    state = _start(trained[2][4])
    patches, positions = np.zeros((2, 8, 8, 1), np.float32), np.zeros((2, 8, 8, 2), np.float32)
    if what == "patches":
        patches[1, 2, 3] = np.nan
    elif what == "positions":
        positions[0, 0, 0] = np.inf
    else:
        state.params["enc0_conv"]["bias"] = jnp.full_like(state.params["enc0_conv"]["bias"], jnp.inf)
    before = jax.tree.map(np.array, state)
    after, metrics = STEP(KEY, state, patches, positions)
    assert bool(metrics.refused) and int(after.step) == int(before.step) + 1
    chex.assert_trees_all_equal(after._replace(step=before.step), before)


def test_randomness_is_a_function_of_seed_and_step(trained, padded):
    """The noise of step 4 is not the noise of step 5, though the batch is the same."""
    batch = draw_batch(padded, CONFIG.patches, 0, 0)

    def at(step, key=KEY):
        state = _start(trained[2][4])._replace(step=jnp.asarray(step, jnp.int32))
        return float(STEP(key, state, *batch)[1].loss)

    assert at(4) == at(4) != at(5)
    assert at(4) != at(4, jax.random.key(6))


def test_warm_up_and_cosine_decay():
    rate = learning_rate(OptimiserConfig(learning_rate=3e-3, final_fraction=0.1, warmup_steps=20), 120)
    np.testing.assert_allclose([rate(0), rate(10), rate(20)], (0, 1.5e-3, 3e-3), rtol=1e-6)
    np.testing.assert_allclose(rate(70), (3e-3 + 3e-4) / 2, rtol=1e-6)  # half-way down the cosine
    np.testing.assert_allclose([rate(120), rate(500)], 3e-4, rtol=1e-6)
    constant = learning_rate(OptimiserConfig(learning_rate=3e-3, final_fraction=1.0, warmup_steps=0), 10)
    np.testing.assert_allclose([constant(0), constant(10)], 3e-3, rtol=1e-6)
    assert np.isfinite(learning_rate(OptimiserConfig(warmup_steps=1000), 1)(0))  # shorter than its own warm-up


def test_gradients_are_clipped_by_their_global_norm():
    """Adam does not care about a constant factor, so a step with a small gradient comes first."""

    def second_update(clip, scale):
        optimiser = make_optimiser(OptimiserConfig(clip_norm=clip, warmup_steps=0, final_fraction=1.0), 10)
        params = {"a": jnp.ones(3), "b": jnp.ones(1)}
        small = jax.tree.map(lambda p: 0.1 * p, params)
        _, state = optimiser.update(small, optimiser.init(params), params)
        return optimiser.update(jax.tree.map(lambda p: scale * p, params), state, params)[0]

    np.testing.assert_allclose(second_update(1.0, 50.0)["a"], second_update(1.0, 0.5)["a"], rtol=1e-5)
    unclipped = second_update(0.0, 50.0)
    assert not np.allclose(unclipped["a"], second_update(0.0, 0.5)["a"], rtol=1e-2)
    assert not np.allclose(unclipped["a"], second_update(1.0, 50.0)["a"], rtol=1e-2)
