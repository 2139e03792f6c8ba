"""Training batches: a function of (seed, step), uniform over the padded planes, patches with their own positions."""

import collections

import numpy as np
import pytest

from padis_jax.batches import PatchConfig, crop_batch, draw_batch, pad_images
from padis_jax.patches import frame_for
from padis_jax.positions import plane_positions

CONFIG = PatchConfig(sizes=(2, 4), probabilities=(0.25, 0.75), batch=(6, 3))


@pytest.fixture(scope="module")
def padded():
    images = np.random.default_rng(0).uniform(0.1, 1, (5, 10, 13, 1)).astype(np.float32)
    return pad_images(images, frame_for((10, 13), 4))


def test_a_batch_is_a_function_of_seed_and_step(padded):
    first = draw_batch(padded, CONFIG, 7, 3)
    np.random.seed(123)  # noqa: NPY002 (the global state must not matter)
    draw_batch(padded, CONFIG, 7, 4)
    again = draw_batch(padded.copy(), CONFIG, 7, 3)
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a, b)
    for seed, step in ((8, 3), (7, 4), (3, 7)):
        other = draw_batch(padded, CONFIG, seed, step)
        assert other.patches.shape != first.patches.shape or not np.array_equal(other.patches, first.patches)


def test_sizes_come_as_often_as_asked(padded):
    counts = collections.Counter(draw_batch(padded, CONFIG, 0, step).patches.shape for step in range(800))
    assert set(counts) == {(6, 2, 2, 1), (3, 4, 4, 1)}
    assert abs(counts[3, 4, 4, 1] / 800 - 0.75) < 4 * np.sqrt(0.75 * 0.25 / 800)


def test_a_patch_is_the_padded_image_at_its_position(padded):
    n, height, width, _ = padded.shape
    batch = crop_batch(np.random.default_rng(1), padded, 4, 50)
    assert batch.patches.dtype == batch.positions.dtype == np.float32
    for patch, position in zip(batch.patches, batch.positions, strict=True):
        x, y = position[0, 0]
        top, left = round((y + 1) / 2 * (height - 1)), round((x + 1) / 2 * (width - 1))
        where = slice(top, top + 4), slice(left, left + 4)
        assert any(np.array_equal(patch, padded[i][where]) for i in range(n))
        np.testing.assert_array_equal(position, plane_positions((height, width))[where])


def test_crops_are_uniform_over_images_and_the_padded_plane():
    height, width, size, count = 7, 9, 4, 24_000
    padded = np.broadcast_to(np.arange(3.0)[:, None, None, None], (3, height, width, 1))
    batch = crop_batch(np.random.default_rng(2), padded, size, count)
    x, y = batch.positions[:, 0, 0].T
    cells = collections.Counter(zip(np.round(x, 4), np.round(y, 4), batch.patches[:, 0, 0, 0], strict=True))
    expected = count / ((height - size + 1) * (width - size + 1) * 3)
    assert len(cells) == (height - size + 1) * (width - size + 1) * 3
    chi_square = sum((seen - expected) ** 2 / expected for seen in cells.values())
    freedom = len(cells) - 1
    assert abs(chi_square - freedom) < 4 * np.sqrt(2 * freedom)


def test_flips_mirror_the_image_and_not_its_position():
    height, width = 6, 8
    image = np.arange(1.0, height * width + 1).reshape(1, height, width, 1)
    batch = crop_batch(np.random.default_rng(3), image, 3, 200, flips=True)
    mirrored = 0
    for patch, position in zip(batch.patches, batch.positions, strict=True):
        x, y = position[0, 0]
        top, left = round((y + 1) / 2 * (height - 1)), round((x + 1) / 2 * (width - 1))
        where = slice(top, top + 3), slice(left, left + 3)
        assert np.all(np.diff(position[..., 0], axis=1) > 0)  # positions always run from left to right
        if not np.array_equal(patch, image[0][where]):
            np.testing.assert_array_equal(patch, image[0][:, ::-1][where])
            mirrored += 1
    assert 70 < mirrored < 130
    assert np.all(np.diff(crop_batch(np.random.default_rng(3), image, 3, 50).patches, axis=2) > 0)  # off by default


def test_size_0_draws_whole_planes():
    images = np.random.default_rng(0).random((3, 5, 7, 2)).astype(np.float32)
    batch = crop_batch(np.random.default_rng(1), images, 0, 40, flips=True)
    assert batch.patches.shape == (40, 5, 7, 2) and batch.positions.shape == (40, 5, 7, 2)
    wanted = {a.tobytes() for image in images for a in (image, image[:, ::-1])}
    assert {patch.tobytes() for patch in batch.patches} == wanted
    assert PatchConfig(sizes=(0,), probabilities=(1.0,), batch=(2,)).largest == 0


@pytest.mark.parametrize(
    "change, message",
    [
        ({"sizes": (2, 4, 8)}, "one entry per patch size"),
        ({"sizes": (), "probabilities": (), "batch": ()}, "one entry per patch size"),
        ({"batch": (6, 0)}, "must be positive"),
        ({"sizes": (0, 4)}, r"or sizes \(0,\) for whole images"),
        ({"probabilities": (0.5, 0.6)}, "sum to 1"),
        ({"probabilities": (1.5, -0.5)}, "sum to 1"),
        ({"probabilities": (float("nan"), 0.5)}, "patches.probabilities is .nan, 0.5.: it must be a finite number"),
    ],
)
def test_impossible_settings_are_refused(change, message):
    settings = {"sizes": (2, 4), "probabilities": (0.25, 0.75), "batch": (6, 3)}
    with pytest.raises(ValueError, match=message):
        PatchConfig(**(settings | change))
