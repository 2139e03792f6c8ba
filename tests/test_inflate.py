"""A network of slabs that starts from a network of images."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from padis_jax.batches import PatchConfig
from padis_jax.config import Config, RunConfig
from padis_jax.errors import UserError
from padis_jax.images import Window
from padis_jax.inflate import inflatable, inflate
from padis_jax.patches import frame_for
from padis_jax.runs.training_data import first_state
from padis_jax.unet import NetworkConfig, apply_network, init_network
from padis_jax.weights import save_weights

IMAGE = NetworkConfig(model_channels=16, channel_mult=(1, 2), num_blocks=1, sigma_data=0.3)
SLAB = dataclasses.replace(IMAGE, image_channels=3, position_channels=3, dropout=0.2)


def drawn(config):
    """Parameters of a network none of whose layers is near zero, as the last one is at the start of a training."""
    params = init_network(jax.random.key(0), config)
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(1), len(leaves))
    return tree.unflatten([leaf + 0.1 * jax.random.normal(k, leaf.shape) for leaf, k in zip(leaves, keys, strict=True)])


@pytest.mark.parametrize("more", [{}, {"encoder": "residual", "embedding": "fourier", "resample_filter": (1, 3, 3, 1)}])
def test_equal_slices_are_each_treated_as_one_image_wherever_they_lie_along_z(more):
    image, slab = (dataclasses.replace(c, **more) for c in (IMAGE, SLAB))
    params = drawn(image)
    x, xy, z = (jax.random.normal(jax.random.key(i), (2, 8, 8, n)) for i, n in enumerate((1, 2, 1)))
    label = jnp.asarray([-0.5, 0.2])
    one = apply_network(image, params, jnp.concatenate([x, xy], -1), label)
    wide = inflate(params, image, slab)
    jax.tree.map(lambda a, b: np.testing.assert_equal(a.shape, b.shape), wide, init_network(jax.random.key(2), slab))
    three = apply_network(slab, wide, jnp.concatenate([x, x, x, xy, z], -1), label)
    np.testing.assert_allclose(three, np.repeat(one, 3, axis=-1), rtol=1e-4, atol=1e-5)
    assert float(jnp.std(one)) > 0.01


def test_networks_that_differ_in_more_than_channels_are_not_made_from_each_other():
    assert inflatable(IMAGE, SLAB) and not inflatable(SLAB, SLAB) and not inflatable(IMAGE, IMAGE)
    wider = dataclasses.replace(SLAB, model_channels=32)
    assert not inflatable(IMAGE, wider)
    with pytest.raises(ValueError, match="cannot be made"):
        inflate({}, IMAGE, wider)


@pytest.fixture
def start(tmp_path):
    """A weights file of images, and the settings of a training on slabs that starts from it."""
    frame, path = frame_for((16, 16), 8), tmp_path / "images.safetensors"
    save_weights(path, drawn(IMAGE), IMAGE, frame, Window("1", 0.0, 1.0), {})
    patches = PatchConfig(sizes=(8,), probabilities=(1.0,), batch=(2,), depth=3)
    return Config(network=SLAB, patches=patches, run=RunConfig(start_weights=str(path))), frame


def test_a_training_on_slabs_starts_from_weights_of_images(start):
    config, frame = start
    state = first_state(config, frame)
    jax.tree.map(np.testing.assert_array_equal, state.params, inflate(drawn(IMAGE), IMAGE, SLAB))


def test_a_training_on_slabs_refuses_weights_of_another_network(start):
    config, frame = start
    other = dataclasses.replace(config, network=dataclasses.replace(SLAB, model_channels=32))
    with pytest.raises(UserError, match=r"images\.safetensors: its network is .* but this run has"):
        first_state(other, frame)
