"""Positions: range, order of the two channels, and that training and sampling give a pixel the same one."""

import jax.numpy as jnp
import numpy as np
import pytest

from padis_jax.batches import crop_batch, pad_images
from padis_jax.patches import frame_for, tile
from padis_jax.positions import plane_positions


def test_range_and_order():
    plane = plane_positions((5, 9))
    assert plane.shape == (5, 9, 2) and plane.dtype == np.float32
    np.testing.assert_array_equal(plane[0, 0], [-1, -1])
    np.testing.assert_array_equal(plane[-1, -1], [1, 1])
    np.testing.assert_array_equal(plane[2, 4], [0, 0])
    # x comes first and changes along a row only; y changes down a column only.
    np.testing.assert_allclose(plane[3, :, 0], np.linspace(-1, 1, 9), atol=1e-7)
    np.testing.assert_allclose(plane[:, 3, 1], np.linspace(-1, 1, 5), atol=1e-7)
    assert np.ptp(plane[:, 3, 0]) == 0 and np.ptp(plane[3, :, 1]) == 0


def test_a_pixel_has_one_position_in_training_and_in_sampling():
    frame = frame_for((12, 17), 6)
    height, width = frame.padded_shape
    # The image's value names its pixel, so a patch tells where it was cut.
    named = np.arange(height * width, dtype=np.float32).reshape(1, height, width, 1)
    image = frame.crop(named[0])[None]
    padded = pad_images(image, frame)
    crops = crop_batch(np.random.default_rng(0), padded, 6, 40)
    position_of = {}
    for value, position in zip(crops.patches.reshape(-1), crops.positions.reshape(-1, 2), strict=True):
        if value:
            position_of[value] = tuple(position)
    offset = jnp.asarray((1, 2))
    tiles = tile(frame, jnp.asarray(padded[0]), offset)
    where = tile(frame, jnp.asarray(plane_positions(frame.padded_shape)), offset)
    seen = [(v, tuple(p)) for v, p in zip(np.ravel(tiles), np.reshape(where, (-1, 2)), strict=True) if v in position_of]
    assert len(seen) > 100
    assert all(position_of[value] == position for value, position in seen)
    # And it is the position on the padded plane, not on the image.
    for value, (x, y) in list(position_of.items())[:20]:
        row, column = divmod(int(value), width)
        np.testing.assert_allclose((x, y), (2 * column / (width - 1) - 1, 2 * row / (height - 1) - 1), atol=1e-6)


def test_a_plane_of_one_pixel_is_refused():
    with pytest.raises(ValueError, match=r"\(1, 8\).*at least 2 pixels"):
        plane_positions((1, 8))
