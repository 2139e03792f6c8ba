"""Geometry of slabs: how a volume is padded, and how it is tiled by patches of d slices.

In the plane a slab is a patch (patches.py). Along z an axis of D slices is covered by n tiles of d that start at one of
the d offsets 0 .. d - 1, all equally likely, so that every pair of neighbours is inside of a slab in (d - 1)/d of the
tilings. d - 1 slices of zeros lie before the volume and n d - D behind it, with n = ceil((D + d - 1) / d). For d = 1
nothing is padded, there is one offset, and every slice is tiled as an image.

All slabs of a tiling have one offset in the plane. A seam is then at one place in all slices, so that it does not make
neighbours differ; the volume is cut by one dynamic slice; and a volume of one slice is what its image is, bit for bit.
"""

from __future__ import annotations

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from jax import Array, lax

from padis_jax.fields import check_count
from padis_jax.patches import Frame, random_offset

MAX_SLAB = 64  # slices, which are channels of the network
MAX_VOXELS = 2**31 - 1  # of a padded volume, so that a 32-bit number counts them


@dataclasses.dataclass(frozen=True)
class VolumeFrame:
    """The frozen geometry of a tiled volume.

    Attributes:
      plane: the frame of every slice.
      depth: D, slices of the volume.
      slab: d, slices of a patch.
      first: number of slice 0 in the volume that positions refer to.
      total: slices of that volume; 0 for D.
    """

    plane: Frame
    depth: int
    slab: int = 1
    first: int = 0
    total: int = 0

    def __post_init__(self) -> None:
        for name, least in (("depth", 1), ("slab", 1), ("first", 0), ("total", 0)):
            check_count(f"volume frame: {name}", getattr(self, name), least)
        if self.slab > MAX_SLAB or math.prod(self.padded_shape) > MAX_VOXELS:
            raise ValueError(
                f"volume frame: {self.depth} slices in slabs of {self.slab}, padded to {self.padded_shape}: more than "
                f"{MAX_SLAB} slices in a slab, or than {MAX_VOXELS} voxels"
            )
        if self.first + self.depth > self.whole:
            raise ValueError(
                f"volume frame: slices {self.first} to {self.first + self.depth - 1} are not all in a volume of "
                f"{self.whole}"
            )

    @property
    def whole(self) -> int:
        """Slices of the volume that positions refer to."""
        return self.total or self.first + self.depth

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(D, H, W)."""
        return self.depth, *self.plane.image_shape

    @property
    def tiles(self) -> tuple[int, int, int]:
        """(n_z, n_y, n_x)."""
        return slabs_of(self.depth, self.slab), *self.plane.tiles

    @property
    def tile_shape(self) -> tuple[int, int, int]:
        """(d, P, P)."""
        return self.slab, *self.plane.tile_shape

    @property
    def margin(self) -> tuple[int, int, int]:
        """(d - 1, M_y, M_x): slices, rows and columns of zeros before the volume."""
        return self.slab - 1, *self.plane.margin

    @property
    def padded_shape(self) -> tuple[int, int, int]:
        """(n_z d + d - 1, H + 2 M_y, W + 2 M_x)."""
        return slabs_of(self.depth, self.slab) * self.slab + self.slab - 1, *self.plane.padded_shape

    @property
    def patch_count(self) -> int:
        """Patches in one tiling."""
        return math.prod(self.tiles)

    def pad(self, volume: Array) -> Array:
        """[D, H, W] -> [Dp, Hp, Wp], zeros around."""
        if volume.shape != self.image_shape:
            raise ValueError(f"volume frame: expected a volume of shape {self.image_shape}, got {volume.shape}")
        before = self.margin
        sides = zip(before, self.padded_shape, self.image_shape, strict=True)
        return jnp.pad(volume, [(m, padded - m - side) for m, padded, side in sides])

    def crop(self, volume: Array) -> Array:
        """[Dp, Hp, Wp] -> [D, H, W]; the transpose of `pad`."""
        self.check_volume(volume)
        (mz, my, mx), (d, h, w) = self.margin, self.image_shape
        return volume[mz : mz + d, my : my + h, mx : mx + w]

    def check_volume(self, volume: Array) -> None:
        """Raises ValueError unless `volume` is [Dp, Hp, Wp]."""
        if volume.shape != self.padded_shape:
            raise ValueError(f"volume frame: expected a padded volume {self.padded_shape}, got {volume.shape}")

    def without_ends(self, volume: Array) -> Array:
        """[Dp, Hp, Wp] with 0 in the slices beyond the ends, whose clean values are known to be 0."""
        if self.slab == 1:
            return volume
        number = jnp.arange(volume.shape[0])
        inside = (number >= self.slab - 1) & (number < self.slab - 1 + self.depth)
        return jnp.where(inside[:, None, None], volume, 0)


def slabs_of(depth: int, slab: int) -> int:
    """ceil((D + d - 1) / d), the tiles of d slices that cover D from any of the d offsets."""
    return -(-(depth + slab - 1) // slab)


def slab_heights(slab: int, total: int) -> np.ndarray:
    """z of slabs in a volume, that of their middle: slice k of a padded volume of N is at 2 (k / (N - 1) - 1/2).

    Training and sampling look it up in this table, so that a slab has the same z in both.

    Args:
      slab: d.
      total: slices of the volume.

    Returns:
      float32 [n d] from -1 to 1 for slabs that begin at slice 1 - d, 2 - d, ...; 0 where the padded volume has one.
    """
    tiled = slabs_of(total, slab) * slab
    middle = np.arange(tiled) + (slab - 1) / 2
    return (2 * (middle / max(tiled + slab - 2, 1) - 0.5) * (tiled + slab > 2)).astype(np.float32)


def random_offsets(key: Array, frame: VolumeFrame) -> Array:
    """One of the offsets of a tiling, uniformly: int32 [3]; for d = 1 that of the plane."""
    if frame.slab == 1:
        return jnp.pad(random_offset(key, frame.plane), (1, 0))
    key, z_key = jax.random.split(key)
    z = jax.random.randint(z_key, (1,), 0, frame.slab, jnp.int32)
    return jnp.concatenate([z, random_offset(key, frame.plane)])


def tile_volume(frame: VolumeFrame, volume: Array, offset: Array, numbers: Array | None = None) -> Array:
    """Cuts slabs of the tiling at `offset` out of a padded volume.

    Args:
      frame: the geometry.
      volume: [Dp, Hp, Wp].
      offset: integers [3], from 0; below d along z, below the margin in the plane.
      numbers: [b], which slabs, counted along x, y, then z; None for all.

    Returns:
      [b, P, P, d]; the slices of a slab are its channels.

    Raises:
      ValueError: if the volume is not the frame's.
    """
    frame.check_volume(volume)
    if numbers is None:
        (nz, ny, nx), (d, ph, pw) = frame.tiles, frame.tile_shape
        covered = lax.dynamic_slice(volume, tuple(offset), (nz * d, ny * ph, nx * pw))
        return rearrange(covered, "(nz d) (ny ph) (nx pw) -> (nz ny nx) ph pw d", nz=nz, ny=ny, nx=nx)
    cut = jax.vmap(lambda corner: lax.dynamic_slice(volume, tuple(corner), frame.tile_shape))
    return rearrange(cut(corners(frame, offset, numbers)), "b d ph pw -> b ph pw d")


def untile_volume(frame: VolumeFrame, patches: Array, offset: Array) -> Array:
    """Puts the slabs of a tiling [n, P, P, d] back, zero elsewhere: [Dp, Hp, Wp]; the exact transpose of tiling."""
    (nz, ny, nx), (d, ph, pw) = frame.tiles, frame.tile_shape
    if patches.shape != (nz * ny * nx, ph, pw, d):
        raise ValueError(f"volume frame: expected patches {(nz * ny * nx, ph, pw, d)}, got {patches.shape}")
    covered = rearrange(patches, "(nz ny nx) ph pw d -> (nz d) (ny ph) (nx pw)", nz=nz, ny=ny)
    return lax.dynamic_update_slice(jnp.zeros(frame.padded_shape, patches.dtype), covered, tuple(offset))


def corners(frame: VolumeFrame, offset: Array, numbers: Array) -> Array:
    """First slice, row and column of slabs on the padded volume: int32 [b, 3]."""
    _, ny, nx = frame.tiles
    index = jnp.stack([numbers // (ny * nx), numbers // nx % ny, numbers % nx], axis=-1)
    return jnp.asarray(offset, jnp.int32)[None] + index * jnp.asarray(frame.tile_shape, jnp.int32)[None]
