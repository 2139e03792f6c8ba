"""Tilings that are mirrored left to right at random: M D(M x) instead of D(x), for a network trained on both."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import NETWORK, random_params

from padis_jax.errors import UserError
from padis_jax.images import PLAIN
from padis_jax.keys import root_key
from padis_jax.mirror import Mirrored, drawn
from padis_jax.patches import frame_for, random_offset, tile, untile
from padis_jax.positions import plane_positions
from padis_jax.prior import patch_prior, tiled_prior
from padis_jax.runs.config import Experiment
from padis_jax.runs.prior import build_prior, mirrored
from padis_jax.slabs import VolumeFrame
from padis_jax.volume_prior import SlabTilings, VolumePrior, slab_prior
from padis_jax.volume_weights import volume_prior_of
from padis_jax.weights import load_prior, load_weights, save_weights

FRAME = frame_for((13, 18), 5)


def told(patches, positions, sigma):
    """A denoiser of patches that is not symmetric, neither in the image nor in the positions."""
    slope = jnp.arange(patches.shape[2], dtype=jnp.float32)[None, None, :, None]
    return patches * (1 + 0.1 * slope) + positions[..., :1] - 0.5 * positions[..., 1:2] + sigma[:, None, None, None]


def coin_of(key):
    return drawn(told, key, True)[0].coin


def left(key):
    """The key that a call draws its tiling with."""
    return drawn(told, key, True)[1]


def key_of(side):
    """A new key, whose call mirrors if `side`."""
    return root_key(next(seed for seed in range(20) if bool(coin_of(root_key(seed))) == side))


def by_hand(key, plane, sigma):
    """M D(M x): the mirrored plane is tiled at the mirrored offset, with its own positions."""
    my, mx = FRAME.margin
    offset = random_offset(left(key), FRAME)
    there = jnp.stack([offset[0], mx - offset[1]])  # 1 .. M: the last one is no offset, but covers the image, too
    where = tile(FRAME, jnp.asarray(plane_positions(FRAME.padded_shape)), there)
    patches = tile(FRAME, plane[:, ::-1], there)
    clean = told(patches, where, jnp.broadcast_to(sigma, patches.shape[:1]))
    return untile(FRAME, clean, there)[:, ::-1]


def test_a_mirrored_call_denoises_the_mirrored_plane_and_mirrors_it_back():
    prior, plain = (tiled_prior(told, FRAME, channels=2, mirror=mirror) for mirror in (True, False))
    plane = jax.random.normal(root_key(1), (*FRAME.padded_shape, 2))
    got = prior.denoise(key_of(True), plane, jnp.float32(0.3))
    np.testing.assert_allclose(got, by_hand(key_of(True), plane, jnp.float32(0.3)), rtol=1e-5, atol=1e-5)
    assert np.abs(got - plain.denoise(left(key_of(True)), plane, jnp.float32(0.3))).max() > 0.1
    same = [
        p.denoise(key, plane, jnp.float32(0.3)) for p, key in ((prior, key_of(False)), (plain, left(key_of(False))))
    ]
    np.testing.assert_array_equal(*same)


def test_half_of_all_calls_are_mirrored_whatever_their_offset():
    """The coin is no function of the offset."""
    coins = np.asarray(jax.vmap(coin_of)(jax.random.split(root_key(0), 4000)))
    offsets = np.asarray(jax.vmap(lambda key: random_offset(left(key), FRAME))(jax.random.split(root_key(0), 4000)))
    for axis in (0, 1):
        for value in np.unique(offsets[:, axis]):
            among = coins[offsets[:, axis] == value]
            assert abs(among.mean() - 0.5) < 4 * 0.5 / np.sqrt(len(among))


@pytest.mark.parametrize("patch_batch", [1, 4])
def test_chunks_change_nothing(patch_batch):
    plane = jax.random.normal(root_key(1), (*FRAME.padded_shape, 1))
    whole, chunked = (
        tiled_prior(told, FRAME, mirror=True, patch_batch=size).denoise(key_of(True), plane, jnp.float32(0.3))
        for size in (None, patch_batch)
    )
    np.testing.assert_allclose(chunked, whole, rtol=1e-6, atol=1e-6)


def test_the_gradient_is_that_of_the_mirrored_denoiser():
    prior = tiled_prior(told, FRAME, mirror=True)
    plane = jax.random.normal(root_key(1), (*FRAME.padded_shape, 1))
    weight = jax.random.normal(root_key(2), plane.shape)
    got, expected = (
        jax.grad(lambda x, call=call: jnp.sum(weight * call(key_of(True), x, jnp.float32(0.3))))(plane)
        for call in (prior.denoise, by_hand)
    )
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)


def test_fixed_and_overlapping_patches_draw_nothing():
    plane = jax.random.normal(root_key(1), (*FRAME.padded_shape, 1))
    for tiling in ("fixed", "overlap_average"):
        one, other = (
            tiled_prior(told, FRAME, tiling=tiling, overlap=2, mirror=mirror).denoise(
                key_of(True), plane, jnp.float32(0.3)
            )
            for mirror in (True, False)
        )
        np.testing.assert_array_equal(one, other)


def test_slabs_are_mirrored_with_all_their_slices():
    frame = VolumeFrame(FRAME, 4, 2)
    volume = jax.random.normal(root_key(1), frame.padded_shape)
    mirrored, plain = (VolumePrior(SlabTilings(told, frame, 3, 3, mirror=mirror), frame) for mirror in (True, False))
    for side in (True, False):
        always = VolumePrior(SlabTilings(Mirrored(told, jnp.asarray(side)), frame, 3, 3), frame)
        got = mirrored.denoise(key_of(side), volume, jnp.float32(0.3))
        expected = always.denoise(left(key_of(side)), volume, jnp.float32(0.3))
        np.testing.assert_allclose(got, expected, rtol=1e-6, atol=1e-6)
        same = np.abs(got - plain.denoise(left(key_of(side)), volume, jnp.float32(0.3))).max() < 1e-5
        assert same != side


@pytest.mark.parametrize("flips", [True, False, None])
def test_weights_know_whether_they_were_trained_on_both(tmp_path, flips):
    path, frame = tmp_path / "w.safetensors", frame_for((16, 16), 8)
    about = {} if flips is None else {"config": {"patches": {"flips": flips}}}
    save_weights(path, random_params(), NETWORK, frame, PLAIN, about)
    assert load_weights(path).mirrored == bool(flips)
    plane = jax.random.normal(root_key(1), (*frame.padded_shape, 1))
    for chosen in (None, True, False):
        expected = patch_prior(NETWORK, random_params(), frame, mirror=bool(flips) if chosen is None else chosen)
        got = load_prior(path, mirror=chosen)
        np.testing.assert_allclose(
            *(p.denoise(key_of(True), plane, jnp.float32(0.3)) for p in (got, expected)), rtol=1e-5, atol=1e-6
        )


@pytest.mark.parametrize("trained", [True, False])
def test_a_run_mirrors_as_trained_unless_told(tmp_path, trained):
    path, frame = tmp_path / "w.safetensors", frame_for((16, 16), 8)
    save_weights(path, random_params(), NETWORK, frame, PLAIN, {"config": {"patches": {"flips": trained}}})
    weights = load_weights(path)
    for told, expected in (("auto", trained), ("on", True), ("off", False)):
        config = Experiment(weights=str(path), mirror=told)
        assert build_prior(config, weights, frame).denoise.mirror is expected
        volume = volume_prior_of(weights, path, depth=3, mirror=mirrored(config, weights))
        assert volume.denoise.mirror is expected


def test_a_tiling_that_draws_nothing_is_not_mirrored_on_demand():
    with pytest.raises(UserError, match="--mirror on: --tiling fixed draws nothing"):
        Experiment(mirror="on", tiling="fixed")
    assert Experiment(tiling="fixed").mirror == "auto"


def test_a_volume_of_one_slice_is_its_image_bit_for_bit():
    frame = frame_for((16, 16), 8)
    image = patch_prior(NETWORK, random_params(), frame, mirror=True)
    volume = slab_prior(NETWORK, random_params(), frame, depth=1, mirror=True, patch_batch=frame.patch_count)
    plane = jax.random.normal(root_key(1), (*frame.padded_shape, 1))
    got = jax.jit(volume.denoise)(key_of(True), plane[None, ..., 0], jnp.float32(0.3))
    np.testing.assert_array_equal(got[0], jax.jit(image.denoise)(key_of(True), plane, jnp.float32(0.3))[..., 0])
