"""Whole-image denoisers made of patch denoisers: what a tiling sees, what chunks cost, what stays out."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from padis_jax.denoiser import denoise_patches
from padis_jax.patches import Frame, frame_for, random_offset, tile, untile
from padis_jax.positions import plane_positions
from padis_jax.prior import Prior, patch_prior, tiled_prior
from padis_jax.unet import NetworkConfig, init_network

FRAME = frame_for((13, 18), 4)  # margins differ between the axes and from the patch
CONFIG = NetworkConfig(model_channels=8, channel_mult=(1,), num_blocks=1, image_channels=2)
SIGMA = jnp.float32(0.7)


def random_params(config):
    """Parameters with nothing near zero, so that every input shows in the output."""
    params = init_network(jax.random.key(0), config)
    rng = np.random.default_rng(1)
    return jax.tree.map(lambda leaf: jnp.asarray(0.3 * rng.standard_normal(leaf.shape), jnp.float32), params)


def convolve(kernel, patches, positions, sigma):
    """A small patch denoiser: nonlinear, with memory-hungry activations and a say of the position."""
    x = jnp.concatenate([patches, positions], axis=-1) / sigma[:, None, None, None]
    numbers = ("NHWC", "HWIO", "NHWC")
    for _ in range(6):
        x = jnp.tanh(jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=numbers))
    return x[..., : patches.shape[-1]]


KERNEL = jax.random.normal(jax.random.key(5), (3, 3, 4, 4)) / 3
CONVOLVE = Partial(convolve, KERNEL)


@jax.jit
def apply(prior, key, plane):
    return prior.denoise(key, plane, SIGMA)


def random_plane(frame=FRAME, channels=2):
    return jax.random.normal(jax.random.key(7), (*frame.padded_shape, channels))


def test_a_prior_is_the_network_on_the_tiles_of_one_random_offset():
    key, plane = jax.random.key(3), random_plane()
    offset = random_offset(jax.random.clone(key), FRAME)
    patches, positions = (tile(FRAME, jnp.asarray(a), offset) for a in (plane, plane_positions(FRAME.padded_shape)))
    params = random_params(CONFIG)
    denoise = jax.jit(denoise_patches, static_argnums=0)
    clean = denoise(CONFIG, params, patches, positions, jnp.full(FRAME.patch_count, SIGMA))
    np.testing.assert_allclose(
        apply(patch_prior(CONFIG, params, FRAME), key, plane), untile(FRAME, clean, offset), atol=1e-5
    )


def test_positions_reach_the_patch_denoiser_with_the_offset_of_their_patch():
    """D = x + position: every covered pixel must get its own position, whichever the offset."""
    prior = tiled_prior(lambda x, p, sigma: x + p, FRAME, channels=2)
    plane, positions = random_plane(), plane_positions(FRAME.padded_shape)
    corners = set()
    for seed in range(8):
        out = np.asarray(apply(prior, jax.random.key(seed), plane))
        covered = np.any(out != 0, axis=-1)
        np.testing.assert_allclose(out[covered], (plane + positions)[covered], atol=1e-6)
        corners.add(tuple(np.argwhere(covered)[0]))
    assert len(corners) > 3


def test_the_score_changes_with_position():
    """The same content one patch further down is denoised differently, unless the network is blind to positions."""
    frame = frame_for((16, 16), 4)
    shift = 4  # whole patches, so that the tiles hold the same content
    plane = jnp.zeros((*frame.padded_shape, 2)).at[8:14, 8:14].set(random_plane(frame)[8:14, 8:14])
    moved = jnp.roll(plane, shift, axis=0)
    middle = slice(8, 8 + 6 + shift)

    def difference(kernel):
        prior = tiled_prior(Partial(convolve, kernel), frame, tiling="fixed", channels=2)
        scores = [(apply(prior, jax.random.key(0), x) - x) / SIGMA**2 for x in (plane, moved)]
        back = jnp.roll(scores[1], -shift, axis=0)
        return float(jnp.linalg.norm((back - scores[0])[middle]) / jnp.linalg.norm(scores[0][middle]))

    assert difference(KERNEL.at[:, :, 2:].set(0)) < 1e-5
    assert difference(KERNEL) > 1e-2


@pytest.mark.parametrize(("tilings", "patch_batch"), [(1, 1), (1, 7), (2, 5), (1, 1000)])
def test_chunks_change_neither_the_denoised_plane_nor_the_gradient(tilings, patch_batch):
    key, plane = jax.random.key(3), random_plane()
    cotangent = jax.random.normal(jax.random.key(4), plane.shape)

    def both(prior):
        out, transpose = jax.vjp(lambda x: prior.denoise(jax.random.clone(key), x, SIGMA), plane)
        return out, transpose(cotangent)[0]

    whole = jax.jit(both)(tiled_prior(CONVOLVE, FRAME, tilings=tilings))
    chunked = jax.jit(both)(tiled_prior(CONVOLVE, FRAME, tilings=tilings, patch_batch=patch_batch))
    chex.assert_trees_all_close(chunked, whole, rtol=1e-4, atol=1e-5)


def test_chunks_bound_the_memory_of_the_gradient():
    frame = frame_for((64, 64), 8)
    weights = jax.random.normal(jax.random.key(5), (2, 64))

    def wide(weights, patches, positions, sigma):  # activations 32 times the size of the patches, four layers of them
        for _ in range(4):
            patches = jnp.tanh(patches @ weights) @ weights.T
        return patches

    def temporary(patch_batch):
        prior = tiled_prior(Partial(wide, weights), frame, channels=2, patch_batch=patch_batch)

        def gradient(prior, x):
            return jax.grad(lambda x: jnp.sum(prior.denoise(jax.random.key(0), x, SIGMA) ** 2))(x)

        compiled = jax.jit(gradient).lower(prior, random_plane(frame)).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    assert temporary(9) < temporary(None) / 3


def test_tilings_average_over_different_offsets():
    """With all M_y M_x tilings the average is exact: of D = 1 it is the share of tilings that cover a pixel."""
    frame = Frame((5, 6), 3, (2, 3))  # margins 1 and 3, three tilings
    prior = tiled_prior(lambda x, p, sigma: jnp.ones_like(x), frame, tilings=3)
    expected = np.zeros(frame.padded_shape)
    for j in range(3):
        expected[:6, j : j + 9] += 1 / 3
    for seed in range(4):
        out = apply(prior, jax.random.key(seed), jnp.zeros((*frame.padded_shape, 1)))[..., 0]
        np.testing.assert_allclose(out, expected, atol=1e-6)
    assert prior.tilings == 3


def test_outside_of_the_tiles_the_clean_value_is_zero():
    prior = tiled_prior(lambda x, p, sigma: jnp.ones_like(x), FRAME, tiling="fixed")
    out = apply(prior, jax.random.key(0), random_plane(channels=1))[..., 0]
    (my, mx), (ny, nx) = FRAME.margin, FRAME.tiles
    assert float(out.sum()) == ny * nx * FRAME.patch**2
    assert bool(jnp.all(out[my // 2 : my // 2 + 4 * ny, mx // 2 : mx // 2 + 4 * nx] == 1))
    assert bool(jnp.all(FRAME.crop(out[..., None]) == 1))


def test_a_fixed_tiling_ignores_the_key_and_a_random_one_does_not():
    plane = random_plane()
    fixed, moving = (tiled_prior(CONVOLVE, FRAME, tiling=tiling) for tiling in ("fixed", "random"))
    a, b = (apply(fixed, jax.random.key(seed), plane) for seed in (0, 1))
    np.testing.assert_array_equal(a, b)
    a, b = (apply(moving, jax.random.key(seed), plane) for seed in (0, 1))
    assert not np.array_equal(a, b)


def test_equal_priors_share_compiled_code():
    """Parameters are arguments: another set of them, in another prior of an equal config, is not traced again."""

    @jax.jit
    @chex.assert_max_traces(n=1)
    def denoise(prior, plane):
        return prior.denoise(jax.random.key(0), plane, SIGMA)

    params, plane = random_params(CONFIG), random_plane()
    jax.eval_shape(denoise, patch_prior(CONFIG, params, FRAME), plane)
    again = patch_prior(NetworkConfig(**vars(CONFIG)), jax.tree.map(lambda p: 0.5 * p, params), FRAME)
    jax.eval_shape(denoise, again, plane)
    with pytest.raises(AssertionError, match="traced > 1"):
        jax.eval_shape(denoise, patch_prior(CONFIG, params, FRAME, tilings=2), plane)


def test_a_plain_function_makes_a_prior():
    prior = Prior(lambda key, x, sigma: 0.5 * x, FRAME)
    assert jax.tree.leaves(prior) == []
    out = jax.jit(lambda p, x: p.denoise(jax.random.key(0), x, SIGMA))(prior, jnp.ones((2, 2, 1)))
    np.testing.assert_array_equal(out, 0.5 * jnp.ones((2, 2, 1)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tiling": "random "}, "use one of 'random', 'fixed', 'overlap_average'"),
        ({"tiling": "overlap_stitch", "overlap": 4}, "overlap is 4: use 0 to 3"),
        ({"tilings": 0}, "tilings is 0"),
        ({"tilings": 2, "tiling": "fixed"}, "1 to 1 fixed"),
        ({"tilings": 10**6}, "tilings is 1000000"),
        ({"patch_batch": 0}, "patch_batch is 0"),
    ],
)
def test_settings_out_of_range_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        tiled_prior(CONVOLVE, FRAME, **change)


def test_a_patch_that_the_network_cannot_halve_is_refused():
    with pytest.raises(ValueError, match="multiple of 2"):
        patch_prior(NetworkConfig(model_channels=8, channel_mult=(1, 2)), {}, frame_for((13, 18), 5))


@pytest.mark.parametrize("tilings", [1, 3])
def test_every_tiling_is_put_back_where_it_was_cut(tilings):
    """Patches that are not changed give the image back, however many tilings are averaged."""
    frame = frame_for((13, 18), 4)
    image = jax.random.uniform(jax.random.key(1), (13, 18, 1))
    prior = tiled_prior(lambda patches, where, sigma: patches, frame, tilings=tilings)
    again = frame.crop(prior.denoise(jax.random.key(0), frame.pad(image), jnp.float32(1.0)))
    np.testing.assert_allclose(again, image, atol=1e-6)
