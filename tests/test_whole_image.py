"""The whole-image model: trained by train.py without padding or positions, and a prior like any other."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import NETWORK, random_params, refused

from padis_jax import load_prior, patch_prior, reconstruct
from padis_jax.cli.train import main
from padis_jax.denoiser import denoise_patches
from padis_jax.operators import from_functions
from padis_jax.patches import Frame, frame_for
from padis_jax.weights import load_weights

CONFIG = """
from padis_jax.batches import PatchConfig
from padis_jax.config import Config, DataConfig, OptimiserConfig, RunConfig
from padis_jax.unet import NetworkConfig

config = Config(
    data=DataConfig(path={path!r}, validation=(3,)),
    network=NetworkConfig(model_channels=8, channel_mult=(1, 1), num_blocks=1, position_channels=0),
    patches=PatchConfig(sizes=(0,), probabilities=(1.0,), batch=(2,)),
    optimiser=OptimiserConfig(learning_rate=1e-3, warmup_steps=1),
    run=RunConfig(steps=2, log_every=2, checkpoint_every=2, validate_every=2),
)
"""


def write(folder, shape):
    np.save(folder / "images.npy", np.random.default_rng(0).random((5, *shape), np.float32))
    (folder / "whole.py").write_text(CONFIG.format(path=str(folder / "images.npy")))
    return ["--config", str(folder / "whole.py"), "--workdir", str(folder / "run")]


def test_from_training_to_a_reconstruction(tmp_path):
    main(write(tmp_path, (8, 12)))
    path = tmp_path / "run" / "weights.safetensors"
    weights = load_weights(path)
    assert weights.frame == Frame((8, 12), 0, (1, 1)) and weights.network.position_channels == 0
    operator = from_functions(lambda x: x[::2], image_shape=(8, 12, 1))
    result = reconstruct(jax.random.key(0), np.full((4, 12, 1), 0.5), operator, load_prior(path), levels=2)
    assert result.image.shape == (8, 12, 1) and bool(jnp.all(jnp.isfinite(result.image)))


def test_the_prior_is_one_pass_of_the_network():
    frame, params = frame_for((6, 8), 0), random_params(NETWORK)
    x = jax.random.normal(jax.random.key(1), (6, 8, 1))
    y, z = (np.linspace(-1, 1, n) for n in (6, 8))
    positions = jnp.asarray(np.stack(np.broadcast_arrays(z[None], y[:, None]), -1), jnp.float32)
    expected = denoise_patches(NETWORK, params, x[None], positions[None], jnp.full(1, 0.4))[0]
    got = patch_prior(NETWORK, params, frame).denoise(jax.random.key(0), x, jnp.float32(0.4))
    np.testing.assert_allclose(got, expected, atol=1e-5)
    with pytest.raises(ValueError, match="1 to 1 random"):
        patch_prior(NETWORK, params, frame, tilings=2)


def test_images_that_the_network_cannot_halve_are_refused(tmp_path, capsys):
    message = refused(main, write(tmp_path, (8, 13)), capsys)
    assert "images of (8, 13) pixels: a patch of 13 pixels does not suit 2 levels: use a multiple of 2" in message
