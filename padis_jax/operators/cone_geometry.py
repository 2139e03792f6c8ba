"""The geometry of a cone-beam scan: a point source and a flat detector, placed for each view on its own.

Axes are those of the volume's array, (slice, row, column), positions are counted in voxels from the volume's centre:
x and z ascend with column and slice, y descends with the row. In a view the source is at S; pixel (i, j), counted from
the detector's centre C with steps r from row to row and c from column to column, is at P = C + i r + j c. Its ray

    X = S + s w,     w = P - S,     X x w = M := S x P

crosses plane n of axis m at X_a = (+-M_b + n w_a) / w_m, a and b being the other two axes. w and M are affine in i and
j, since S x S = 0: nine numbers each, in which nothing large cancels. A ray's main axis is that along which w is
largest (Joseph's method in three dimensions). Whole numbers decide it, so that no rounding puts a ray at 45 degrees on
two axes or on none.

A voxel X is seen at (i, j) = (P_0 [X, 1], P_1 [X, 1]) / P_2 [X, 1]; P_2 [X, 1] is its depth over the detector's.
"""

from __future__ import annotations

import dataclasses
import itertools
import math

import numpy as np
from jax import Array

from padis_jax.operators.cone_lines import main_axes
from padis_jax.operators.cone_rays import ConeRays
from padis_jax.operators.fan import FanGeometry
from padis_jax.operators.fbp import FbpTables, fbp_tables
from padis_jax.operators.shares import full_turn

REGULAR = 0.05  # by how much distances may differ from view to view, and directions from the axis', on a circular orbit
CELLS, STEPS = 6, 20  # of the volume, along each axis, in which the reach of a voxel is bounded, in so many steps
SLACK = 1e-2  # of a pixel: rounding of where a voxel is seen
WIDEST = 2**30  # whole numbers that decide a ray's axis


@dataclasses.dataclass(frozen=True)
class ConeGeometry:
    """Numbers of a scan, lengths in one unit.

    Attributes:
      volume_shape: (D, H, W).
      detector_shape: (rows, columns).
      vectors: 12 numbers a view, (x, y, z) of source, detector centre, step between columns, and step between rows.
      pixel_size: side of a voxel in its slice.
      slice_spacing: distance of two slices.
    """

    volume_shape: tuple[int, int, int]
    detector_shape: tuple[int, int]
    vectors: tuple[float, ...]
    pixel_size: float
    slice_spacing: float

    @property
    def measurement_shape(self) -> tuple[int, int, int]:
        """(views, rows, columns)."""
        return len(self.vectors) // 12, *self.detector_shape

    @property
    def placed(self) -> np.ndarray:
        """Source, detector centre, column step and row step as (x, y, z): [views, 4, 3]."""
        return np.asarray(self.vectors, np.float64).reshape(-1, 4, 3)

    def words(self) -> np.ndarray:
        """All real numbers, float64 bit for bit as integers, which JAX does not round."""
        return np.asarray([*self.vectors, self.pixel_size, self.slice_spacing], np.float64).view(np.uint32)

    @classmethod
    def from_words(
        cls, volume_shape: tuple[int, int, int], detector_shape: tuple[int, int], words: np.ndarray | Array
    ) -> ConeGeometry:
        """The scan with these `words`, which must not be traced."""
        *vectors, pixel_size, slice_spacing = np.array(words).view(np.float64).tolist()
        return cls(volume_shape, detector_shape, tuple(vectors), pixel_size, slice_spacing)

    @property
    def sizes(self) -> np.ndarray:
        """Of a voxel, along slices, rows and columns."""
        return np.asarray([self.slice_spacing, self.pixel_size, self.pixel_size])

    def in_voxels(self) -> np.ndarray:
        """`placed` along the axes of the array, in voxels: [views, 4, 3]."""
        return self.placed[..., ::-1] * np.asarray([1, -1, 1]) / self.sizes

    def seen(self) -> np.ndarray:
        """P: [views, 3, 4]."""
        source, centre, column, row = np.moveaxis(self.in_voxels(), 1, 0)
        inverse = np.linalg.inv(np.stack([row, column, centre - source], 2))
        return np.concatenate([inverse, -(inverse @ source[:, :, None])], 2)

    def depths(self) -> np.ndarray:
        """P_2 at the corners of the volume and a voxel around it, [views, 8]: positive before the source."""
        ends = np.asarray(list(itertools.product(*((-(n + 1) / 2, (n + 1) / 2) for n in self.volume_shape))))
        third = self.seen()[:, 2]
        return third[:, :3] @ ends.T + third[:, 3:]

    def truncated(self) -> float:
        """Fraction of the lines through the cylinder inscribed in the volume that pass beside the detector.

        Of lines through points of a coarse grid, in all views. The shorter side of a detector beside the axis counts
        as long as the other where the views make a full turn, which shows the object from there too.
        """
        ends = [np.linspace(-(n - 1) / 2, (n - 1) / 2, min(n, 9)) for n in self.volume_shape]
        points = np.stack([*np.meshgrid(*ends, indexing="ij"), np.ones([len(x) for x in ends])], -1).reshape(-1, 4)
        radius = max((n - 1) / 2 for n in self.volume_shape[1:])
        points = points[np.hypot(points[:, 1], points[:, 2]) <= radius + 1e-9]
        i, j, q = np.moveaxis(points @ np.moveaxis(self.seen(), 1, 2), -1, 0)
        rows, columns = self.detector_shape
        fan = self.fan()
        more = fan[0].widened()[1] if fan is not None and full_turn(fan[0].angles) else 0
        return float(np.mean((np.abs(i / q) > rows / 2) | (np.abs(j / q) > columns / 2 + more)))

    def rays(self) -> ConeRays:
        """Its tables, in NumPy."""
        source, centre, column, row = np.moveaxis(self.in_voxels(), 1, 0)
        w = np.stack([centre - source, row, column], 1)
        pairs, counts = self._pairs(w)
        reach = np.zeros((3, 2))
        for kind in range(3):
            reach[kind] = self._reach(kind, pairs[: counts[1]][pairs[: counts[1], 0] == kind, 1]) + SLACK
        fan = self.fan()
        return ConeRays(
            direction=w,
            moment=np.stack([np.cross(source, at) for at in (centre, row, column)], 1),
            whole=_whole(w, self.detector_shape),
            seen=self.seen(),
            pairs=pairs,
            counts=counts,
            reach=reach,
            sizes=self.sizes,
            row=_unit(row * self.sizes),
            depth=np.abs(_normal_depth(self.placed)),
            fbp=None if fan is None else _in_order(fbp_tables(fan[0]), fan[1]),
            volume_shape=self.volume_shape,
            detector_shape=self.detector_shape,
            tall=bool(counts[1] > counts[0]),
            taps=(_count(reach[:, 0]), _count(reach[:, 1])),
        )

    def _pairs(self, w: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """`pairs` and `counts` of `ConeRays`."""
        whole = _whole(w, self.detector_shape)
        has = np.asarray([[mine.any() for mine in main_axes(view, self.detector_shape)] for view in whole])
        order = (1, 2, 0)
        pairs = np.asarray([(kind, view) for kind in order for view in np.flatnonzero(has[:, kind])], np.int32)
        counts = np.asarray([has[:, 1:].sum(), has.sum()], np.int32)
        return np.pad(pairs, ((0, 3 * len(w) - len(pairs)), (0, 0))), counts

    def _reach(self, kind: int, views: np.ndarray) -> np.ndarray:
        """Bounds on how many rows and columns a ray of this kind can be from where a voxel is seen that it weighs.

        It passes the voxel at less than a voxel along both other axes. Along an axis a, i = N / Q has the slope
        (N_a - i Q_a) / Q: in a cell of the volume at most that of the least and largest i, over the least Q. Cells that
        are seen further beside the detector than the bound itself do not count.
        """
        seen = self.seen()[views]
        edges = [np.linspace(-(n + 1) / 2, (n + 1) / 2, CELLS + 1) for n in self.volume_shape]
        grid = np.stack([*np.meshgrid(*edges, indexing="ij"), np.ones((CELLS + 1,) * 3)], -1)
        at = np.einsum("xyzk,vnk->nvxyz", grid, seen)
        least = _of_cells(at[2], np.minimum)
        places = [(_of_cells(n / at[2], np.minimum), _of_cells(n / at[2], np.maximum)) for n in at[:2]]
        half = [n / 2 for n in self.detector_shape]

        def bound(beside: np.ndarray) -> np.ndarray:
            edge = [h + more for h, more in zip(half, beside, strict=True)]
            ends = [[np.clip(place, -e, e) for place in pair] for pair, e in zip(places, edge, strict=True)]
            met = np.logical_and(*((low <= e) & (high >= -e) for (low, high), e in zip(places, edge, strict=True)))
            found = np.zeros(2)
            for n in range(2):
                first, third = seen[:, n, :3], seen[:, 2, :3]
                slopes = sum(
                    np.maximum(*(np.abs(_wide(first[:, a]) - end * _wide(third[:, a])) for end in ends[n]))
                    for a in range(3)
                    if a != kind
                )
                found[n] = np.max(np.where(met, slopes / least, 0), initial=0)
            return found

        beside = np.ones(2)
        for _ in range(STEPS):
            found = bound(beside)
            if (found <= beside).all():
                return found
            beside = np.maximum(beside, 1.02 * found)
        return bound(np.full(2, np.inf))

    def fan(self) -> tuple[FanGeometry, bool] | None:
        """The fan beam in the plane of the orbit, and whether its bins run against the detector's columns.

        None where the views are no circular orbit about the z axis with the detector's rows across it.
        """
        source, centre, column, row = np.moveaxis(self.placed, 1, 0)
        along, up = _unit(column), _unit(row)
        if (np.abs(along[:, 2]) > REGULAR).any() or (np.abs(np.abs(up[:, 2]) - 1) > REGULAR).any():
            return None
        against = bool(((along[:, 0] * -source[:, 1] - along[:, 1] * -source[:, 0]) < 0).sum() * 2 > len(source))
        if against:
            along = -along
        angles = np.arctan2(along[:, 1], along[:, 0])
        ahead = np.stack([-np.sin(angles), np.cos(angles)], 1)
        aside = np.stack([np.cos(angles), np.sin(angles)], 1)
        d, a = -(source[:, :2] * ahead).sum(1), -(source[:, :2] * aside).sum(1)
        e = (centre[:, :2] * ahead).sum(1)
        offset = ((centre - source)[:, :2] * aside).sum(1)
        spacing = np.linalg.norm(column, axis=1)
        unit = np.abs(d).mean()
        for value in (d, d + e, spacing * unit / spacing.mean(), a, offset, source[:, 2]):
            if np.ptp(value) > REGULAR * unit:
                return None
        if d.mean() <= 0 or (d + e).mean() <= 0:
            return None
        return FanGeometry(
            image_shape=self.volume_shape[1:],
            angles=tuple(angles.tolist()),
            detector_count=self.detector_shape[1],
            detector_spacing=float(spacing.mean()),
            pixel_size=self.pixel_size,
            detector_offset=float(offset.mean()),
            rotation_offset=float(a.mean()),
            source_distance=float(d.mean()),
            detector_distance=float(e.mean()),
        ), against


def circular(
    angles: np.ndarray,
    *,
    spacing: tuple[float, float],
    source_distance: float,
    detector_distance: float,
    offset: tuple[float, float] = (0.0, 0.0),
) -> tuple[float, ...]:
    """`vectors` of a circular orbit; spacing and offset are (rows, columns)."""
    t, zero = np.asarray(angles, np.float64), np.zeros(len(angles))
    along, ahead = np.stack([np.cos(t), np.sin(t), zero], 1), np.stack([-np.sin(t), np.cos(t), zero], 1)
    up = np.stack([zero, zero, zero + 1], 1)
    centre = detector_distance * ahead + offset[1] * along + offset[0] * up
    return tuple(
        np.concatenate([-source_distance * ahead, centre, spacing[1] * along, spacing[0] * up], 1).ravel().tolist()
    )


def _whole(w: np.ndarray, detector_shape: tuple[int, int]) -> np.ndarray:
    """w in whole numbers, of detector indices that are counted in halves: [views, 3, 3]."""
    half = np.asarray([1, *((n - 1) / 2 for n in detector_shape)])
    most = (np.abs(w) * half[:, None]).sum(1).max(1)
    return np.round(w * np.asarray([1, 0.5, 0.5])[:, None] * (WIDEST / most)[:, None, None]).astype(np.int32)


def _of_cells(values: np.ndarray, take: np.ufunc) -> np.ndarray:
    """The least or largest of the eight corners of every cell."""
    for axis in range(-3, 0):
        n = values.shape[axis]
        values = take(np.take(values, range(n - 1), axis), np.take(values, range(1, n), axis))
    return values


def _wide(values: np.ndarray) -> np.ndarray:
    """[views] -> [views, 1, 1, 1]."""
    return values[:, None, None, None]


def _count(reach: np.ndarray) -> int:
    """Pixels along one axis that a voxel can be weighed by."""
    return math.ceil(2 * (reach.max() + SLACK))


def seen_from_edge(views: np.ndarray) -> np.ndarray:
    """Of views [views, 12], whether the source lies (nearly) in the detector's plane, or its two steps span none."""
    source, centre, column, row = np.moveaxis(views.reshape(-1, 4, 3), 1, 0)
    with np.errstate(all="ignore"):
        flat = np.abs((np.cross(column, row) * (centre - source)).sum(1))
        sides = np.prod([np.linalg.norm(v, axis=1) for v in (column, row, centre - source)], axis=0)
        return ~(flat > 1e-3 * sides)


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def _normal_depth(placed: np.ndarray) -> np.ndarray:
    """Distance of source and detector along its normal, [views]."""
    source, centre, column, row = np.moveaxis(placed, 1, 0)
    return (_unit(np.cross(row, column)) * (centre - source)).sum(1)


def _in_order(tables: FbpTables, against: bool) -> FbpTables:
    """Of the detector's columns, given those of the bins."""
    return tables._replace(weights=tables.weights[:, ::-1] if against else tables.weights)
