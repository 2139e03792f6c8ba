"""Frames and tilings: the paper's sizes, any other sizes, exact transposes, and refusal of shapes that do not fit."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl.testing import parameterized

from padis_jax.patches import Frame, frame_for, random_offset, tile, untile

SHAPES = [(7, 11, 4, 1), (13, 9, 5, 3), (5, 6, 8, 1), (16, 3, 1, 1)]


@pytest.mark.parametrize(
    "side, patch, margin, padded, count",
    [
        (256, 56, 24, 304, 25),
        (256, 64, 64, 384, 25),
        (256, 96, 32, 320, 9),
        (256, 32, 32, 320, 81),
        (256, 16, 16, 288, 289),
        (256, 8, 8, 272, 1089),
        (512, 64, 64, 640, 81),
    ],
)
def test_frames_of_the_paper(side, patch, margin, padded, count):
    frame = frame_for((side, side), patch)
    assert frame.margin == (margin, margin)
    assert frame.padded_shape == (padded, padded)
    assert frame.patch_count == count


def test_the_fewest_tiles_with_a_quarter_patch_of_offsets():
    for side in range(1, 40):
        for patch in range(1, 14):
            tiles, margin = frame_for((side, 7), patch).tiles[0], frame_for((side, 7), patch).margin[0]
            assert tiles * patch == side + margin
            assert 4 * margin >= patch
            assert 4 * (margin - patch) < patch  # one tile fewer would leave too few offsets


@pytest.mark.parametrize("height, width, patch, channels", SHAPES)
def test_untile_puts_back_what_tile_took_at_every_offset(height, width, patch, channels):
    frame = frame_for((height, width), patch)
    (my, mx), (hp, wp) = frame.margin, frame.padded_shape
    plane = jnp.arange(1.0, hp * wp * channels + 1).reshape(hp, wp, channels)
    there_and_back = jax.jit(lambda plane, offset: untile(frame, tile(frame, plane, offset), offset))
    for y, x in {(0, 0), (my - 1, mx - 1), (my // 2, 0), (0, mx // 2)}:
        back = np.asarray(there_and_back(plane, jnp.asarray((y, x))))
        expected = np.zeros_like(back)
        covered = slice(y, y + height + my), slice(x, x + width + mx)
        expected[covered] = plane[covered]
        np.testing.assert_array_equal(back, expected)
        np.testing.assert_array_equal(frame.crop(back), frame.crop(plane))  # every tiling covers the whole image


@pytest.mark.parametrize("height, width, patch, channels", SHAPES[:2])
def test_tiles_run_row_by_row(height, width, patch, channels):
    frame = frame_for((height, width), patch)
    hp, wp = frame.padded_shape
    plane = np.arange(hp * wp * channels, dtype=np.float32).reshape(hp, wp, channels)
    tiles = tile(frame, jnp.asarray(plane), jnp.asarray((0, 1)))
    chex.assert_shape(tiles, (frame.patch_count, patch, patch, channels))
    for k, one in enumerate(tiles):
        row, column = divmod(k, frame.tiles[1])
        y, x = row * patch, 1 + column * patch
        np.testing.assert_array_equal(one, plane[y : y + patch, x : x + patch])


class Transposes(chex.TestCase):
    @chex.variants(with_jit=True, without_jit=True)
    @parameterized.parameters(*SHAPES)
    def test_transposes_are_exact(self, height, width, patch, channels):
        """On small integers float32 adds without rounding, so the dot products are equal to the last bit."""
        frame, rng = frame_for((height, width), patch), np.random.default_rng(0)
        plane = rng.integers(-8, 9, (*frame.padded_shape, channels)).astype(np.float32)
        patches = rng.integers(-8, 9, (frame.patch_count, patch, patch, channels)).astype(np.float32)
        image = rng.integers(-8, 9, (height, width, channels)).astype(np.float32)

        @self.variant
        def all_four(plane, patches, image, offset):
            return tile(frame, plane, offset), untile(frame, patches, offset), frame.pad(image), frame.crop(plane)

        offset = jnp.asarray((frame.margin[0] - 1, frame.margin[1] // 2))
        tiled, untiled, padded, cropped = all_four(plane, patches, image, offset)
        assert np.vdot(tiled, patches) == np.vdot(plane, untiled)
        assert np.vdot(padded, plane) == np.vdot(image, cropped)


def test_random_offsets_are_all_drawn_and_no_others():
    frame = Frame((6, 9), 4, (2, 3))  # margins 2 and 3
    keys = jax.random.split(jax.random.key(0), 120)
    offsets = np.asarray(jax.jit(jax.vmap(lambda key: random_offset(key, frame)))(keys))
    assert {tuple(o) for o in offsets} == {(y, x) for y in range(2) for x in range(3)}


def test_shapes_that_do_not_fit_are_refused():
    frame = frame_for((6, 9), 4)
    hp, wp = frame.padded_shape
    with pytest.raises(ValueError, match=r"image of shape \(6, 9, 'C'\), got \(9, 6, 1\)"):
        frame.pad(jnp.zeros((9, 6, 1)))
    with pytest.raises(ValueError, match=r"got \(6, 9\)"):
        frame.pad(jnp.zeros((6, 9)))
    with pytest.raises(ValueError, match="expected a plane"):
        frame.crop(jnp.zeros((6, 9, 1)))
    # A dynamic slice would clamp silently on a larger plane.
    with pytest.raises(ValueError, match="expected a plane"):
        tile(frame, jnp.zeros((hp + 1, wp, 1)), jnp.asarray((0, 0)))
    with pytest.raises(ValueError, match=rf"expected patches of shape \({frame.patch_count}, 4, 4, 'C'\)"):
        untile(frame, jnp.zeros((frame.patch_count - 1, 4, 4, 1)), jnp.asarray((0, 0)))


@pytest.mark.parametrize(
    "arguments, message",
    [
        (((8, 8), 4, (2, 2)), "leave no offset"),
        (((8, 8), 4, (3, 2)), "leave no offset"),
        (((8, 8), -1, (3, 3)), "must be positive"),
        (((8, 8), 0, (3, 3)), "one tile per axis"),
        (((0, 8), 4, (3, 3)), "must be positive"),
    ],
)
def test_impossible_frames_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Frame(*arguments)


def test_patch_0_is_the_whole_image_without_padding():
    frame = frame_for((6, 9), 0)
    assert frame.margin == (0, 0) and frame.padded_shape == (6, 9) and frame.patch_count == 1
    image = jnp.arange(108.0).reshape(6, 9, 2)
    offset = random_offset(jax.random.key(0), frame)
    np.testing.assert_array_equal(offset, (0, 0))
    np.testing.assert_array_equal(frame.pad(image), image)
    np.testing.assert_array_equal(frame.crop(image), image)
    np.testing.assert_array_equal(tile(frame, image, offset), image[None])
    np.testing.assert_array_equal(untile(frame, image[None], offset), image)
