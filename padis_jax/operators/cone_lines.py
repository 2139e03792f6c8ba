"""The rays of a cone beam as lines through the planes of a volume; symbols are those of `cone_geometry`."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import jax.numpy as jnp
import numpy as np
from jax import Array

from padis_jax.operators.joseph import Table

OTHERS = ((1, 2), (0, 2), (0, 1))  # of a main axis, the other two
# X_a = (sign M_b + n w_a) / w_m for the first of them and for the second: whether (b, a, m) is an even permutation.
SIGNS = ((-1, 1), (1, -1), (-1, 1))


class Tables(Protocol):
    """What is needed of `cone_rays.ConeRays`."""

    @property
    def direction(self) -> Table:
        """w by (1, i, j) and axis, [views, 3, 3]."""
        ...

    @property
    def moment(self) -> Table:
        """M, likewise."""
        ...

    @property
    def whole(self) -> Table:
        """w in whole numbers."""
        ...

    @property
    def sizes(self) -> Table:
        """Of a voxel, [3]."""
        ...

    @property
    def detector_shape(self) -> tuple[int, int]:
        """(rows, columns)."""
        ...


def main_axes(whole: Table, detector_shape: tuple[int, int]) -> tuple[Any, Any, Any]:
    """Whether a ray's main axis is that of slices, rows or columns, by w in whole numbers: [..., rows, columns] each.

    It is that along which w is largest; of equal ones, one.
    """
    i, j = (2 * np.arange(n, dtype=np.int32) - np.int32(n - 1) for n in detector_shape)
    z, y, x = (abs(_affine(whole[..., axis], i, j)) for axis in range(3))
    return (z > y) & (z > x), (y >= x) & (y >= z), (x > y) & (x >= z)


def directions(rays: Tables, view: Array, dtype: Any) -> list[Array]:
    """w along the three axes, in voxels: [..., rows, columns] each."""
    i, j = _pixels(rays, dtype)
    return [_affine(rays.direction[view, :, axis].astype(dtype), i, j) for axis in range(3)]


def _pixels(rays: Tables, dtype: Any) -> tuple[Array, Array]:
    rows, columns = (jnp.asarray(np.arange(n) - (n - 1) / 2, dtype) for n in rays.detector_shape)
    return rows, columns


def _affine(table: Table, i: Any, j: Any) -> Any:
    """[..., rows, columns] of a table [..., 3], i [rows] and j [columns]."""
    first, row, column = (table[..., n][..., None, None] for n in range(3))
    leading = (1,) * (table.ndim - 1)
    return first + row * i.reshape(*leading, -1, 1) + column * j.reshape(*leading, 1, -1)


class Lines(NamedTuple):
    """Where rays are on the planes of their main axis, and the length of a ray between two: [views, rows, columns]."""

    at: list[Array]  # along both other axes, on plane 0
    slope: list[Array]
    step: Array  # 0 for rays of another main axis
    main: Array  # w_m, 1 for those


def lines_of(rays: Tables, kind: Array, view: Array, dtype: Any) -> Lines:
    """Of the rays of some views that have the main axis `kind`, one for each view."""
    i, j = _pixels(rays, dtype)
    mains = main_axes(rays.whole[view], rays.detector_shape)
    mine = jnp.select([(kind == n)[:, None, None] for n in range(3)], mains, False)
    direction, moment = rays.direction[view].astype(dtype), rays.moment[view].astype(dtype)

    def along(table: Array, axis: Array) -> Array:
        return _affine(jnp.take_along_axis(table, axis[:, None, None], 2)[..., 0], i, j)

    main = jnp.where(mine, along(direction, kind), 1)
    inverse = jnp.where(mine, 1 / main, 0)
    sizes = rays.sizes.astype(dtype)
    length = sum((part * size) ** 2 for part, size in zip(directions(rays, view, dtype), sizes, strict=True))
    others, signs = jnp.asarray(OTHERS)[kind], jnp.asarray(SIGNS, dtype)[kind][..., None, None]
    return Lines(
        [signs[:, n] * along(moment, others[:, 1 - n]) * inverse for n in range(2)],
        [along(direction, others[:, n]) * inverse for n in range(2)],
        jnp.sqrt(length) * jnp.abs(inverse),
        main,
    )
