"""Synthetic discs with holes, from a seed: what the prior for the Helsinki Tomography Challenge 2022 is trained on.

    python -m studies.htc2022.discs --out runs/discs.npz --count 400

The challenge describes its targets in words: homogeneous acrylic discs of 70 mm, not all centred alike, with holes of
differing, irregular shapes at random places, few and simple ones up to many and complex ones, cut by a laser. Four
kinds of disc, evenly drawn: holes in circles of their own, holes packed as close as their walls allow, holes where a
random smooth function is large, and the cells of a random mosaic with walls between them. A disc is in one piece. The
kinds are like the four of the challenge's entry from Bremen (circles, polygons, two sets of lines, level sets; the
README of github.com/alexdenker/htc2022_LPD). docs/studies/htc2022.md says what of the measured discs had been seen when
they were chosen. A value is the fraction of the pixel that is material, over SAMPLES x SAMPLES points; lengths in mm.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
from scipy.ndimage import distance_transform_edt, label
from scipy.spatial import KDTree

from padis_jax.errors import UserError, one_line_errors
from padis_jax.files import write_npz
from studies.htc2022.data import FIELD

RADIUS = 35.0
SHIFT = 1.5  # of the centre, at most, along each axis
MOST_HOLES = 20
HOLE_RADII = 1.5, 10.0  # of the circle around a hole; drawn evenly in their logarithm
WALL = 1.0  # between the circles of two holes, and to the edge, at least
SAMPLES = 4
PACKED_SHARE, FIELD_SHARE = (0.1, 0.5), (0.1, 0.55)  # of the disc that is missing, drawn evenly
PACKED_TRIES, PACKED_GRID = 400, 256  # places tried; points along a side on which it is decided what fits
WAVES, WAVELENGTHS = 80, (6.0, 30.0)  # of the random function; one scale per disc, drawn evenly in its logarithm
CELLS, FILLED = (5, 60), 0.3  # of the mosaic, drawn evenly in their logarithm; share that is no hole, at most
MOSAIC_WALLS, RIMS = (1.0, 4.5), (1.0, 8.0)  # between its cells; outside of them

# Holes within the unit circle: whether the points x, y are in the hole.
Shape = Callable[[np.random.Generator, np.ndarray, np.ndarray], np.ndarray]


def ellipse(rng: np.random.Generator, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """From a circle to three times as long as wide."""
    return x**2 + (y * rng.uniform(1, 3)) ** 2 < 1


def bar(rng: np.random.Generator, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """A rectangle, the corners of which are on the circle, from a square to a slit."""
    half = np.arctan(1 / rng.uniform(1, 6))
    return (np.abs(x) < np.cos(half)) & (np.abs(y) < np.sin(half))


def polygon(rng: np.random.Generator, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Three to eight corners in order of their angle, each at its own distance from the centre; star-shaped."""
    corners = int(rng.integers(3, 9))
    angle = (np.arange(corners) + rng.uniform(-0.3, 0.3, corners)) * 2 * np.pi / corners
    radius = rng.uniform(0.45, 1, corners)
    px, py = radius * np.cos(angle), radius * np.sin(angle)
    inside = np.zeros(x.shape, bool)
    for i in range(corners):  # even-odd rule, with the ray to the right
        x0, y0, x1, y1 = px[i], py[i], px[i - 1], py[i - 1]
        crosses = (y0 > y) != (y1 > y)
        inside ^= crosses & (x < x0 + (y - y0) * (x1 - x0) / (y1 - y0 if y1 != y0 else 1.0))
    return inside


def blob(rng: np.random.Generator, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """A smooth irregular outline: its radius is a short Fourier series of the angle."""
    angle = np.arctan2(y, x)
    order = np.arange(2, 7)
    amplitude, phase = rng.normal(0, 0.7 / order), rng.uniform(0, 2 * np.pi, 5)
    waves = sum(a * np.cos(n * angle + p) for n, a, p in zip(order, amplitude, phase, strict=True))
    return np.hypot(x, y) < np.clip(0.65 + 0.65 * waves, 0.15, 1)


def cross(rng: np.random.Generator, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Two bars, or halves of them, at a right angle: a cross, a T or an L."""
    width, reach = rng.uniform(0.12, 0.3), rng.uniform(0.6, 0.95)
    first, second = rng.choice([-width, -reach], 2)  # where each bar begins
    return ((np.abs(y) < width) & (x > first) & (x < reach)) | ((np.abs(x) < width) & (y > second) & (y < reach))


def ring(rng: np.random.Generator, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """A sector of a ring, at most 300 degrees, so that what it encloses is held."""
    radius = np.hypot(x, y)
    return (radius < 1) & (radius > rng.uniform(0.35, 0.75)) & (np.abs(np.arctan2(y, x)) < rng.uniform(0.5, 2.6))


SHAPES: tuple[Shape, ...] = (ellipse, bar, polygon, blob, cross, ring)


def disc(seed: int, index: int, *, side: int = 256) -> np.ndarray:
    """One disc, float32 [side, side] in [0, 1]; a function of its arguments."""
    rng = np.random.default_rng([seed, index])
    axis = (np.arange(side * SAMPLES) + 0.5) / (side * SAMPLES) * FIELD - FIELD / 2
    centre = rng.uniform(-SHIFT, SHIFT, 2)
    x, y = axis[None] - centre[0], -axis[:, None] - centre[1]
    solid = x**2 + y**2 < RADIUS**2
    inner = RADIUS - WALL
    kind = int(rng.integers(4))
    if kind == 0:
        _sparse(rng, solid, x, y)
    elif kind == 1:
        for seed, at, size in _packing(rng):
            _cut(np.random.default_rng(seed), solid, x, y, at, size)
    elif kind == 2:
        solid &= ~(_field(rng, x, y) & (x**2 + y**2 < inner**2))
    else:
        holes = (_cells if rng.integers(2) else _grid)(rng, x, y)
        solid &= ~(holes & (x**2 + y**2 < (RADIUS - rng.uniform(*RIMS)) ** 2))
    solid = _largest_piece(solid)
    return solid.reshape(side, SAMPLES, side, SAMPLES).mean((1, 3), dtype=np.float32)


def _sparse(rng: np.random.Generator, solid: np.ndarray, x: np.ndarray, y: np.ndarray) -> None:
    """Cuts up to MOST_HOLES holes, whose circles keep a wall between them."""
    taken: list[tuple[float, float, float]] = []
    for _ in range(int(rng.integers(0, MOST_HOLES + 1))):
        for _ in range(20):  # a place where it fits, else no hole
            size = float(np.exp(rng.uniform(*np.log(HOLE_RADII))))
            at = _place(rng, size)
            if all(np.hypot(at[0] - ox, at[1] - oy) > size + other + WALL for ox, oy, other in taken):
                taken.append((*at, size))
                _cut(rng, solid, x, y, at, size)
                break


def _packing(rng: np.random.Generator) -> list[tuple[int, tuple[float, float], float]]:
    """(seed, place, radius of the circle) of holes that keep a wall between them, decided on a grid of its own."""
    axis = (np.arange(PACKED_GRID) + 0.5) / PACKED_GRID * FIELD - FIELD / 2
    x, y = axis[None], -axis[:, None]
    free = x**2 + y**2 < (RADIUS - WALL) ** 2
    goal, left, found = free.sum() * (1 - rng.uniform(*PACKED_SHARE)), free.copy(), []
    for _ in range(PACKED_TRIES):
        size, seed = float(np.exp(rng.uniform(*np.log(HOLE_RADII)))), int(rng.integers(2**32))
        at = _place(rng, size)
        trial = np.ones_like(free)
        _cut(np.random.default_rng(seed), trial, x, y, at, size)
        if (~trial & ~free).any():
            continue
        left &= trial
        free &= distance_transform_edt(trial) * FIELD / PACKED_GRID > WALL
        found.append((seed, at, size))
        if left.sum() < goal:
            break
    return found


def _place(rng: np.random.Generator, size: float) -> tuple[float, float]:
    distance, angle = (RADIUS - WALL - size) * np.sqrt(rng.uniform()), rng.uniform(0, 2 * np.pi)
    return float(distance * np.cos(angle)), float(distance * np.sin(angle))


def _field(rng: np.random.Generator, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Where a sum of plane waves of random direction and phase is larger than on some share of the disc."""
    scale = float(np.exp(rng.uniform(*np.log(WAVELENGTHS))))
    number = 2 * np.pi / (scale * rng.uniform(0.7, 1.4, WAVES))
    turn, phase = rng.uniform(0, 2 * np.pi, (2, WAVES))

    def waves(px: np.ndarray, py: np.ndarray) -> np.ndarray:
        # cos(a + b) of a function of x and one of y, so that the sum is a product of two matrices
        a, b = np.outer(number * np.cos(turn), px), np.outer(number * np.sin(turn), py) + phase[:, None]
        return np.cos(b).T @ np.cos(a) - np.sin(b).T @ np.sin(a)

    axis = np.linspace(-RADIUS, RADIUS, 128)
    inside = axis[None] ** 2 + axis[:, None] ** 2 < RADIUS**2
    limit = np.quantile(waves(axis, axis)[inside], 1 - rng.uniform(*FIELD_SHARE))
    return waves(x[0], y[:, 0]) > limit


def _cells(rng: np.random.Generator, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Where a hole is: cells of the points next to one of some random points (Voronoi), less half a wall all round."""
    points = rng.uniform(-RADIUS, RADIUS, (int(np.exp(rng.uniform(*np.log(CELLS)))), 2))
    where = np.stack(np.broadcast_arrays(x, y), axis=-1)
    distance, nearest = KDTree(points).query(where, k=2)
    between = np.linalg.norm(points[nearest[..., 0]] - points[nearest[..., 1]], axis=-1)
    to_wall = (distance[..., 1] ** 2 - distance[..., 0] ** 2) / (2 * between)
    return (to_wall > rng.uniform(*MOSAIC_WALLS) / 2) & _cut_out(rng, len(points))[nearest[..., 0]]


def _grid(rng: np.random.Generator, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Where a hole is: cells between two sets of lines, less half a wall on every side."""
    turn = rng.uniform(0, np.pi) + np.array([0, rng.uniform(0.25, 0.75) * np.pi])
    count = np.sqrt(np.exp(rng.uniform(*np.log(CELLS))))
    half, open_, cell = rng.uniform(*MOSAIC_WALLS) / 2, True, 0
    for angle in turn:
        lines = np.sort(rng.uniform(-RADIUS, RADIUS, max(1, round(count * rng.uniform(0.6, 1.4)))))
        along = x * np.cos(angle) + y * np.sin(angle)
        open_ = open_ & (np.abs(along[..., None] - lines).min(-1) > half)
        cell = cell * (len(lines) + 1) + np.searchsorted(lines, along)
    return open_ & _cut_out(rng, int(np.max(cell)) + 1)[cell]


def _cut_out(rng: np.random.Generator, cells: int) -> np.ndarray:
    """Which cells are holes."""
    return rng.uniform(size=cells) > rng.uniform(0, FILLED)


def _largest_piece(solid: np.ndarray) -> np.ndarray:
    """The disc without what is held by nothing."""
    pieces, _ = label(solid)
    return pieces == np.bincount(pieces.ravel())[1:].argmax() + 1


def _cut(
    rng: np.random.Generator, solid: np.ndarray, x: np.ndarray, y: np.ndarray, at: tuple[float, float], size: float
) -> None:
    """Takes a hole of random shape and turn out of `solid`, in place."""
    columns, rows = np.abs(x[0] - at[0]) < size, np.abs(y[:, 0] - at[1]) < size
    dx, dy = (x[:, columns] - at[0]) / size, (y[rows] - at[1]) / size
    turn = rng.uniform(0, 2 * np.pi)
    along, across = dx * np.cos(turn) + dy * np.sin(turn), dy * np.cos(turn) - dx * np.sin(turn)
    solid[np.ix_(rows, columns)] &= ~SHAPES[int(rng.integers(len(SHAPES)))](rng, along, across)


@one_line_errors()
def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="the .npz: `volume` [count, side, side], in [0, 1]")
    parser.add_argument("--count", type=int, default=400)
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    if min(args.count, args.side) < 1 or args.seed < 0:
        raise UserError(f"--count {args.count} and --side {args.side} must be positive, --seed {args.seed} at least 0")
    volume = np.stack([disc(args.seed, index, side=args.side) for index in range(args.count)])
    pixel = FIELD / args.side
    write_npz(
        args.out,
        {"volume": volume.astype(np.float16), "spacing": np.asarray([pixel, pixel, pixel]), "unit": np.asarray("1")},
    )
    print(f"{args.out}: {args.count} discs of {args.side} x {args.side} pixels")


if __name__ == "__main__":
    main()
