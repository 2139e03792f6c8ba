"""Geometry of patches: how an image is padded, and how a padded plane is tiled.

An axis of N pixels is covered by n tiles of P pixels with n P = N + M. The image is padded with M zeros on both sides
(padded side N + 2 M), and a tiling starts at one of the M offsets 0 .. M - 1, so that every tiling covers the whole
image and all of them together put the seams everywhere (PaDIS, arXiv 2406.02462, section 3.1). n is the smallest count
with M >= P/4: with fewer offsets the seams would hardly move. 256/56 gives M = 24, 256/64 64, 256/96 32, as the paper.

The whole image as one patch without padding is P = 0: the frame of the whole-image model that the paper compares with.
"""

from __future__ import annotations

import dataclasses
import math

import jax
import jax.numpy as jnp
from einops import rearrange
from jax import Array, lax

from padis_jax.fields import check_count

MAX_PIXELS = 2**28  # of a padded plane, 16384 x 16384


@dataclasses.dataclass(frozen=True)
class Frame:
    """The frozen geometry of a tiled image; saved with the weights, because positions depend on it.

    Attributes:
      image_shape: (H, W) in pixels; they may differ and need not divide by `patch`.
      patch: P, the side of a square patch in pixels; 0 for the whole image as the only patch, without padding.
      tiles: (n_y, n_x), tiles per axis; n P - N must be at least 1. `frame_for` chooses them.
    """

    image_shape: tuple[int, int]
    patch: int
    tiles: tuple[int, int]

    def __post_init__(self) -> None:
        if self.patch < 0 or min(self.image_shape) < 1:
            raise ValueError(f"frame: image_shape {self.image_shape} and patch {self.patch} must be positive")
        if self.patch == 0 and self.tiles != (1, 1):
            raise ValueError(f"frame: patch 0 is the whole image, one tile per axis, not {self.tiles}")
        if math.prod(self.padded_shape) > MAX_PIXELS or max(self.margin) > 4 * self.patch:
            raise ValueError(
                f"frame: {self.tiles} tiles of {self.patch} pixels pad an image of {self.image_shape} to "
                f"{self.padded_shape}: more than {MAX_PIXELS} pixels, or a margin of more than 4 patches"
            )
        if self.patch and min(self.margin) < 1:
            raise ValueError(
                f"frame: {self.tiles} tiles of {self.patch} pixels leave no offset on an image of {self.image_shape}; "
                "use frame_for(image_shape, patch)"
            )

    @property
    def tile_shape(self) -> tuple[int, int]:
        """Sides of a patch: (P, P), or those of the image."""
        return (self.patch, self.patch) if self.patch else self.image_shape

    @property
    def margin(self) -> tuple[int, int]:
        """(M_y, M_x): pixels of zero padding on each side, and the number of offsets per axis."""
        (h, w), (ny, nx), (ph, pw) = self.image_shape, self.tiles, self.tile_shape
        return ny * ph - h, nx * pw - w

    @property
    def padded_shape(self) -> tuple[int, int]:
        """(H + 2 M_y, W + 2 M_x)."""
        (h, w), (my, mx) = self.image_shape, self.margin
        return h + 2 * my, w + 2 * mx

    @property
    def patch_count(self) -> int:
        """Patches in one tiling, which is the number of patches in one network evaluation of an image."""
        return self.tiles[0] * self.tiles[1]

    def pad(self, image: Array) -> Array:
        """[H, W, C] -> [H + 2 M_y, W + 2 M_x, C], zeros around."""
        if image.ndim != 3 or image.shape[:2] != self.image_shape:
            raise ValueError(f"frame: expected an image of shape {(*self.image_shape, 'C')}, got {image.shape}")
        my, mx = self.margin
        return jnp.pad(image, ((my, my), (mx, mx), (0, 0)))

    def crop(self, plane: Array) -> Array:
        """[H + 2 M_y, W + 2 M_x, C] -> [H, W, C]; the transpose of `pad`."""
        self.check_plane(plane)
        (my, mx), (h, w) = self.margin, self.image_shape
        return plane[my : my + h, mx : mx + w]

    def check_plane(self, plane: Array) -> None:
        """Raises ValueError unless `plane` is [H + 2 M_y, W + 2 M_x, C]."""
        if plane.ndim != 3 or plane.shape[:2] != self.padded_shape:
            raise ValueError(f"frame: expected a plane of shape {(*self.padded_shape, 'C')}, got {plane.shape}")


def frame_for(image_shape: tuple[int, int], patch: int) -> Frame:
    """The frame with the fewest tiles that leave at least P/4 offsets per axis; for patch 0 that of the whole image."""
    for side, least in ((patch, 0), *((side, 1) for side in image_shape[:2])):
        check_count("frame: a side", side, least)
    if patch == 0:
        return Frame((image_shape[0], image_shape[1]), 0, (1, 1))
    h, w = (-(-(4 * n + patch) // (4 * patch)) for n in image_shape)  # ceil((N + P/4) / P) in integers
    return Frame((image_shape[0], image_shape[1]), patch, (h, w))


def random_offset(key: Array, frame: Frame) -> Array:
    """One of the M_y x M_x offsets, uniformly: int32 [2]; 0 where there is no margin."""
    return jax.random.randint(key, (2,), 0, jnp.maximum(jnp.asarray(frame.margin, jnp.int32), 1), jnp.int32)


def tile(frame: Frame, plane: Array, offset: Array) -> Array:
    """Cuts the tiling at `offset` out of a padded plane.

    Args:
      frame: the geometry.
      plane: [Hp, Wp, C].
      offset: integers [2], 0 <= offset < margin per axis.

    Returns:
      [n_y n_x, P, P, C] (H, W for P = 0), row by row. One dynamic slice and a reshape.

    Raises:
      ValueError: if the plane is not the frame's.
    """
    frame.check_plane(plane)
    (ny, nx), (ph, pw), c = frame.tiles, frame.tile_shape, plane.shape[-1]
    covered = lax.dynamic_slice(plane, _corner(offset), (ny * ph, nx * pw, c))
    return rearrange(covered, "(ny ph) (nx pw) c -> (ny nx) ph pw c", ny=ny, nx=nx)


def untile(frame: Frame, patches: Array, offset: Array) -> Array:
    """Puts patches back at `offset`, zero elsewhere; the exact transpose of `tile`.

    Args:
      frame: the geometry.
      patches: [n_y n_x, P, P, C], row by row.
      offset: integers [2].

    Returns:
      [Hp, Wp, C].

    Raises:
      ValueError: if there are not as many patches as tiles, or of another size.
    """
    (ny, nx), (ph, pw), c = frame.tiles, frame.tile_shape, patches.shape[-1]
    if patches.shape != (ny * nx, ph, pw, c):
        raise ValueError(f"frame: expected patches of shape {(ny * nx, ph, pw, 'C')}, got {patches.shape}")
    covered = rearrange(patches, "(ny nx) ph pw c -> (ny ph) (nx pw) c", ny=ny)
    plane = jnp.zeros((*frame.padded_shape, c), patches.dtype)
    return lax.dynamic_update_slice(plane, covered, _corner(offset))


def _corner(offset: Array) -> tuple[Array, Array, Array]:
    at = jnp.asarray(offset, jnp.int32)
    return at[0], at[1], jnp.int32(0)
