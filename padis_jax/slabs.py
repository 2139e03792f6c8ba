"""Geometry of slabs: how a volume is padded, and how it is tiled by patches of d slices.

In the plane a slab is a patch (patches.py). Along z an axis of D slices is covered by n tiles of d that start at one of
the d offsets 0 .. d - 1, all equally likely, so that every pair of neighbours is inside of a slab in (d - 1)/d of the
tilings. d - 1 slices of zeros lie before the volume and n d - D behind it, with n = ceil((D + d - 1) / d). For d = 1
nothing is padded, there is one offset, and every slice is tiled as an image.

A slab may also hold every s-th slice, such as 1, 4, 7 for d = s = 3, on every other noise level (slabs of slices that
are apart beside slabs of neighbours: DiffusionBlend, arXiv 2406.10211). Then an axis is covered by blocks of d s
neighbouring slices that start at one of d s offsets; the s slabs of a block share its slices out, slab r holding those
at r, r + s, ... The padding is that of blocks, d s - 1 slices before the volume, and holds both tilings.

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
MAX_SKIP = 64  # slices between those of a slab
MAX_VOXELS = 2**31 - 1  # of a padded volume, so that a 32-bit number counts them


@dataclasses.dataclass(frozen=True)
class VolumeFrame:
    """The frozen geometry of a tiled volume.

    Attributes:
      plane: the frame of every slice.
      depth: D, slices of the volume.
      slab: d, slices of a patch.
      skip: s, distance of the slices of a patch on every other level, where d > 1; 1 for neighbours on all levels.
      first: number of slice 0 in the volume that positions refer to.
      total: slices of that volume; 0 for D.
    """

    plane: Frame
    depth: int
    slab: int = 1
    first: int = 0
    total: int = 0
    skip: int = 1

    def __post_init__(self) -> None:
        for name, least in (("depth", 1), ("slab", 1), ("first", 0), ("total", 0), ("skip", 1)):
            check_count(f"volume frame: {name}", getattr(self, name), least)
        if self.slab > MAX_SLAB or self.skip > MAX_SKIP or math.prod(self.padded_shape) > MAX_VOXELS:
            raise ValueError(
                f"volume frame: {self.depth} slices in slabs of {self.slab}, {self.skip} apart, padded to "
                f"{self.padded_shape}: more than {MAX_SLAB} slices in a slab, {MAX_SKIP} apart, or than {MAX_VOXELS} "
                "voxels"
            )
        if self.skip > 1 and self.slab == 1:
            raise ValueError(f"volume frame: skip is {self.skip}, and a slab of one slice has no slices apart: use 1")
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
        """(n_z, n_y, n_x) of a tiling by slabs of neighbours."""
        return self.tiles_of(1)

    def tiles_of(self, skip: int) -> tuple[int, int, int]:
        """(n_z, n_y, n_x) of a tiling by slabs of slices that are `skip` apart, 1 or the frame's."""
        return slabs_of(self.depth, self.slab * skip) * skip, *self.plane.tiles

    @property
    def tile_shape(self) -> tuple[int, int, int]:
        """(d, P, P)."""
        return self.slab, *self.plane.tile_shape

    @property
    def margin(self) -> tuple[int, int, int]:
        """(d s - 1, M_y, M_x): slices, rows and columns of zeros before the volume."""
        return self.slab * self.skip - 1, *self.plane.margin

    @property
    def padded_shape(self) -> tuple[int, int, int]:
        """(n d s + d s - 1, H + 2 M_y, W + 2 M_x) for n blocks of d s slices."""
        block = self.slab * self.skip
        return slabs_of(self.depth, block) * block + block - 1, *self.plane.padded_shape

    @property
    def patch_count(self) -> int:
        """Patches in one tiling by slabs of neighbours."""
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
        number, before = jnp.arange(volume.shape[0]), self.margin[0]
        inside = (number >= before) & (number < before + self.depth)
        return jnp.where(inside[:, None, None], volume, 0)


def slabs_of(depth: int, slab: int) -> int:
    """ceil((D + d - 1) / d), the tiles of d slices that cover D from any of the d offsets."""
    return -(-(depth + slab - 1) // slab)


def slab_heights(slab: int, total: int, skip: int = 1) -> np.ndarray:
    """z of slabs in a volume, that of their middle: slice k of a padded volume of N is at 2 (k / (N - 1) - 1/2).

    Training and sampling look it up in this table, so that a slab has the same z in both. N is that of slabs of
    neighbours for every s, so that a place has one z; slabs of slices that are apart may reach a little beyond 1.

    Args:
      slab: d.
      total: slices of the volume.
      skip: s, distance of the slices of a slab.

    Returns:
      float32 [n d s], from -1 to 1 for s = 1, for slabs that begin at slice 1 - d s, 2 - d s, ...; 0 where the padded
      volume has one slice.
    """
    tiled, block = slabs_of(total, slab) * slab, slab * skip
    middle = np.arange(slabs_of(total, block) * block) + (slab - block + skip * (slab - 1) / 2)
    return (2 * (middle / max(tiled + slab - 2, 1) - 0.5) * (tiled + slab > 2)).astype(np.float32)


def random_offsets(key: Array, frame: VolumeFrame, skip: int = 1) -> Array:
    """One of the offsets of a tiling, uniformly: int32 [3]; for d = 1 that of the plane.

    Args:
      key: of the call.
      frame: the geometry.
      skip: distance of the slices of a slab, 1 or the frame's.
    """
    if frame.slab == 1:
        return jnp.pad(random_offset(key, frame.plane), (1, 0))
    key, z_key = jax.random.split(key)
    least = frame.margin[0] + 1 - frame.slab * skip
    z = jax.random.randint(z_key, (1,), least, least + frame.slab * skip, jnp.int32)
    return jnp.concatenate([z, random_offset(key, frame.plane)])


def tile_volume(frame: VolumeFrame, volume: Array, offset: Array, numbers: Array | None = None, skip: int = 1) -> Array:
    """Cuts slabs of the tiling at `offset` out of a padded volume.

    Args:
      frame: the geometry.
      volume: [Dp, Hp, Wp].
      offset: integers [3], from 0, of `random_offsets`; below the margin in the plane.
      numbers: [b], which slabs, counted along x, y, then z; None for all.
      skip: distance of the slices of a slab, 1 or the frame's.

    Returns:
      [b, P, P, d]; the slices of a slab are its channels.

    Raises:
      ValueError: if the volume is not the frame's.
    """
    frame.check_volume(volume)
    if numbers is None:
        (nz, ny, nx), (d, ph, pw) = frame.tiles_of(skip), frame.tile_shape
        covered = lax.dynamic_slice(volume, tuple(offset), (nz * d, ny * ph, nx * pw))
        return rearrange(covered, "(n d s) (ny ph) (nx pw) -> (n s ny nx) ph pw d", d=d, s=skip, ny=ny, nx=nx)
    d, ph, pw = frame.tile_shape
    reach = (d - 1) * skip + 1
    cut = jax.vmap(lambda corner: lax.dynamic_slice(volume, tuple(corner), (reach, ph, pw))[::skip])
    return rearrange(cut(corners(frame, offset, numbers, skip)), "b d ph pw -> b ph pw d")


def untile_volume(frame: VolumeFrame, patches: Array, offset: Array, skip: int = 1) -> Array:
    """Puts the slabs of a tiling [n, P, P, d] back, zero elsewhere: [Dp, Hp, Wp]; the exact transpose of tiling."""
    (nz, ny, nx), (d, ph, pw) = frame.tiles_of(skip), frame.tile_shape
    if patches.shape != (nz * ny * nx, ph, pw, d):
        raise ValueError(f"volume frame: expected patches {(nz * ny * nx, ph, pw, d)}, got {patches.shape}")
    covered = rearrange(patches, "(n s ny nx) ph pw d -> (n d s) (ny ph) (nx pw)", s=skip, ny=ny, nx=nx)
    return lax.dynamic_update_slice(jnp.zeros(frame.padded_shape, patches.dtype), covered, tuple(offset))


def corners(frame: VolumeFrame, offset: Array, numbers: Array, skip: int = 1) -> Array:
    """First slice, row and column of slabs on the padded volume: int32 [b, 3]."""
    _, ny, nx = frame.tiles
    at, (d, ph, pw) = numbers // (ny * nx), frame.tile_shape
    first = at * d if skip == 1 else at // skip * (d * skip) + at % skip
    index = jnp.stack([first, numbers // nx % ny * ph, numbers % nx * pw], axis=-1)
    return jnp.asarray(offset, jnp.int32)[None] + index.astype(jnp.int32)
