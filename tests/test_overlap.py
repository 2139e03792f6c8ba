"""Overlapping patches: where they lie, and both ways to join them against plain loops."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from padis_jax.patches import frame_for
from padis_jax.positions import plane_positions
from padis_jax.prior import tiled_prior
from padis_jax.tilings import Overlap

FRAME = frame_for((13, 18), 6)
SIGMA = jnp.float32(0.5)


def corners(overlap):
    rows, columns = overlap.starts
    return [(y, x) for y in rows for x in columns]


def test_the_papers_frame():
    overlap = Overlap(frame_for((256, 256), 56), 8)
    np.testing.assert_array_equal(overlap.starts[0] - 24, [0, 48, 96, 144, 192, 200])
    assert overlap.patch_count == 36


@pytest.mark.parametrize("shared", [0, 1, 3, 5])
def test_patches_cover_the_image_and_nothing_else(shared):
    overlap = Overlap(FRAME, shared)
    covered = np.zeros(FRAME.padded_shape)
    for y, x in corners(overlap):
        covered[y : y + 6, x : x + 6] += 1
    inside = np.asarray(FRAME.crop(jnp.asarray(covered)[..., None]))
    assert inside.min() >= 1 and covered.sum() == inside.sum()
    assert np.diff(overlap.starts[0]).max() <= 6 - shared


@pytest.mark.parametrize("shared", [0, 2, 5])
@pytest.mark.parametrize("join", ["average", "stitch"])
def test_cut_and_put_against_loops(shared, join):
    overlap, rng = Overlap(FRAME, shared, join), np.random.default_rng(0)
    plane = rng.standard_normal((*FRAME.padded_shape, 2)).astype(np.float32)
    where = corners(overlap)
    np.testing.assert_array_equal(overlap.cut(jnp.asarray(plane)), [plane[y : y + 6, x : x + 6] for y, x in where])

    patches = rng.standard_normal((overlap.patch_count, 6, 6, 2)).astype(np.float32)
    total, count, last = np.zeros_like(plane), np.zeros(FRAME.padded_shape), np.zeros_like(plane)
    for (y, x), patch in zip(where, patches, strict=True):
        total[y : y + 6, x : x + 6] += patch
        count[y : y + 6, x : x + 6] += 1
        last[y : y + 6, x : x + 6] = patch
    expected = total / np.maximum(count, 1)[..., None] if join == "average" else last
    np.testing.assert_allclose(overlap.put(jnp.asarray(patches)), expected, atol=1e-5)


def test_the_prior_gives_each_patch_its_positions():
    """D = x + position: joined, the positions of the plane come back on the image."""
    plane = jax.random.normal(jax.random.key(0), (*FRAME.padded_shape, 2))
    for tiling in ("overlap_average", "overlap_stitch"):
        prior = tiled_prior(lambda x, p, sigma: x + p, FRAME, channels=2, tiling=tiling, overlap=3)
        out = prior.denoise(jax.random.key(1), plane, SIGMA)
        expected = FRAME.pad(FRAME.crop(plane + plane_positions(FRAME.padded_shape)))
        np.testing.assert_allclose(out, expected, atol=1e-5)


@pytest.mark.parametrize(
    ("patch", "shared", "message"),
    [(6, 6, "overlap is 6: use 0 to 5"), (6, -1, "overlap is -1"), (14, 2, "no larger than"), (0, 2, "no larger than")],
)
def test_impossible_overlaps_are_refused(patch, shared, message):
    with pytest.raises(ValueError, match=message):
        Overlap(frame_for((13, 18), patch), shared)
