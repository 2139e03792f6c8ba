"""Tilings of other sizes on one padded plane, and the size by level."""

import argparse

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import random_params

from padis_jax.patches import frame_for
from padis_jax.unet import NetworkConfig
from padis_jax.weights import Weights
from padis_jax.window import Window
from studies import patch_size

NETWORK = NetworkConfig(model_channels=8, channel_mult=(1, 1), num_blocks=1)
FRAME = frame_for((24, 24), 8)  # margin 8: planes of 40 x 40
WEIGHTS = Weights(random_params(NETWORK), NETWORK, FRAME, Window("1", 0.0, 1.0), {}, "")


@pytest.mark.parametrize("size", [4, 8, 16])
def test_every_tiling_covers_the_image(size):
    """A denoiser that gives ones: the image is covered wherever the corner falls, the plane is not."""
    for seed in range(6):
        plane = jnp.ones((40, 40, 1))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(patch_size, "denoise_patches", lambda config, params, patches, where, sigma: patches)
            found = patch_size.tiled(NETWORK, FRAME, size, {}, jax.random.key(seed), plane, jnp.float32(0.1))
        np.testing.assert_array_equal(FRAME.crop(found), 1)


def test_the_corner_of_every_size_is_drawn():
    """On the plane of the head CT, too, whose sides 16 divides: each size has the corners that move its seams."""
    for side, image, margin in ((40, 24, 8), (304, 256, 24)):
        for size in (4, 8, 16) if side == 40 else patch_size.SIZES:
            covered, low, high = patch_size._places(side, image, margin, size)
            assert 0 < high - low < size and covered % size == 0 and covered <= side - high
            assert low <= high <= margin and low + covered >= margin + image
    assert patch_size._places(304, 256, 24, 16) == (272, 8, 23)  # all 16 of them
    assert patch_size._places(304, 256, 24, 32)[1:] == (0, 16) and patch_size._places(304, 256, 24, 56)[1:] == (0, 24)
    seen = set()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(patch_size, "denoise_patches", lambda config, params, patches, where, sigma: patches)
        for seed in range(12):
            found = patch_size.tiled(NETWORK, FRAME, 8, {}, jax.random.key(seed), jnp.ones((40, 40, 1)), jnp.float32(1))
            seen.add(tuple(np.argwhere(np.asarray(found[..., 0]))[0].tolist()))
    assert len(seen) > 4


def test_patches_see_the_positions_of_the_plane():
    seen = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(patch_size, "denoise_patches", lambda c, p, patches, where, s: (seen.append(where), patches)[1])
        for size in (4, 16):
            patch_size.tiled(NETWORK, FRAME, size, {}, jax.random.key(0), jnp.ones((40, 40, 1)), jnp.float32(0.1))
    steps = [float(where[0, 0, 1, 0] - where[0, 0, 0, 0]) for where in seen]
    assert steps == pytest.approx([2 / 39, 2 / 39])


def test_the_size_follows_the_level():
    """Below the bound the image is that of the first size, from it on that of the second."""
    key, plane = jax.random.key(1), jax.random.normal(jax.random.key(2), (40, 40, 1))
    small, large = (patch_size.prior_of(WEIGHTS, (size,)) for size in (8, 16))
    both = patch_size.prior_of(WEIGHTS, (8, 16), (0.1,))
    for sigma, own in ((0.05, small), (0.1, large), (0.5, large)):
        expected = jax.jit(own.denoise)(jax.random.clone(key), plane, jnp.float32(sigma))
        np.testing.assert_allclose(
            jax.jit(both.denoise)(jax.random.clone(key), plane, jnp.float32(sigma)), expected, atol=1e-5
        )


def test_the_rule_is_read_off_the_errors():
    found = {
        f"{size}/{sigma:g}": [abs(size - (16 if sigma < 0.03 else 56)), 100.0]
        for size in patch_size.SIZES
        for sigma in patch_size.SIGMAS
    }  # noqa: E501
    sizes, bounds = patch_size.rule(found)
    assert sizes == (16, 56) and bounds == pytest.approx((np.sqrt(0.02 * 0.05),))


def test_the_tables_and_the_picture_are_of_each_slice(tmp_path, monkeypatch):
    values = {"16": [3.0, 1.5], "32": [2.0, 1.0], "56": [2.0, 1.0]}
    found = {f"{size}/{sigma:g}": values[size] for size in values for sigma in patch_size.SIGMAS}
    asked = []
    monkeypatch.setattr(patch_size, "measured", lambda weights, numbers: (asked.append(tuple(numbers)), found)[1])
    monkeypatch.setattr(patch_size, "load_weights", lambda path: None)
    monkeypatch.setattr(patch_size, "about_of", lambda args: {})
    args = argparse.Namespace(out=tmp_path, weights="w", slices=[20, 41])
    text = patch_size.errors(args)
    assert "| 0.01 | 2.250e+00 | 1.500e+00 | 1.500e+00 | 32 |" in text
    assert "| 0.01 | +50.00 (+50.00 to +50.00) | +0.00 (+0.00 to +0.00) |" in text
    patch_size.figure(args)
    assert (tmp_path / "patch_size.png").stat().st_size > 5000
    assert asked == [tuple(patch_size.HEAD_CT_VALIDATION), (20, 41)]  # the picture takes what is kept
