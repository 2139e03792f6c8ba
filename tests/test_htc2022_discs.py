"""Synthetic discs: repeatable, of the stated size, with holes of every shape, and readable by the training script."""

import sys

import numpy as np
import pytest
from scipy import ndimage

from padis_jax.images import Window, read_images
from studies.htc2022 import discs

SIDE = 96
PIXEL = discs.FIELD / SIDE


def test_a_disc_follows_from_seed_and_index():
    first = discs.disc(0, 3, side=SIDE)
    assert first.dtype == np.float32 and first.shape == (SIDE, SIDE)
    np.testing.assert_array_equal(first, discs.disc(0, 3, side=SIDE))
    assert (first != discs.disc(0, 4, side=SIDE)).any() and (first != discs.disc(1, 3, side=SIDE)).any()


def test_discs_have_the_size_and_the_holes_that_the_module_states():
    counts = []
    for index in range(20):
        image = discs.disc(7, index, side=SIDE)
        assert image.min() == 0 and image.max() == 1
        filled = ndimage.binary_fill_holes(image > 0.5)
        radius = np.sqrt(filled.sum() / np.pi) * PIXEL
        np.testing.assert_allclose(radius, discs.RADIUS, rtol=0.01)  # holes keep clear of the edge
        centre = (np.asarray(ndimage.center_of_mass(filled)) - (SIDE - 1) / 2) * PIXEL
        assert np.abs(centre).max() < discs.SHIFT + 0.2
        counts.append(ndimage.label(filled & (image < 0.5))[1])
    assert min(counts) <= 5 and max(counts) > 2 * discs.MOST_HOLES  # sparse and dense ones
    partial = (image > 0) & (image < 1)
    assert np.isin(np.round(image[partial] * discs.SAMPLES**2, 4) % 1, 0).all() and partial.any()


def test_missing_shares_reach_from_none_to_most():
    solid = np.array([discs.disc(3, index, side=SIDE).sum() for index in range(60)])
    missing = 1 - solid * PIXEL**2 / (np.pi * discs.RADIUS**2)
    assert min(missing) < 0.03 and 0.7 < max(missing) < 0.95  # a mosaic of few cells and thin walls
    assert 0.2 < np.mean(missing) < 0.4


def test_a_disc_is_in_one_piece():
    """Also where a hole, or holes that meet, go round some material."""
    for index in range(20):
        assert ndimage.label(discs.disc(1, index, side=SIDE) > 0, np.ones((3, 3)))[1] == 1
    solid = np.zeros((9, 9), bool)
    solid[:, :4], solid[5:7, 5:7] = True, True
    np.testing.assert_array_equal(discs._largest_piece(solid), solid & (np.arange(9) < 4))


def _plane(side):
    axis = (np.arange(side) + 0.5) / side * discs.FIELD - discs.FIELD / 2
    return axis[None], -axis[:, None]


@pytest.mark.parametrize("mosaic", [discs._cells, discs._grid])
def test_cells_of_a_mosaic_keep_their_walls(mosaic):
    """Holes are MOSAIC_WALLS apart, but where the walls of three or more meet; and there are few to many of them."""
    side, counts, walls = 256, [], []
    for seed in range(12):
        holes, number = ndimage.label(mosaic(np.random.default_rng(seed), *_plane(side)))
        counts.append(number)
        if number > 1:
            apart = ndimage.distance_transform_edt(holes != 1)[holes > 1].min() * discs.FIELD / side
            walls.append(apart)
    pixel = discs.FIELD / side
    assert min(walls) > discs.MOSAIC_WALLS[0] - pixel and max(walls) > 2 * discs.MOSAIC_WALLS[0]
    assert min(counts) < 12 and max(counts) > 25


def test_cells_are_next_to_one_point(monkeypatch):
    """Against the definition: a hole is farther than half a wall from the bisector of the two nearest points."""
    monkeypatch.setattr(discs, "FILLED", 0.0)
    monkeypatch.setattr(discs, "MOSAIC_WALLS", (2.0, 2.0))
    x, y = _plane(64)
    holes = discs._cells(np.random.default_rng(4), x, y)
    rng = np.random.default_rng(4)
    points = rng.uniform(-discs.RADIUS, discs.RADIUS, (int(np.exp(rng.uniform(*np.log(discs.CELLS)))), 2))
    where = np.stack(np.broadcast_arrays(x, y), -1)
    to = np.linalg.norm(where[..., None, :] - points, axis=-1)
    order = np.argsort(to, axis=-1)
    first, second = points[order[..., 0]], points[order[..., 1]]
    normal = (second - first) / np.linalg.norm(second - first, axis=-1, keepdims=True)
    wall = np.sum(((first + second) / 2 - where) * normal, -1)
    np.testing.assert_array_equal(holes, wall > 1.0)


def test_a_share_of_the_cells_is_no_hole():
    counts = [discs._cut_out(np.random.default_rng(seed), 400).mean() for seed in range(40)]
    assert 1 - discs.FILLED - 0.1 < min(counts) < 0.8 and max(counts) > 0.97


def test_sparse_holes_keep_their_walls(monkeypatch):
    """Their circles are WALL apart and from the edge, of every radius, and at most MOST_HOLES."""
    circles, counts = [], []
    monkeypatch.setattr(discs, "_cut", lambda rng, solid, x, y, at, size: circles.append((*at, size)))
    for seed in range(60):
        circles.clear()
        discs._sparse(np.random.default_rng(seed), np.ones((1, 1), bool), np.zeros((1, 1)), np.zeros((1, 1)))
        counts.append(len(circles))
        if not circles:
            continue
        x, y, size = np.asarray(circles).T
        assert (np.hypot(x, y) + size <= discs.RADIUS - discs.WALL + 1e-9).all()
        assert (discs.HOLE_RADII[0] <= size).all() and (size <= discs.HOLE_RADII[1]).all()
        apart = np.hypot(x[:, None] - x, y[:, None] - y) - size[:, None] - size
        assert apart[~np.eye(len(x), dtype=bool)].min(initial=np.inf) > discs.WALL
    assert min(counts) == 0 and 15 < max(counts) <= discs.MOST_HOLES


def test_packed_holes_keep_their_walls():
    side, walls = 256, []
    axis = (np.arange(side) + 0.5) / side * discs.FIELD - discs.FIELD / 2
    x, y = axis[None], -axis[:, None]
    for seed in range(3):
        holes = []
        for child, at, size in discs._packing(np.random.default_rng(seed)):
            solid = np.ones((side, side), bool)
            discs._cut(np.random.default_rng(child), solid, x, y, at, size)
            holes.append(~solid)
        assert len(holes) > 10
        for number, hole in enumerate(holes):
            others = np.logical_or.reduce([h for i, h in enumerate(holes) if i != number])
            walls.append(ndimage.distance_transform_edt(~hole)[others].min() * discs.FIELD / side)
        assert not (np.logical_or.reduce(holes) & (np.hypot(x, y) > discs.RADIUS - discs.WALL)).any()
    assert min(walls) > discs.WALL


def test_a_finer_image_is_the_same_disc():
    coarse, fine = discs.disc(2, 0, side=48), discs.disc(2, 0, side=96)
    assert np.abs(coarse - fine.reshape(48, 2, 48, 2).mean((1, 3))).max() < 0.3
    assert np.abs(coarse.mean() - fine.mean()) < 1e-3


@pytest.mark.parametrize("shape", discs.SHAPES, ids=lambda shape: shape.__name__)
def test_every_shape_lies_in_its_circle_and_is_not_empty(shape):
    axis = np.linspace(-1.2, 1.2, 97)
    x, y = np.broadcast_arrays(axis[None], axis[:, None])
    drawn = np.stack([shape(np.random.default_rng(seed), x, y) for seed in range(10)])
    assert not (drawn & (x**2 + y**2 > 1 + 1e-9)[None]).any()
    assert drawn.mean((1, 2)).min() * 2.4**2 / np.pi > 0.03  # of the circle
    assert drawn.any(0).mean() > drawn.all(0).mean() + 0.1  # no two alike


def test_a_polygon_has_the_area_of_its_corners():
    axis = np.linspace(-1, 1, 401)
    x, y = np.broadcast_arrays(axis[None], axis[:, None])
    inside = discs.polygon(np.random.default_rng(5), x, y)
    rng = np.random.default_rng(5)
    corners = int(rng.integers(3, 9))
    angle = (np.arange(corners) + rng.uniform(-0.3, 0.3, corners)) * 2 * np.pi / corners
    radius = rng.uniform(0.45, 1, corners)
    shoelace = 0.5 * np.sum(radius * np.roll(radius, -1) * np.sin(np.roll(angle, -1) - angle))
    np.testing.assert_allclose(inside.mean() * (401 / 200) ** 2, shoelace, rtol=0.01)


def test_the_command_writes_what_training_reads(tmp_path, monkeypatch, capsys):
    out = tmp_path / "discs.npz"
    monkeypatch.setattr(sys, "argv", ["discs", "--out", str(out), "--count", "3", "--side", "32", "--seed", "5"])
    discs.main()
    images = read_images(out, window=Window("1", 0.0, 1.0))
    np.testing.assert_allclose(images.images[1, :, :, 0], discs.disc(5, 1, side=32), atol=1e-3)
    monkeypatch.setattr(sys, "argv", ["discs", "--out", str(out), "--count", "0"])
    with pytest.raises(SystemExit) as stopped:
        discs.main()
    assert stopped.value.code == 2 and "--count 0" in capsys.readouterr().err
