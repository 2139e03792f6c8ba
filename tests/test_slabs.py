"""Slabs: the frame along z, tilings that are transposes, and a prior of volumes whose slices of d = 1 are images."""

import collections
import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial
from tiny import NETWORK, random_params

from padis_jax.patches import frame_for
from padis_jax.prior import patch_prior
from padis_jax.slabs import VolumeFrame, random_offsets, slab_heights, tile_volume, untile_volume
from padis_jax.volume_prior import SlabTilings, VolumePrior, slab_positions, slab_prior

PLANE = frame_for((6, 8), 4)  # 2 x 3 tiles, margins (2, 4)
SLABS = dataclasses.replace(NETWORK, image_channels=3, position_channels=3, dropout=0.0)


@pytest.mark.parametrize(("depth", "slab"), [(1, 1), (5, 1), (1, 3), (7, 3), (8, 3), (5, 2), (2, 4)])
def test_every_offset_covers_the_volume(depth, slab):
    """Each slice in exactly one slab, from any of the d offsets; and each pair of neighbours together in d - 1."""
    frame = VolumeFrame(PLANE, depth, slab)
    numbers = np.arange(frame.padded_shape[0])
    together = collections.Counter()
    for offset in range(slab):
        owner = np.where(
            (numbers >= offset) & (numbers < offset + frame.tiles[0] * slab), (numbers - offset) // slab, -1
        )
        inside = owner[frame.margin[0] : frame.margin[0] + depth]
        assert len(inside) == depth and np.all(inside >= 0)
        together.update(np.flatnonzero(np.diff(inside) == 0).tolist())
    assert together == {k: slab - 1 for k in range(depth - 1) if slab > 1}
    assert frame.padded_shape[0] == numbers.size and (slab > 1 or frame.padded_shape[0] == depth)


@pytest.mark.parametrize("slab", [1, 3])
def test_tiling_and_untiling_are_transposes(slab):
    frame = VolumeFrame(PLANE, 4, slab)
    rng = np.random.default_rng(0)
    volume = jnp.asarray(rng.standard_normal(frame.padded_shape), jnp.float32)
    for offset in ([slab - 1, 1, 3], [0, 0, 0]):
        at = jnp.asarray(offset)
        patches = tile_volume(frame, volume, at)
        assert patches.shape == (frame.patch_count, 4, 4, slab)
        other = jnp.asarray(rng.standard_normal(patches.shape), jnp.float32)
        one, two = jnp.vdot(patches, other), jnp.vdot(volume, untile_volume(frame, other, at))
        np.testing.assert_allclose(one, two, rtol=1e-5)
        np.testing.assert_array_equal(frame.crop(untile_volume(frame, patches, at)), frame.crop(volume))
        numbers = jnp.asarray([frame.patch_count - 1, 4, 2, 0])
        np.testing.assert_array_equal(tile_volume(frame, volume, at, numbers), patches[numbers])
    inner = jnp.asarray(rng.standard_normal(frame.image_shape), jnp.float32)
    np.testing.assert_array_equal(frame.crop(frame.pad(inner)), inner)
    assert float(jnp.abs(frame.pad(inner)).sum()) == pytest.approx(float(jnp.abs(inner).sum()), rel=1e-6)


def test_offsets_are_uniform_along_z():
    frame = VolumeFrame(PLANE, 4, 3)
    drawn = np.asarray(jax.vmap(lambda key: random_offsets(key, frame))(jax.random.split(jax.random.key(0), 600)))
    counts = np.bincount(drawn[:, 0], minlength=3)
    assert counts.size == 3 and counts.min() > 150
    assert drawn[:, 1].max() == 1 and drawn[:, 2].max() == 3


def test_z_is_that_of_the_padded_volume():
    """By the formula, and the same for a part of a volume as in the whole."""
    whole, part = VolumeFrame(PLANE, 10, 3), VolumeFrame(PLANE, 4, 3, first=5, total=10)
    heights = slab_heights(3, 10)
    last = whole.padded_shape[0] - 1
    np.testing.assert_allclose(heights, [2 * ((k + 1) / last - 0.5) for k in range(len(heights))], rtol=1e-6)
    offset, of_tile = jnp.asarray([1, 0, 0]), PLANE.patch_count
    seen = np.asarray(slab_positions(whole, offset, jnp.arange(whole.tiles[0]) * of_tile, 3))
    # slab 2 at offset 1 begins at slice 1 + 6 - 2 = 5 of the whole; as does slab 0 at offset 2 of the part
    there = slab_positions(part, jnp.asarray([2, 0, 0]), jnp.arange(1), 3)
    np.testing.assert_array_equal(seen[2], there[0])
    assert np.unique(seen[2, ..., 2]).size == 1 and np.all(np.diff(seen[:, 0, 0, 2]) > 0)


@pytest.mark.parametrize("patch_batch", [None, 4])
def test_one_slice_is_its_image_bit_for_bit(patch_batch):
    params, frame = random_params(NETWORK), frame_for((12, 8), 8)
    image = jax.random.normal(jax.random.key(1), (*frame.padded_shape, 1))
    one = patch_prior(NETWORK, params, frame, patch_batch=patch_batch)
    volume = slab_prior(NETWORK, params, frame, depth=1, patch_batch=patch_batch)
    expected = jax.jit(one.denoise)(jax.random.key(2), image, jnp.float32(0.3))
    found = jax.jit(volume.denoise)(jax.random.key(2), image[None, ..., 0], jnp.float32(0.3))
    np.testing.assert_array_equal(found[0], expected[..., 0])


def test_every_slice_of_d_1_is_denoised_with_the_offset_of_the_call():
    params, frame = random_params(NETWORK), frame_for((12, 8), 8)
    stack = jax.random.normal(jax.random.key(1), (3, *frame.padded_shape))
    one, volume = patch_prior(NETWORK, params, frame), slab_prior(NETWORK, params, frame, depth=3)
    image, sigma = jax.jit(one.denoise), jnp.float32(0.3)
    expected = [image(jax.random.key(2), x[..., None], sigma)[..., 0] for x in stack]
    np.testing.assert_allclose(jax.jit(volume.denoise)(jax.random.key(2), stack, sigma), np.stack(expected), atol=1e-5)


@pytest.fixture(scope="module")
def slabs():
    """The parameters of a network of slabs that sees z."""
    return random_params(SLABS)


@pytest.mark.slow
def test_chunks_change_nothing_but_rounding(slabs):
    """The volume and its gradient, whatever the number of patches at a time."""
    frame = frame_for((8, 8), 8)
    found = {}
    for size in (3, 100):
        prior = slab_prior(SLABS, slabs, frame, depth=4, patch_batch=size)
        volume = jax.random.normal(jax.random.key(3), prior.frame.padded_shape)

        def both(x, prior=prior):
            out, pull = jax.vjp(lambda x: prior.denoise(jax.random.key(5), x, jnp.float32(0.5)), x)
            return out, pull(jnp.cos(out))[0]

        found[size] = jax.jit(both)(volume)
    for one, other in zip(found[3], found[100], strict=True):
        assert np.all(np.isfinite(one)) and np.abs(np.asarray(one)).max() > 1e-3
        np.testing.assert_allclose(one, other, atol=2e-5 * float(jnp.abs(other).max()))


def test_memory_of_the_network_does_not_grow_with_the_volume(slabs):
    """Beyond the volume, its answer and the denoised patches (XLA's own count of temporaries)."""
    frame = frame_for((16, 16), 8)

    def temporaries(depth):
        prior = slab_prior(SLABS, slabs, frame, depth=depth)
        shape = jax.ShapeDtypeStruct(prior.frame.padded_shape, jnp.float32)
        key = jax.random.key(0)
        lowered = jax.jit(prior.denoise.__call__).lower(key, shape, jax.ShapeDtypeStruct((), jnp.float32))
        return lowered.compile().memory_analysis().temp_size_in_bytes, 4 * np.prod(prior.frame.padded_shape)

    (small, few), (large, many) = temporaries(4), temporaries(40)
    assert large - small < 3 * (many - few)
    assert small > 3 * few  # what the network takes is not of the size of volumes


def mixing(matrix, patches, positions, sigma):
    """A linear denoiser of slabs: their slices, mixed."""
    return patches @ matrix


def test_slices_of_a_slab_are_channels_and_the_ends_are_0():
    """Against loops in NumPy, for every offset; what lies beyond the ends is 0."""
    frame = VolumeFrame(PLANE, 4, 3)
    matrix = np.random.default_rng(1).standard_normal((3, 3)).astype(np.float32)
    prior = VolumePrior(SlabTilings(Partial(mixing, jnp.asarray(matrix)), frame, 5, 3), frame)
    volume = jax.random.normal(jax.random.key(0), frame.padded_shape)
    seen = set()
    for seed in range(12):
        z, y, x = (int(v) for v in random_offsets(jax.random.key(seed), frame))
        expected = np.zeros(frame.padded_shape, np.float32)
        for first in range(z, z + frame.tiles[0] * 3, 3):
            rows, columns = slice(y, y + 8), slice(x, x + 12)
            slab = np.asarray(volume)[first : first + 3, rows, columns]
            expected[first : first + 3, rows, columns] = np.einsum("dhw,de->ehw", slab, matrix)
        expected[:2] = expected[6:] = 0
        np.testing.assert_allclose(prior.denoise(jax.random.key(seed), volume, 0.1), expected, atol=1e-5)
        seen.add(z)
    assert seen == {0, 1, 2}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"depth": 0}, "depth is 0"),
        ({"slab": 65}, "more than 64"),
        ({"first": 3, "total": 5}, "slices 3 to 6 are not all in a volume of 5"),
        ({"depth": 2.5}, "depth is 2.5"),
    ],
)
def test_frames_that_cannot_be(change, message):
    with pytest.raises(ValueError, match=message):
        VolumeFrame(**{"plane": PLANE, "depth": 4, "slab": 3, **change})


def test_another_volume_is_refused():
    frame = VolumeFrame(PLANE, 4, 3)
    for call in (frame.pad, frame.crop, lambda v: tile_volume(frame, v, jnp.zeros(3, jnp.int32))):
        with pytest.raises(ValueError, match="volume frame: expected"):
            call(jnp.zeros((4, 6, 9)))
    with pytest.raises(ValueError, match="sees z"):
        patch_prior(dataclasses.replace(NETWORK, position_channels=3), {}, frame_for((8, 8), 8))
