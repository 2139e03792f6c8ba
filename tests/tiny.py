"""A network, a training run and a weights file small enough to be made again in every test module."""

import contextlib
import io

import jax
import jax.numpy as jnp
import numpy as np

from padis_jax.batches import PatchConfig
from padis_jax.config import Config, DataConfig, OptimiserConfig, RunConfig
from padis_jax.images import PLAIN
from padis_jax.patches import frame_for
from padis_jax.solvers import sampling
from padis_jax.training import state_shapes
from padis_jax.unet import NetworkConfig, init_network
from padis_jax.weights import save_weights

NETWORK = NetworkConfig(model_channels=8, channel_mult=(1,), num_blocks=1, dropout=0.1, sigma_data=0.3)
CONFIG = Config(
    data=DataConfig(path="images.npy"),
    network=NETWORK,
    patches=PatchConfig(sizes=(4, 8), probabilities=(0.5, 0.5), batch=(4, 2)),
    optimiser=OptimiserConfig(learning_rate=1e-2, warmup_steps=2, ema_half_life=20, ema_ramp=0.5),
    run=RunConfig(steps=100, seed=3),
)


def random_like(shapes, scale=0.2, seed=0):
    """Arrays of the shapes and types of a pytree, without the compilation that an initialisation costs."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda a: jnp.asarray(scale * rng.standard_normal(a.shape), a.dtype), shapes)


def random_params(network=NETWORK, seed=0):
    """Parameters that are nowhere near zero, so that every part of the network has an effect."""
    return random_like(jax.eval_shape(lambda: init_network(jax.random.key(0), network)), seed=seed)


def random_state(config=CONFIG, seed=0, step=0):
    """A training state with arbitrary numbers in it."""
    state = random_like(state_shapes(config.network, config.optimiser), seed=seed)
    return state._replace(step=jnp.asarray(step, jnp.int32))


def write_weights(path, *, network=NETWORK, image_shape=(16, 16), patch=8, window=PLAIN, seed=0):
    """A weights file of a random network for images of `image_shape`."""
    provenance = {"data": "noise", "steps": 0}
    save_weights(path, random_params(network, seed), network, frame_for(image_shape, patch), window, provenance)
    return path


def compiled_loops():
    """How many programs of the solvers' loop there are."""
    return sum(loop.advance._cache_size() for loop in sampling._loops.values())


def refused(main, argv, capsys):
    """Runs a script's main, which must end with one line `error: ...` and exit code 2; returns that line."""
    try:
        main([str(a) for a in argv])
    except SystemExit as stop:
        assert stop.code == 2, stop.code
    else:
        raise AssertionError(f"{argv} was accepted")
    errors = capsys.readouterr().err
    assert errors.startswith("error: ") and errors.count("\n") == 1 and "Traceback" not in errors, errors
    return errors


def failing(main, argv, expected):
    """Runs a script's main, which must end with exit code 2 and a line with `expected`, whatever else it says."""
    errors = io.StringIO()
    with contextlib.redirect_stderr(errors):
        try:
            main([str(a) for a in argv])
        except SystemExit as stop:
            assert stop.code == 2, stop.code
        else:
            raise AssertionError(f"{argv} ended with exit code 0")
    last = errors.getvalue().splitlines()[-1]
    assert last.startswith("error: ") and expected in last, last
