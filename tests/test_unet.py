"""The network: shapes, types, dropout, positions, normalisation, and configs that cannot work."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from einops import EinopsError
from flax.traverse_util import flatten_dict
from tiny import random_params

from padis_jax.unet import GroupNorm, NetworkConfig, apply_network, init_network, parameter_count

DDPM = NetworkConfig(model_channels=8, channel_mult=(1, 2), num_blocks=1, dropout=0.5)
NCSN = dataclasses.replace(
    DDPM, embedding="fourier", encoder="residual", resample_filter=(1.0, 3.0, 3.0, 1.0), attention_levels=(1,)
)
SMALL = dataclasses.replace(DDPM, channel_mult=(1,))
apply = jax.jit(apply_network, static_argnums=0)


def _input(config, side, count=2):
    rng = np.random.default_rng(0)
    channels = config.image_channels + config.position_channels
    return jnp.asarray(rng.standard_normal((count, side, side, channels)), jnp.float32), jnp.asarray(
        (-0.7, 0.2)[:count]
    )


@pytest.fixture(scope="module")
def output():
    x, label = _input(SMALL, 4)
    return apply(SMALL, random_params(SMALL), x, label)


@pytest.mark.parametrize(
    "config, channels, dtype, shape",
    [
        (DDPM, 1, "float32", (4, 4)),
        (DDPM, 3, "bfloat16", (16, 16)),
        (NCSN, 3, "bfloat16", (8, 12)),
        (dataclasses.replace(DDPM, channel_mult=(2, 1, 3), num_blocks=2), 1, "float32", (8, 12)),
    ],
)
def test_the_output_is_an_image_in_float32(config, channels, dtype, shape):
    config = dataclasses.replace(config, image_channels=channels, dtype=dtype)
    params = jax.eval_shape(lambda: init_network(jax.random.key(0), config))
    x = jnp.zeros((3, *shape, channels + 2))
    out = jax.eval_shape(lambda p: apply_network(config, p, x, jnp.zeros(3)), params)
    chex.assert_shape(out, (3, *shape, channels))
    chex.assert_type([out, *jax.tree.leaves(params)], jnp.float32)


def test_bfloat16_is_close_to_float32(output):
    low = dataclasses.replace(SMALL, dtype="bfloat16")
    rough = apply(low, random_params(SMALL), *_input(SMALL, 4))
    error = float(jnp.linalg.norm((rough - output).ravel()) / jnp.linalg.norm(output.ravel()))
    assert 1e-5 < error < 0.05


def test_patches_of_a_batch_do_not_see_each_other(output):
    x, label = _input(SMALL, 4)
    swapped = apply(SMALL, random_params(SMALL), x[::-1], label[::-1])
    np.testing.assert_allclose(swapped, output[::-1], rtol=1e-4, atol=1e-5)


def test_dropout_only_with_a_key(output):
    params, (x, label) = random_params(SMALL), _input(SMALL, 4)
    trained = jax.jit(lambda key: apply_network(SMALL, params, x, label, dropout_key=key))
    first, again, other = (np.asarray(trained(jax.random.key(k))) for k in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert not np.allclose(first, other) and not np.allclose(first, output)
    np.testing.assert_array_equal(apply(SMALL, params, x, label), output)


@pytest.mark.slow
def test_every_parameter_and_input_counts():
    """No gradient vanishes: not of a block, not of the noise level, not of positions; only fixed frequencies' does."""
    params, (x, label) = random_params(NCSN), _input(NCSN, 4)
    loss = jax.grad(lambda *a: jnp.sum(jnp.square(apply_network(NCSN, *a))), argnums=(0, 1, 2))
    loss = jax.jit(loss)
    by_params, by_x, by_label = loss(params, x, label)
    silent = {name for name, g in flatten_dict(by_params, sep=".").items() if not np.abs(g).max() > 1e-6}
    assert silent == {"freqs"}
    assert np.all(np.abs(by_label) > 1e-6)
    assert np.all(np.abs(by_x).max((0, 1, 2)) > 1e-6)


def test_a_new_network_puts_out_almost_nothing():
    params = init_network(jax.random.key(0), SMALL)
    out = apply(SMALL, params, *_input(SMALL, 4))
    assert 0 < np.abs(out).max() < 1e-3


def test_attention_is_where_it_was_asked_for():
    def attended(config):
        params = flatten_dict(jax.eval_shape(lambda: init_network(jax.random.key(0), config)))
        return {name[0] for name in params if "attention" in name}

    assert attended(DDPM) == {"dec1_in0"}  # the bottleneck only, as in the paper's networks
    assert attended(NCSN) == {"dec1_in0", "enc1_block0", "dec1_block1"}


@pytest.mark.parametrize("channels, groups", [(4, 1), (8, 2), (36, 9), (128, 32), (192, 32)])
def test_group_normalisation(channels, groups):
    """Of min(32, C/4) groups, against the formula on the groups themselves."""
    rng = np.random.default_rng(0)
    x = rng.normal(1.0, 3.0, (2, 3, 5, channels))
    scale, bias = rng.standard_normal((2, channels))
    grouped = x.reshape(2, 15, groups, channels // groups)
    centred = grouped - grouped.mean((1, 3), keepdims=True)
    expected = (centred / np.sqrt(np.square(centred).mean((1, 3), keepdims=True) + 1e-6)).reshape(
        x.shape
    ) * scale + bias
    params = {"scale": jnp.asarray(scale, jnp.float32), "bias": jnp.asarray(bias, jnp.float32)}
    ours = GroupNorm().apply({"params": params}, jnp.asarray(x, jnp.float32))
    np.testing.assert_allclose(ours, expected, rtol=2e-3, atol=2e-4)


def test_parameters_are_counted():
    assert parameter_count({"a": {"kernel": jnp.zeros((3, 3, 2, 4)), "bias": jnp.zeros(4)}}) == 76


@pytest.mark.parametrize("patch, fits", [(4, True), (12, True), (2, False), (6, False), (0, False), (3, False)])
def test_patches_that_can_be_halved(patch, fits):
    config = dataclasses.replace(DDPM, channel_mult=(1, 1, 1))
    if fits:
        config.check_patch(patch)
    else:
        with pytest.raises(ValueError, match=f"patch of {patch} pixels does not suit 3 levels: use a multiple of 4"):
            config.check_patch(patch)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"image_channels": 0}, "network.image_channels is 0"),
        ({"model_channels": -4}, "network.model_channels is -4"),
        ({"num_blocks": 0}, "network.num_blocks is 0"),
        ({"position_channels": 1}, "position_channels is 1: use 2"),
        ({"channel_mult": ()}, "one positive multiple per level"),
        ({"channel_mult": (1, 0)}, "one positive multiple per level"),
        ({"model_channels": 6}, "multiple of 4"),
        ({"model_channels": 36, "channel_mult": (4,)}, "of 144 channels"),
        # Each level alone would do, but the decoder joins 108 channels with a skip of 36.
        ({"model_channels": 36, "channel_mult": (1, 3)}, "of 144 channels"),
        ({"attention_levels": (2,)}, "levels are 0 to 1"),
        ({"dropout": 1.0}, "dropout is 1.0"),
        ({"sigma_data": 0.0}, "sigma_data is 0.0"),
        ({"sigma_data": float("nan")}, "sigma_data is nan"),
        ({"resample_filter": (1.0, 2.0, 1.0)}, "even number"),
        ({"resample_filter": ()}, "even number"),
        ({"resample_filter": (1.0, -1.0)}, "even number"),
        ({"embedding": "fourrier"}, "embedding is 'fourrier': use one of"),
        ({"encoder": "skip"}, "encoder is 'skip'"),
        ({"dtype": "int3"}, "dtype is 'int3': use one of float32, bfloat16"),
    ],
)
def test_networks_that_cannot_work_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(DDPM, **change)


@pytest.mark.parametrize(
    "channels, mult, blocks", [(36, (1, 2), 1), (20, (1, 2, 3), 2), (44, (2, 1), 1), (4, (1, 5), 2)]
)
def test_a_config_that_is_accepted_can_be_built(channels, mult, blocks):
    try:
        config = NetworkConfig(model_channels=channels, channel_mult=mult, num_blocks=blocks)
    except ValueError:
        # Then building it must fail too, or the check is too strict.
        loose = NetworkConfig(model_channels=32, channel_mult=mult, num_blocks=blocks)
        object.__setattr__(loose, "model_channels", channels)
        with pytest.raises((TypeError, EinopsError), match="reshape|reduction"):
            jax.eval_shape(lambda: init_network(jax.random.key(0), loose))
    else:
        jax.eval_shape(lambda: init_network(jax.random.key(0), config))
